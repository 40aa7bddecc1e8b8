"""The sequence model: a transformer over segments, with memory tokens and cached states.

    segment n:   [ cache | R o a  R o a  ...  R o a | write = M_n | read = M_n ]
                                                        |
    segment n+1:                                M_{n+1} = valve(M_n, written)

Step tokens see the cache, the read tokens and the steps before them. Write tokens see the read
tokens and every step, and each other. Read tokens see each other alone. (RATE, Cherepanov et al.
2023, section 4, puts the read tokens in front; attention does not mind where they stand.)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rate.batch import Batch
from rate.config import ModelConfig
from rate.embeddings import OBSERVATION, TOKENS_PER_STEP, StepEmbedding
from rate.encoders import VectorEncoder
from rate.heads import ContinuousHead, make_head
from rate.memory import MemoryState, RetentionValve
from rate.nn.blocks import Block
from rate.nn.layout import Layout

# Of shapes and architectures. Beyond, PyTorch goes on uncompiled, and says so to a log alone.
_MOST_PROGRAMS = 64
RunSegment = Callable[[Tensor, Tensor, MemoryState, Layout], tuple[Tensor, MemoryState]]


class SequenceModel(nn.Module):
    """Predicts actions from returns-to-go, observations and actions, segment by segment.

    One class is RATE, RMT, TrXL, DTXL and DT: what differs is the `ModelConfig`.

    Args:
        config: The architecture.
        observation_space: Chooses the encoder.
        action_space: Chooses the action head.
    """

    def __init__(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__()
        self.config = config
        self.observation_space, self.action_space = observation_space, action_space
        self.embed_steps = StepEmbedding(config, observation_space, action_space)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.num_layers))
        self.norm = nn.Identity() if config.block == "trxl" else nn.LayerNorm(config.d_model)
        self.head = make_head(action_space, config.d_model)
        self._share_action_scale()
        if config.num_memory_tokens:
            # Slots start apart: equal slots get equal updates and would stay one (rank 1) for ever.
            self.memory = nn.Parameter(torch.randn(config.num_memory_tokens, config.d_model))
            self.slots = nn.Parameter(torch.randn(config.num_memory_tokens, config.d_model))
            self.valve = RetentionValve(config)
        if config.block == "gpt":
            self.blocks.apply(_init_gpt)
        self._compiled: RunSegment | None = None

    def set_action_spread(self, mean: Tensor, std: Tensor) -> None:
        """See and predict actions without bounds in the units of the data, `(A,)` each.

        Raises:
            ValueError: If a mean is not finite, or a deviation is negative or not finite.
        """
        if isinstance(self.head, ContinuousHead):
            self.head.set_spread(mean, std)
        self._share_action_scale()

    def _share_action_scale(self) -> None:
        """Past actions are seen in the units in which the next ones are predicted."""
        seen = self.embed_steps.action
        if isinstance(self.head, ContinuousHead) and isinstance(seen, VectorEncoder):
            seen.set_scale(self.head.centre, self.head.unit)

    @property
    def layers(self) -> list[Block]:
        """The blocks, first to last."""
        return cast("list[Block]", list(self.blocks))

    def initial_state(self, batch_size: int) -> MemoryState:
        """The state before the first segment: the learned memory tokens and an empty cache."""
        config, reference = self.config, next(self.parameters())
        tokens = cell = cache = cached = None
        if config.num_memory_tokens:
            # Contiguous, as in all later segments: one program does for all of them.
            tokens = self.memory.expand(batch_size, -1, -1).contiguous()
            if config.valve == "lstm":
                cell = torch.zeros_like(tokens)
        if config.cache_length:
            shape = (batch_size, config.num_layers, config.cache_length, config.d_model)
            cache = reference.new_zeros(shape)
            cached = torch.zeros(batch_size, dtype=torch.int64, device=reference.device)
        return MemoryState(tokens, cell, cache, cached)

    def embed(self, batch: Batch) -> Tensor:
        """Tokens `(B, T, 3, d)` of all steps; every segment's frames go through in one call."""
        tokens: Tensor = self.embed_steps(
            batch.returns_to_go, batch.observations, batch.actions, batch.timesteps
        )
        return tokens

    def forward(
        self, batch: Batch, state: MemoryState | None = None, *, detach_every: int | None = None
    ) -> tuple[Tensor, MemoryState]:
        """Predictions for every step of a batch, folded over its segments.

        Takes what `hidden` takes.

        Returns:
            Predictions `(B, T, ...)` of the action head, and the state after the last segment.
        """
        hidden, state = self.hidden(batch, state, detach_every=detach_every)
        return self.head(hidden), state

    def hidden(
        self,
        batch: Batch,
        state: MemoryState | None = None,
        *,
        detach_every: int | None = None,
        recompute: bool = False,
    ) -> tuple[Tensor, MemoryState]:
        """What the heads read at every step of a batch, folded over its segments.

        Args:
            batch: `T` steps; cut into segments of `context_length`, the last may be shorter.
                With `context="window"` all T steps are one pass in which a step sees the last K.
            state: What came before; None is the initial state.
            detach_every: Segments between two cuts of the gradient through memory; None never cuts.
            recompute: Keep nothing of a segment but its state, and compute the rest again when its
                gradient is due (Chen et al. 2016, "Training Deep Nets with Sublinear Memory
                Cost"). Frames are then encoded segment by segment.

        Returns:
            Hidden states `(B, T, d)`, and the state after the last segment.
        """
        state = self.initial_state(batch.batch_size) if state is None else state
        length = batch.num_steps if self.config.context == "window" else self.config.context_length
        tokens = None if recompute else self.embed(batch)
        hidden = []
        for n, start in enumerate(range(0, batch.num_steps, length)):
            if detach_every and n and n % detach_every == 0:
                state = state.detach()
            part = batch.steps(start, start + length)
            if tokens is None:
                # The mask goes beside its batch: a tensor tells `checkpoint` which device's random
                # numbers to draw again.
                out, state = checkpoint(self._embedded, part, state, part.mask, use_reentrant=False)
            else:
                out, state = self._padded(tokens[:, start : start + length], part.mask, state)
            hidden.append(out)
        return torch.cat(hidden, dim=1), state

    def _embedded(
        self, batch: Batch, state: MemoryState, mask: Tensor
    ) -> tuple[Tensor, MemoryState]:
        return self._padded(self.embed(batch), mask, state)

    def _padded(
        self, tokens: Tensor, mask: Tensor, state: MemoryState
    ) -> tuple[Tensor, MemoryState]:
        """A segment that may be a shorter, last one.

        Write tokens stand after step K, so that memory does not depend on where a batch ends.
        """
        steps = mask.shape[1]
        if self.config.num_memory_tokens and (missing := self.config.context_length - steps):
            tokens, mask = F.pad(tokens, (0, 0, 0, 0, 0, missing)), F.pad(mask, (0, missing))
        hidden, state = self.segment(tokens, mask, state)
        return hidden[:, :steps], state

    def segment(
        self, tokens: Tensor, mask: Tensor, state: MemoryState
    ) -> tuple[Tensor, MemoryState]:
        """One segment: what the action head reads, and the state that follows.

        Args:
            tokens: `(B, K, 3, d)` from `embed`.
            mask: `(B, K)` bool, real steps first. A row without any keeps its state.
            state: The state left by the segment before.

        Returns:
            `(B, K, d)` hidden states at the observation tokens, and the new state.
        """
        layout = self._layout(mask, state)
        run = self._run_segment if self._compiled is None else self._compiled
        return run(tokens, mask, state, layout)

    @property
    def is_compiled(self) -> bool:
        """Whether segments run as `compile_segments` has it."""
        return self._compiled is not None

    def compile_segments(self, backend: str | Callable[..., Any] | None = "inductor") -> None:
        """Let `torch.compile` make one program of a segment's many small steps; None undoes it.

        It does so at the first segment of each shape.
        """
        self._compiled = None
        if backend is not None:
            # The limit is of the method, which all models of a process share.
            limits = torch._dynamo.config
            limits.cache_size_limit = max(_MOST_PROGRAMS, limits.cache_size_limit)
            self._compiled = torch.compile(self._run_segment, backend=backend, dynamic=False)

    def _run_segment(
        self, tokens: Tensor, mask: Tensor, state: MemoryState, layout: Layout
    ) -> tuple[Tensor, MemoryState]:
        num_steps = tokens.shape[1]
        x = tokens.flatten(1, 2)  # (B, 3K, d)
        length = x.shape[1]
        if state.tokens is not None:
            memory = self.addressed(state.tokens)
            x = torch.cat((x, memory, memory), dim=1)  # steps, write, read
        inputs = []
        for index, block in enumerate(self.layers):
            inputs.append(x[:, :length])
            x = self._whole_segment(block, x, state, index, layout)
        hidden = self.norm(x)  # of observation and write tokens, see `_whole_segment`
        out, written = hidden[:, :num_steps], hidden[:, num_steps:]
        return out, self.advance(state, written, inputs, mask)

    def addressed(self, tokens: Tensor) -> Tensor:
        """Memory tokens `(B, m, d)` with the embedding of their slot, as the layers see them.

        What a slot holds says nothing of which slot it is. Without an address the slots of a
        segment get equal queries, hence equal updates, and memory collapses to one token (rank 1).
        """
        return tokens + self.slots

    def advance(
        self, state: MemoryState, written: Tensor, inputs: list[Tensor], mask: Tensor
    ) -> MemoryState:
        """The state after a segment.

        Args:
            state: The state the segment started from.
            written: `(B, m, d)` hidden states of the write tokens.
            inputs: Per layer its input `(B, 3K, d)` at the segment's step tokens.
            mask: `(B, K)` bool. Padding enters neither memory nor cache.
        """
        tokens, cell, cache, cached = state.tokens, state.cell, state.cache, state.cached
        real = mask.any(1)
        if tokens is not None:
            new_tokens, new_cell = self.valve(tokens, self.addressed(tokens), written, cell)
            if self.training and self.config.memory_noise:
                new_tokens = new_tokens + self.config.memory_noise * torch.randn_like(new_tokens)
            tokens = torch.where(real[:, None, None], new_tokens, tokens)
            if new_cell is not None and cell is not None:
                cell = torch.where(real[:, None, None], new_cell, cell)
        if cache is not None and cached is not None:
            size, added = cache.shape[2], TOKENS_PER_STEP * mask.sum(1)  # (B,)
            history = torch.cat((cache, torch.stack(inputs, dim=1)), dim=2)  # (B, L, C + 3K, d)
            newest = added[:, None] + torch.arange(size, device=mask.device)  # (B, C)
            index = newest[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3])
            cache = history.gather(2, index)
            cached = (cached + added).clamp(max=size)
        return MemoryState(tokens, cell, cache, cached)

    def _whole_segment(
        self, block: Block, x: Tensor, state: MemoryState, index: int, layout: Layout
    ) -> Tensor:
        cache = None if state.cache is None else block.attention_norm(state.cache[:, index])
        if index < self.config.num_layers - 1:
            return cast("Tensor", block(x, lambda y: block.attention(y, cache, layout)))
        # Of the last layer nothing else is read: by the head, and by the valve.
        read = slice(OBSERVATION, None, TOKENS_PER_STEP)
        out: Tensor = block(
            x,
            lambda y: block.attention(y, cache, layout, read),
            lambda x: layout.queries(x, read),
        )
        return out

    def _layout(self, mask: Tensor, state: MemoryState) -> Layout:
        """Who may look at whom in a segment; see the head of this module."""
        config = self.config
        steps, memory = TOKENS_PER_STEP * mask.shape[1], config.num_memory_tokens
        window = TOKENS_PER_STEP * config.context_length if config.context == "window" else None
        allowed = visibility(config.cache_length, steps, memory, window, mask.device)
        real = mask.repeat_interleave(TOKENS_PER_STEP, dim=1)  # (B, 3K)
        keys = [real, real.new_ones(real.shape[0], 2 * memory)]
        if state.cached is not None:
            newest_first = torch.arange(config.cache_length, 0, -1, device=mask.device)
            keys.insert(0, newest_first <= state.cached[:, None])
        key_mask = torch.cat(keys, dim=1)  # (B, keys)
        return Layout(
            config.cache_length, steps, memory, memory, allowed & key_mask[:, None, None, :]
        )


@lru_cache(maxsize=64)
def visibility(
    cache: int, steps: int, memory: int, window: int | None, device: torch.device
) -> Tensor:
    """The part of a segment's attention mask that no batch changes: `(queries, keys)` bool.

    Args:
        cache: Cached tokens.
        steps: Step tokens, three a step.
        memory: Memory tokens, as many to write as to read.
        window: Tokens of a sliding window (whole steps), or None where there is none.
        device: Where the mask lives.
    """
    allowed = torch.zeros(steps + 2 * memory, cache + steps + 2 * memory, dtype=torch.bool)
    write, read = cache + steps, cache + steps + memory
    allowed[:steps, :cache] = True
    causal = torch.ones(steps, steps, dtype=torch.bool).tril()
    if window is not None:
        step = torch.arange(steps) // TOKENS_PER_STEP
        causal &= step[:, None] - step < window // TOKENS_PER_STEP
    allowed[:steps, cache:write] = causal
    allowed[:steps, read:] = True
    allowed[steps : steps + memory, cache:] = True
    allowed[steps + memory :, read:] = True
    return allowed.to(device)


def _init_gpt(module: nn.Module) -> None:
    """GPT-2's initialisation of linear layers, as Decision Transformer has it."""
    if isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
