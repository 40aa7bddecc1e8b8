"""What decoders share: buffers of keys and values, and attention over them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rate.batch import Observations, map_tensors
from rate.embeddings import ACTION, TOKENS_PER_STEP
from rate.model import SequenceModel
from rate.nn.layout import masked_bias

# Of keys that stand outside time, for whom distance has no say: further than anything reaches.
OUTSIDE = -(2**30)


@dataclass(frozen=True)
class Look:
    """What new tokens look at: the same in every layer.

    Attributes:
        rows: `(b,)` the rows of the batch they belong to, or every row.
        place: Where their keys and values are remembered, as an index of a layer's buffer.
        used: How many slots are in use.
        mask: `(b, 1, n, used)`, added to scores: 0 for the slots that each may look at.
        column: `(b, 1, n, used)`, the column of the distance table for each token and slot; None
            where distances have no say.
    """

    rows: Tensor | slice
    place: Any
    used: int
    mask: Tensor
    column: Tensor | None

    def of_last(self, count: int) -> Look:
        """That of the last tokens alone."""
        column = None if self.column is None else self.column[:, :, -count:]
        return replace(self, mask=self.mask[:, :, -count:], column=column)


class Decoder:
    """What decoders share: buffers of keys and values, and attention over them.

    Where each row stands is known on the host: what a step has to do follows from it, and to ask
    a GPU would be to wait for it.

    A buffer has one slot per remembered token and one, the bin, for tokens that are not to be
    remembered (a row's "previous action" before its first step). Slots fill up from the front,
    and a step looks at no more of them than are in use.

    Args:
        model: In evaluation mode.
        batch_size: Rows.
        num_slots: Slots, with the bin.
        reach: The distances that keys are seen from: less than this.

    Attributes:
        key_position: `(B, slots)` int64, the places of remembered tokens on the time axis; `(1,
            slots)` where they are the same in all rows, as they must be to forward some rows alone.
    """

    key_position: Tensor

    def __init__(self, model: SequenceModel, batch_size: int, num_slots: int, reach: int) -> None:
        config, weight = model.config, next(model.parameters())
        self.model, self.batch_size, self.device = model, batch_size, weight.device
        self.layers, self.reach = model.layers, reach
        # Keys and values: (layers, 2, B, H, slots, d_head).
        heads = (config.num_heads, num_slots, config.head_width)
        self.remembered = weight.new_zeros((config.num_layers, 2, batch_size, *heads))
        # Where a_{t-1}, R_t and o_t stand, counted from R_t.
        self.offsets = torch.arange(-1, TOKENS_PER_STEP - 1, device=self.device)
        self.row = torch.arange(batch_size, device=self.device)
        self.tables: list[Tensor | None] = [None] * config.num_layers
        if config.position == "relative":
            with torch.no_grad():  # the weights stand still while a decoder lives
                tables = [b.attention.distance_table(reach, self.device) for b in self.layers]
            # Column 0 is that of whatever is further away.
            self.tables = [F.pad(table, (0, 0, 1, 0)) for table in tables]

    @torch.no_grad()
    def reset(self, rows: Tensor | None = None) -> None:
        """Start an episode in the rows `(B,)` bool, best on the CPU, or in all of them."""
        everyone = torch.ones(self.batch_size, dtype=torch.bool)
        self._restart(everyone if rows is None else rows.cpu())

    @torch.no_grad()
    def step(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        """The action head's predictions `(B, ...)` for one more step of every row.

        Args:
            previous_actions: `(B,)` or `(B, A)`; in a row just reset, any valid action (ignored).
            returns_to_go: `(B, 1)`.
            observations: `(B, *obs)` or a dictionary of such tensors.
            timesteps: `(B,)` int64, the step's index within its episode.
        """
        tokens = self._embed(previous_actions, returns_to_go, observations, timesteps)
        predictions: Tensor = self.model.head(self._next(tokens))
        return predictions

    def _restart(self, rows: Tensor) -> None:
        """Forget the episodes of `rows` `(B,)` bool, on the CPU."""
        raise NotImplementedError

    def _next(self, tokens: Tensor) -> Tensor:
        """Hidden states `(B, d)` at the last of the tokens a_{t-1}, R_t, o_t `(B, 3, d)`."""
        raise NotImplementedError

    def _embed(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        """The tokens a_{t-1}, R_t, o_t of every row: `(B, 3, d)`."""
        observations = map_tensors(observations, lambda tensor: tensor[:, None])
        actions, timesteps = previous_actions[:, None], timesteps[:, None]
        embed = self.model.embed_steps
        now: Tensor = embed(returns_to_go[:, None], observations, actions, timesteps)[:, 0]
        if embed.timestep is None:
            return now.roll(1, dims=1)  # the action is the last of a step
        # a_{t-1} belongs to the step before.
        previous = embed.place(embed.embed_actions(actions)[:, :, None], timesteps - 1)[:, 0]
        return torch.cat((previous, now[:, :ACTION]), dim=1)

    def _forward(
        self, x: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, allowed: Tensor, last: int
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the blocks over new tokens.

        Args:
            x: `(b, n, d)` new tokens.
            rows: `(b,)` the rows of the batch they belong to.
            slots: `(b, n)` where to remember them.
            positions: `(b, n)` their places on the time axis.
            allowed: `(b, n, used)` bool, the slots each may look at, of those in use.
            last: How many of the tokens, counted from the last, have an output that matters.

        Returns:
            Normalised outputs `(b, last, d)`, and every layer's inputs.
        """
        look = self._look(rows, slots, positions, allowed)
        inputs = []
        for index, block in enumerate(self.layers):
            inputs.append(x)
            if index == len(self.layers) - 1 and last < x.shape[1]:
                look = look.of_last(last)
            x = block(x, partial(self._attend, index, look))
        return self.model.norm(x), inputs

    def _look(self, rows: Tensor, slots: Tensor, positions: Tensor, allowed: Tensor) -> Look:
        """See `_forward`."""
        used, everyone = allowed.shape[-1], len(rows) == self.batch_size
        column = None
        if self.tables[0] is not None:
            distance = positions[:, :, None] - self.key_position[:, None, :used]
            column = (self.reach - distance).clamp(0, self.reach)[:, None]
        mask = masked_bias(self.remembered.new_zeros(()), allowed)[:, None]
        place = slice(None), rows[:, None], slice(None), slots
        return Look(slice(None) if everyone else rows, place, used, mask, column)

    def _attend(self, index: int, look: Look, y: Tensor) -> Tensor:
        """Attention of layer `index`: remember the keys and values of `y`, then look at them all.

        The last tokens of `y` look, as many as there are in `look`.
        """
        attention, table = self.layers[index].attention, self.tables[index]
        heads = attention.heads(y)  # (b, n, 3, H, d_head)
        remembered = self.remembered[index]
        remembered[look.place] = heads[:, :, 1:]
        keys, values = remembered[:, look.rows, :, : look.used]
        queries = heads[:, -look.mask.shape[2] :, 0].transpose(1, 2)
        biases = [look.mask]
        if table is not None and look.column is not None:
            scores = attention.distance_scores(queries, table)
            biases.append(scores.gather(3, look.column.expand(-1, scores.shape[1], -1, -1)))
        return attention.attend(queries, keys, values, *biases)
