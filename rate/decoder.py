"""Step-by-step inference: three new tokens a step against cached keys and values.

A decoder computes, at every step, exactly what `SequenceModel.forward` computes for that step when
it is shown the whole trajectory (to rounding), at a cost that does not grow with the episode.
Rows of a batch may stand at different steps, and can be reset one by one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rate.attention import Attention, masked_bias
from rate.batch import Observations
from rate.embeddings import ACTION, OBSERVATION, RETURN, TOKENS_PER_STEP
from rate.model import SequenceModel


def make_decoder(
    model: SequenceModel, batch_size: int, *, exact_window: bool = True
) -> Decoder:
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

    A buffer has one slot per remembered token and a last one, the bin, for tokens that are not to
    be remembered (a row's "previous action" before its first step).
    """

    def __init__(self, model: SequenceModel, batch_size: int, num_slots: int, reach: int) -> None:
        config, weight = model.config, next(model.parameters())
        self.model, self.batch_size, self.device = model, batch_size, weight.device
        self.bin = num_slots
        shape = (config.num_layers, batch_size, num_slots + 1, config.num_heads, config.head_width)
        self.keys, self.values = weight.new_zeros(shape), weight.new_zeros(shape)
        self.key_position = torch.zeros(
            batch_size, num_slots + 1, dtype=torch.int64, device=self.device
        )
        self.key_valid = torch.zeros_like(self.key_position, dtype=torch.bool)
        # Keys from this slot on stand outside time: memory tokens.
        self.first_timeless = num_slots + 1
        self.row = torch.arange(batch_size, device=self.device)
        self.tables: list[Tensor | None] = [None] * config.num_layers
        if config.position == "relative":
            with torch.no_grad():  # the weights stand still while a decoder lives
                self.tables = [b.attention.distance_table(reach, self.device) for b in model.blocks]

    def reset(self, rows: Tensor | None = None) -> None:
        """Start an episode in the rows `(B,)` bool, or in all of them."""
        raise NotImplementedError

    def step(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        """The action head's predictions `(B, ...)` for one more step of every row.

        Args:
            previous_actions: `(B,)` or `(B, A)`; whatever it holds in a row just reset is ignored.
            returns_to_go: `(B, 1)`.
            observations: `(B, *obs)` or a dictionary of such tensors.
            timesteps: `(B,)` int64, the step's index within its episode.
        """
        raise NotImplementedError

    def _embed(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        """The tokens a_{t-1}, R_t, o_t of every row: `(B, 3, d)`."""
        observations = (
            {key: value[:, None] for key, value in observations.items()}
            if isinstance(observations, dict)
            else observations[:, None]
        )
        embed = self.model.embed_steps
        now = embed(
            returns_to_go[:, None], observations, previous_actions[:, None], timesteps[:, None]
        )[:, 0]
        previous = now[:, ACTION]
        if embed.timestep is not None:  # a_{t-1} belongs to the step before
            action = embed.action(previous_actions[:, None])[:, :, None]
            previous = embed.place(action, timesteps[:, None] - 1)[:, 0, 0]
        return torch.stack((previous, now[:, RETURN], now[:, OBSERVATION]), dim=1)

    def _forward(
        self, x: Tensor, rows: Tensor, slots: Tensor, positions: Tensor, allowed: Tensor
    ) -> tuple[Tensor, list[Tensor]]:
        """Run the blocks over new tokens, remembering their keys and values.

        Args:
            x: `(b, n, d)` new tokens.
            rows: `(b,)` the rows of the batch they belong to.
            slots: `(b, n)` where to remember them.
            positions: `(b, n)` their places on the time axis.
            allowed: `(b, n, slots + 1)` bool, the slots each may look at.

        Returns:
            Normalised outputs `(b, n, d)`, and every layer's inputs.
        """
        everyone = rows.shape[0] == self.batch_size
        at = (rows[:, None], slots)
        key_position = self.key_position if everyone else self.key_position[rows]
        distance = positions[:, :, None] - key_position[:, None, :]
        timeless = slice(self.first_timeless, self.bin)
        allowed = allowed[:, None]
        inputs = []
        for index, block in enumerate(self.model.blocks):
            inputs.append(x)
            keys, values, table = self.keys[index], self.values[index], self.tables[index]

            def attend(
                y: Tensor,
                attention: Attention = block.attention,
                keys: Tensor = keys,
                values: Tensor = values,
                table: Tensor | None = table,
            ) -> Tensor:
                q, k, v = attention.project(y)
                keys[at], values[at] = k.transpose(1, 2), v.transpose(1, 2)
                all_keys, all_values = (keys, values) if everyone else (keys[rows], values[rows])
                bias = q.new_zeros(())
                if table is not None:
                    scores = attention.distance_scores(q, table)
                    newest_last = (table.shape[1] - 1 - distance).clamp(0, table.shape[1] - 1)
                    wide = newest_last[:, None].expand(-1, scores.shape[1], -1, -1)
                    bias = scores.gather(3, wide)
                    bias[..., timeless] = 0
                return attention.attend(
                    q, all_keys.transpose(1, 2), all_values.transpose(1, 2), masked_bias(bias, allowed)
                )

            x = block(x, attend)
        return self.model.norm(x), inputs


class SegmentDecoder(Decoder):
    """Decodes a model that hands a `MemoryState` from segment to segment.

    Slots: `[cache | 3K step tokens | write | read | bin]`.
    """

    def __init__(self, model: SequenceModel, batch_size: int) -> None:
        config = model.config
        self.steps = TOKENS_PER_STEP * config.context_length
        self.cache, self.memory = config.cache_length, config.num_memory_tokens
        self.start = self.cache
        self.write = self.start + self.steps
        self.read = self.write + self.memory
        reach = self.cache + self.steps + self.memory
        super().__init__(model, batch_size, self.read + self.memory, reach)
        self.first_timeless = self.write
        self.key_position[:] = torch.arange(self.bin + 1, device=self.device) - self.start
        self.inputs: Tensor | None = None
        if self.cache:  # one spare place at the end: the bin
            shape = (config.num_layers, batch_size, self.steps + 1, config.d_model)
            self.inputs = self.keys.new_zeros(shape)
        self.state = model.initial_state(batch_size)
        self.position = torch.zeros(batch_size, dtype=torch.int64, device=self.device)

    @torch.no_grad()
    def reset(self, rows: Tensor | None = None) -> None:
        rows = torch.ones_like(self.row, dtype=torch.bool) if rows is None else rows
        self.state = self.state.reset(rows, self.model.initial_state(self.batch_size))
        self._open(rows.nonzero()[:, 0])

    @torch.no_grad()
    def step(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        tokens = self._embed(previous_actions, returns_to_go, observations, timesteps)
        full = self.position == self.model.config.context_length
        if full.any():
            rows = full.nonzero()[:, 0]
            self._close(rows, tokens[rows, :1])
            self._open(rows)
        offsets = torch.arange(-1, TOKENS_PER_STEP - 1, device=self.device)
        positions = TOKENS_PER_STEP * self.position[:, None] + offsets
        slots = torch.where(positions < 0, self.bin, self.start + positions)
        self.key_valid[self.row[:, None], slots] = True
        self.key_valid[:, self.bin] = False
        allowed = self._visible(self.row, positions)
        hidden, inputs = self._forward(tokens, self.row, slots, positions, allowed)
        self._keep(inputs, self.row, slots)
        self.position += 1
        return self.model.head(hidden[:, -1])

    def _visible(self, rows: Tensor, positions: Tensor) -> Tensor:
        """Slots that step tokens at `positions` `(b, n)` may look at: the past, and memory."""
        past = self.key_position[rows][:, None] <= positions[:, :, None]
        past[..., self.read : self.bin] = True
        return past & self.key_valid[rows][:, None]

    def _close(self, rows: Tensor, last_action: Tensor) -> None:
        """End a segment: take in its last action token, write memory, advance the state."""
        count, state = rows.shape[0], self.state.rows(rows)
        x = last_action
        if state.tokens is not None:
            x = torch.cat((x, state.tokens), dim=1)
        positions = torch.arange(self.steps - 1, self.steps + self.memory, device=self.device)
        slots = (self.start + positions).expand(count, -1)
        self.key_valid[rows[:, None], slots] = True
        positions = positions.expand(count, -1)
        allowed = self._visible(rows, positions)
        # Write tokens look at each other, not at the cache; the last action sees none of them.
        allowed[:, 1:, self.write : self.read] = True
        allowed[:, 1:, : self.cache] = False
        hidden, inputs = self._forward(x, rows, slots, positions, allowed)
        self._keep([layer[:, :1] for layer in inputs], rows, slots[:, :1])
        mask = torch.ones(
            count, self.model.config.context_length, dtype=torch.bool, device=self.device
        )
        history = [] if self.inputs is None else [layer[rows, : self.steps] for layer in self.inputs]
        state = self.model.advance(state, hidden[:, 1:], history, mask)
        self.state = self.state.put(rows, state)

    def _open(self, rows: Tensor) -> None:
        """Start a segment: forget the old one's tokens, take in the cache and the read tokens."""
        state, count = self.state.rows(rows), rows.shape[0]
        self.position[rows] = 0
        valid = torch.zeros(count, self.bin + 1, dtype=torch.bool, device=self.device)
        if state.cache is not None and state.cached is not None:
            newest_first = torch.arange(self.cache, 0, -1, device=self.device)
            valid[:, : self.cache] = newest_first <= state.cached[:, None]
            for index, block in enumerate(self.model.blocks):
                keys, values = block.attention.project_cache(
                    block.attention_norm(state.cache[:, index])
                )
                self.keys[index, rows, : self.cache] = keys.transpose(1, 2)
                self.values[index, rows, : self.cache] = values.transpose(1, 2)
        valid[:, self.read : self.bin] = True
        self.key_valid[rows] = valid
        if state.tokens is not None:
            slots = torch.arange(self.read, self.bin, device=self.device).expand(count, -1)
            allowed = torch.zeros(count, self.memory, self.bin + 1, dtype=torch.bool)
            allowed = allowed.to(self.device)
            allowed[..., self.read : self.bin] = True
            self._forward(state.tokens, rows, slots, torch.zeros_like(slots), allowed)

    def _keep(self, inputs: list[Tensor], rows: Tensor, slots: Tensor) -> None:
        """Remember what entered each layer: the cache of the next segments is made of it."""
        if self.inputs is None:
            return
        index = torch.where(slots == self.bin, self.steps, slots - self.start)
        for buffer, layer in zip(self.inputs, inputs, strict=True):
            buffer[rows[:, None], index] = layer


class WindowDecoder(Decoder):
    """Decodes a model that looks back over a sliding window of K steps.

    Slots are a ring of K + 1 steps: the token of time i stands in slot i modulo 3 (K + 1).
    """

    def __init__(self, model: SequenceModel, batch_size: int, *, exact: bool) -> None:
        config = model.config
        self.window, self.exact = config.context_length, exact
        self.ring = TOKENS_PER_STEP * (self.window + 1)
        super().__init__(model, batch_size, self.ring, self.ring)
        self.time = torch.zeros(batch_size, dtype=torch.int64, device=self.device)
        shape = (batch_size, self.window, TOKENS_PER_STEP, config.d_model)
        self.tokens = self.keys.new_zeros(shape) if exact else None

    @torch.no_grad()
    def reset(self, rows: Tensor | None = None) -> None:
        rows = torch.ones_like(self.row, dtype=torch.bool) if rows is None else rows
        self.time[rows] = 0
        self.key_valid[rows] = False

    @torch.no_grad()
    def step(
        self,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Observations,
        timesteps: Tensor,
    ) -> Tensor:
        tokens = self._embed(previous_actions, returns_to_go, observations, timesteps)
        if self.tokens is not None:
            self.tokens = self.tokens.roll(-1, dims=1)
            self.tokens[:, -2:-1, ACTION] = tokens[:, :1]
            self.tokens[:, -1, RETURN], self.tokens[:, -1, OBSERVATION] = tokens[:, 1], tokens[:, 2]
        hidden = self._step(tokens)
        self.time += 1
        if self.tokens is not None and bool((self.time > self.window).any()):
            oldest = torch.arange(self.window, 0, -1, device=self.device)
            mask = oldest <= self.time[:, None]
            out, _ = self.model.segment(
                self.tokens, mask, self.model.initial_state(self.batch_size)
            )
            hidden = out[:, -1]
        return self.model.head(hidden)

    def _step(self, tokens: Tensor) -> Tensor:
        offsets = torch.arange(-1, TOKENS_PER_STEP - 1, device=self.device)
        positions = TOKENS_PER_STEP * self.time[:, None] + offsets
        slots = torch.where(positions < 0, self.bin, positions % self.ring)
        at = (self.row[:, None], slots)
        self.key_position[at], self.key_valid[at] = positions, True
        self.key_valid[:, self.bin] = False
        age = (positions // TOKENS_PER_STEP)[:, :, None] - (
            self.key_position // TOKENS_PER_STEP
        )[:, None]
        past = self.key_position[:, None] <= positions[:, :, None]
        allowed = past & (age < self.window) & self.key_valid[:, None]
        return self._forward(tokens, self.row, slots, positions, allowed)[0][:, -1]


__all__ = ["Decoder", "SegmentDecoder", "WindowDecoder", "make_decoder"]
