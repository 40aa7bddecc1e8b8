"""What decoders share: buffers of keys and values, and attention over them."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rate.batch import Observations, map_tensors
from rate.embeddings import ACTION, OBSERVATION, RETURN
from rate.layout import masked_bias
from rate.model import SequenceModel


class Decoder:
    """What decoders share: buffers of keys and values, and attention over them.

    Where each row stands is known on the host: what a step has to do follows from it, and to ask
    a GPU would be to wait for it.

    A buffer has one slot per remembered token and a first one, the bin, for tokens that are not to
    be remembered (a row's "previous action" before its first step). Slots fill up from the front,
    and a step looks at no more of them than are in use.
    """

    def __init__(self, model: SequenceModel, batch_size: int, num_slots: int, reach: int) -> None:
        config, weight = model.config, next(model.parameters())
        self.model, self.batch_size, self.device = model, batch_size, weight.device
        self.layers, self.bin, self.reach = model.layers, 0, reach
        shape = (config.num_layers, batch_size, config.num_heads, num_slots + 1, config.head_width)
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)
        self.key_position = torch.zeros(
            (batch_size, num_slots + 1), dtype=torch.int64, device=self.device
        )
        self.key_valid = torch.zeros_like(self.key_position, dtype=torch.bool)
        # 0 where a key stands outside time (a memory token), so that distance has no say.
        self.key_timed = weight.new_ones(num_slots + 1)
        self.row = torch.arange(batch_size, device=self.device)
        self.tables: list[Tensor | None] = [None] * config.num_layers
        if config.position == "relative":
            with torch.no_grad():  # the weights stand still while a decoder lives
                self.tables = [b.attention.distance_table(reach, self.device) for b in self.layers]

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
        now = embed(returns_to_go[:, None], observations, actions, timesteps)[:, 0]
        previous = now[:, ACTION]
        if embed.timestep is not None:  # a_{t-1} belongs to the step before
            previous = embed.place(embed.embed_actions(actions)[:, :, None], timesteps - 1)[:, 0, 0]
        return torch.stack((previous, now[:, RETURN], now[:, OBSERVATION]), dim=1)

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
        everyone = rows.shape[0] == self.batch_size
        key_position = self.key_position if everyone else self.key_position[rows]
        key_position = key_position[:, : allowed.shape[-1]]
        distance = positions[:, :, None] - key_position[:, None, :]
        column = (self.reach - 1 - distance).clamp(0, self.reach - 1)[:, None]  # (b, 1, n, used)
        inputs = []
        for index, block in enumerate(self.layers):
            inputs.append(x)
            answers = last if index == len(self.layers) - 1 else x.shape[1]
            x = block(x, partial(self._attend, index, rows, slots, column, allowed, answers))
        return self.model.norm(x), inputs

    def _attend(
        self,
        index: int,
        rows: Tensor,
        slots: Tensor,
        column: Tensor,
        allowed: Tensor,
        answers: int,
        y: Tensor,
    ) -> Tensor:
        """Attention of layer `index`: remember the keys and values of `y`, then look at them all.

        `column` is the column of the distance table that belongs to a query and a key. Only the
        last `answers` tokens look.
        """
        attention, table = self.layers[index].attention, self.tables[index]
        keys, values = self.keys[index], self.values[index]
        q, k, v = attention.project(y)
        at = (rows[:, None], slice(None), slots)
        keys[at], values[at] = k.transpose(1, 2), v.transpose(1, 2)
        if rows.shape[0] < self.batch_size:
            keys, values = keys[rows], values[rows]
        used = allowed.shape[-1]
        q, column = q[:, :, -answers:], column[:, :, -answers:]
        allowed = allowed[:, None, -answers:]
        bias = q.new_zeros(())
        if table is not None:
            scores = attention.distance_scores(q, table)
            bias = scores.gather(3, column.expand(-1, scores.shape[1], -1, -1))
            bias = bias * self.key_timed[:used]
        bias = masked_bias(bias, allowed)
        return attention.attend(q, keys[:, :, :used], values[:, :, :used], bias)
