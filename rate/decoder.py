"""Step-by-step inference: three new tokens a step against cached keys and values.

A decoder computes, at every step, exactly what `SequenceModel.forward` computes for that step when
it is shown the whole trajectory (to rounding), at a cost that does not grow with the episode.
Rows of a batch may stand at different steps, and can be reset one by one.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from rate.attention import masked_bias
from rate.batch import Observations, map_tensors
from rate.embeddings import ACTION, OBSERVATION, RETURN, TOKENS_PER_STEP
from rate.model import SequenceModel


def make_decoder(model: SequenceModel, batch_size: int, *, exact_window: bool = True) -> Decoder:
    """The decoder that fits a model.

    Args:
        model: In evaluation mode.
        batch_size: Rows decoded side by side.
        exact_window: For a sliding-window model past its context. True recomputes the window at
            every step, as Decision Transformer does. False keeps the keys of the last K steps,
            which were computed when earlier steps were still in view: the same as one long forward
            pass in which every layer looks back K steps, and far cheaper.
    """
    if model.config.context == "segments":
        return SegmentDecoder(model, batch_size)
    return WindowDecoder(model, batch_size, exact=exact_window)


class Decoder:
    """What decoders share: buffers of keys and values, and attention over them.

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
        """Start an episode in the rows `(B,)` bool, or in all of them."""
        self._restart(torch.ones_like(self.row, dtype=torch.bool) if rows is None else rows)

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
        """Forget the episodes of `rows` `(B,)` bool."""
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
            previous = embed.place(embed.action(actions)[:, :, None], timesteps - 1)[:, 0, 0]
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


class SegmentDecoder(Decoder):
    """Decodes a model that hands a `MemoryState` from segment to segment.

    Slots: `[bin | read | cache | 3K step tokens | write]`.
    """

    def __init__(self, model: SequenceModel, batch_size: int) -> None:
        config = model.config
        self.steps = TOKENS_PER_STEP * config.context_length
        self.cache, self.memory = config.cache_length, config.num_memory_tokens
        self.read = slice(1, 1 + self.memory)
        self.cached = slice(self.read.stop, self.read.stop + self.cache)
        self.start = self.cached.stop
        self.write = slice(self.start + self.steps, self.start + self.steps + self.memory)
        reach = self.cache + self.steps + self.memory
        super().__init__(model, batch_size, self.write.stop - 1, reach)
        self.key_timed[self.read] = self.key_timed[self.write] = 0
        self.key_position[:] = torch.arange(self.write.stop, device=self.device) - self.start
        self.inputs: Tensor | None = None
        if self.cache:  # one spare place at the end: the bin
            shape = (config.num_layers, batch_size, self.steps + 1, config.d_model)
            self.inputs = self.keys.new_zeros(shape)
        self.state = model.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        self.reset()

    def _restart(self, rows: Tensor) -> None:
        self.state = self.state.reset(rows, self.model.initial_state(self.batch_size))
        self._open(rows.nonzero()[:, 0])

    def _next(self, tokens: Tensor) -> Tensor:
        furthest, length = int(self.position.max()), self.model.config.context_length
        if furthest == length:
            rows = (self.position == length).nonzero()[:, 0]
            self._close(rows, tokens[rows, :1])
            self._open(rows)
            furthest = int(self.position.max())
        offsets = torch.arange(-1, TOKENS_PER_STEP - 1, device=self.device)
        positions = TOKENS_PER_STEP * self.position[:, None] + offsets
        slots = torch.where(positions < 0, self.bin, self.start + positions)
        self.key_valid[self.row[:, None], slots] = True
        self.key_valid[:, self.bin] = False
        used = self.start + TOKENS_PER_STEP * (furthest + 1)
        allowed = self._visible(self.row, positions, used)
        hidden, inputs = self._forward(tokens, self.row, slots, positions, allowed, last=1)
        self._keep(inputs, self.row, slots)
        self.position += 1
        return hidden[:, -1]

    def _visible(self, rows: Tensor, positions: Tensor, used: int) -> Tensor:
        """Which of the first `used` slots step tokens at `positions` `(b, n)` may look at.

        The past and memory: read and cached slots all stand before position 0.
        """
        past = self.key_position[rows, :used][:, None] <= positions[:, :, None]
        past[..., self.read] = True
        return past & self.key_valid[rows, :used][:, None]

    def _close(self, rows: Tensor, last_action: Tensor) -> None:
        """End a segment: take in its last action token, write memory, advance the state."""
        count, state = rows.shape[0], self.state.rows(rows)
        x = last_action
        if state.tokens is not None:
            x = torch.cat((x, self.model.addressed(state.tokens)), dim=1)
        positions = torch.arange(self.steps - 1, self.steps + self.memory, device=self.device)
        slots = (self.start + positions).expand(count, -1)
        self.key_valid[rows[:, None], slots] = True
        positions = positions.expand(count, -1)
        allowed = self._visible(rows, positions, self.write.stop)
        # Write tokens look at each other, not at the cache; the last action sees none of them.
        allowed[:, 1:, self.write] = True
        allowed[:, 1:, self.cached] = False
        last = max(1, self.memory)
        hidden, inputs = self._forward(x, rows, slots, positions, allowed, last)
        self._keep([layer[:, :1] for layer in inputs], rows, slots[:, :1])
        mask = self.key_valid.new_ones(count, self.model.config.context_length)
        inputs = [] if self.inputs is None else [layer[rows, : self.steps] for layer in self.inputs]
        state = self.model.advance(state, hidden, inputs, mask)
        self.state = self.state.put(rows, state)

    def _open(self, rows: Tensor) -> None:
        """Start a segment: forget the old one's tokens, take in the cache and the read tokens."""
        state, count = self.state.rows(rows), rows.shape[0]
        self.position[rows] = 0
        valid = self.key_valid.new_zeros(count, self.write.stop)
        if state.cache is not None and state.cached is not None:
            newest_first = torch.arange(self.cache, 0, -1, device=self.device)
            valid[:, self.cached] = newest_first <= state.cached[:, None]
            for index, block in enumerate(self.layers):
                cache = block.attention_norm(state.cache[:, index])
                keys, values = block.attention.project_cache(cache)
                self.keys[index, rows, :, self.cached] = keys
                self.values[index, rows, :, self.cached] = values
        valid[:, self.read] = True
        self.key_valid[rows] = valid
        if state.tokens is not None:
            tokens = self.model.addressed(state.tokens)
            slots = torch.arange(self.read.start, self.read.stop, device=self.device)
            slots = slots.expand(count, -1)
            allowed = self.key_valid.new_zeros(count, self.memory, self.read.stop)
            allowed[..., self.read] = True
            self._forward(tokens, rows, slots, torch.zeros_like(slots), allowed, last=1)

    def _keep(self, inputs: list[Tensor], rows: Tensor, slots: Tensor) -> None:
        """Remember what entered each layer: the cache of the next segments is made of it."""
        if self.inputs is None:
            return
        index = torch.where(slots == self.bin, self.steps, slots - self.start)
        for buffer, layer in zip(self.inputs, inputs, strict=True):
            buffer[rows[:, None], index] = layer


class WindowDecoder(Decoder):
    """Decodes a model that looks back over a sliding window of K steps.

    Behind the bin the slots are a ring of K + 1 steps: the token of time i stands in its place i
    modulo 3 (K + 1).
    """

    def __init__(self, model: SequenceModel, batch_size: int, *, exact: bool) -> None:
        config = model.config
        self.window, self.exact = config.context_length, exact
        self.ring = TOKENS_PER_STEP * (self.window + 1)
        super().__init__(model, batch_size, self.ring, self.ring)
        self.time = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        shape = (batch_size, self.window, TOKENS_PER_STEP, config.d_model)
        self.tokens = self.keys.new_zeros(shape) if exact else None

    def _restart(self, rows: Tensor) -> None:
        self.time[rows] = 0
        self.key_valid[rows] = False

    def _next(self, tokens: Tensor) -> Tensor:
        if self.tokens is not None:
            self.tokens = self.tokens.roll(-1, dims=1)
            self.tokens[:, -2:-1, ACTION] = tokens[:, :1]
            self.tokens[:, -1, RETURN], self.tokens[:, -1, OBSERVATION] = tokens[:, 1], tokens[:, 2]
        hidden = self._step(tokens)
        self.time += 1
        if self.tokens is not None and bool((self.time > self.window).any()):
            oldest = torch.arange(self.window, 0, -1, device=self.device)
            state = self.model.initial_state(self.batch_size)
            hidden = self.model.segment(self.tokens, oldest <= self.time[:, None], state)[0][:, -1]
        return hidden

    def _step(self, tokens: Tensor) -> Tensor:
        offsets = torch.arange(-1, TOKENS_PER_STEP - 1, device=self.device)
        positions = TOKENS_PER_STEP * self.time[:, None] + offsets
        slots = torch.where(positions < 0, self.bin, 1 + positions % self.ring)
        at = (self.row[:, None], slots)
        self.key_position[at], self.key_valid[at] = positions, True
        self.key_valid[:, self.bin] = False
        used = 1 + min(self.ring, TOKENS_PER_STEP * (int(self.time.max()) + 1))
        key_position = self.key_position[:, :used]
        step, key_step = positions // TOKENS_PER_STEP, key_position // TOKENS_PER_STEP
        in_window = step[:, :, None] - key_step[:, None] < self.window
        past = key_position[:, None] <= positions[:, :, None]
        allowed = past & in_window & self.key_valid[:, None, :used]
        return self._forward(tokens, self.row, slots, positions, allowed, last=1)[0][:, -1]
