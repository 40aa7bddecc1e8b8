"""RATE, RMT, TrXL and DTXL: a transformer over segments, with memory tokens and cached states.

    segment n:   [ cache | R o a  R o a  ...  R o a | write = M_n | read = M_n ]
                                                        |
    segment n+1:                              M_{n+1} = MRV(M_n, C_n)

The attention mask: step tokens attend to the cache, to the read tokens and to the steps up to their
own (causal). Write tokens attend to the read tokens, to every step and to each other. Read tokens
attend to each other alone. RATE (Cherepanov et al. 2023, section 4) puts the read tokens in front;
attention does not depend on where they stand.

RMT (Bulatov et al. 2022) has no memory retention valve (MRV) and no cache; TrXL (Dai et al. 2019)
and DTXL have a cache and no memory tokens. ARMT (Rodkin et al. 2024) carries a matrix per layer,
and its memory tokens are M_0 in every segment. With memory caching (arXiv 2602.24281) the read
tokens are M_n and the S memories before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from rate.backbones.base import Losses
from rate.backbones.settings import SegmentTransformerConfig
from rate.backbones.transformer import Transformer
from rate.decoders.segments import SegmentDecoder
from rate.nn.associative_memory import AssociativeMemory
from rate.nn.attention_mask import SegmentMask, geometry_mask
from rate.nn.retention_valves import VALVES
from rate.state import State
from rate.tokenizers import StepTokens


@dataclass(frozen=True)
class SegmentState(State):
    """The state between two segments.

    Attributes:
        memory: `(B, m, d)` memory tokens M, or None.
        cell: `(B, m, d)` cell state of an LSTM valve, or None.
        cache: `(B, L, C, d)` cached hidden states: inputs of every layer at the last C step
            tokens, the newest last, or None.
        cached: `(B,)` int64, how many of the C are real; the others are masked out.
        memories: `(B, S m, d)` memory tokens of the S segments before, the newest last, or None.
        association: `(B, L, d, f)` and `(B, L, f)`, the associative memory of every layer: its
            matrix A and normaliser z. Or None.
    """

    memory: Tensor | None
    cell: Tensor | None
    cache: Tensor | None
    cached: Tensor | None
    memories: Tensor | None = None
    association: tuple[Tensor, Tensor] | None = None


class SegmentTransformer(Transformer[SegmentState]):
    """A transformer that passes a `SegmentState` from segment to segment.

    Attributes:
        memory: `(m, d)` the learned memory tokens of the first segment, M_0.
        slot_embedding: `(m, d)`, added to the memory tokens: it tells memory tokens of equal
            content apart. Without it they have equal queries, hence equal updates, and memory
            collapses to one token (rank 1).
        valve: The memory retention valve.
        age_embedding: `(S, 1, d)`, added to memories of earlier segments.
        associations: The associative memory of every layer.
    """

    Config = SegmentTransformerConfig
    config: SegmentTransformerConfig

    def __init__(self, config: SegmentTransformerConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        shape = (config.num_memory_tokens, config.d_model)
        if config.num_memory_tokens:
            # Different from each other: equal memory tokens would get equal updates for ever.
            self.memory = nn.Parameter(torch.randn(shape))
            self.slot_embedding = nn.Parameter(torch.randn(shape))
            self.valve = VALVES[config.valve](
                config.d_model,
                config.valve_heads,
                config.attention_dropout,
                config.valve_activation,
            )
        if config.cached_memories:
            self.age_embedding = nn.Parameter(torch.randn(config.cached_memories, 1, shape[1]))
        self.associations = nn.ModuleList(
            AssociativeMemory(config.d_model, config.associative_size)
            for _ in range(config.num_layers if config.associative_size else 0)
        )
        # Write tokens follow step K, so that memory does not depend on where a batch ends.
        self.whole_segments = config.num_memory_tokens > 0

    def initial_state(self, batch_size: int) -> SegmentState:
        """The learned memory tokens and an empty cache."""
        config, reference = self.config, next(self.parameters())
        memory = cell = cache = cached = memories = association = None
        if config.num_memory_tokens:
            # Contiguous, as in all later segments: `torch.compile` makes one program for all.
            memory = self.memory.expand(batch_size, -1, -1).contiguous()
            if self.valve.has_cell:
                cell = torch.zeros_like(memory)
            if config.cached_memories:
                memories = memory.repeat(1, config.cached_memories, 1)
        if config.cache_length:
            shape = (batch_size, config.num_layers, config.cache_length, config.d_model)
            # Not `new_zeros`, which of a sharded parameter is sharded.
            cache = torch.zeros(shape, dtype=reference.dtype, device=reference.device)
            cached = torch.zeros(batch_size, dtype=torch.int64, device=reference.device)
        if self.associations:
            association = _stacked([layer.initial(batch_size) for layer in self._associations()])
        return SegmentState(memory, cell, cache, cached, memories, association)

    def _associations(self) -> list[AssociativeMemory]:
        return cast("list[AssociativeMemory]", list(self.associations))

    def write_tokens(self, memory: Tensor) -> Tensor:
        """The write tokens `(B, m, d)` of a segment that memory tokens `(B, m, d)` enter."""
        return memory + self.slot_embedding

    def read_tokens(self, memory: Tensor, memories: Tensor | None) -> Tensor:
        """The read tokens of a segment: M_n, and with memory caching the S memories before it.

        Args:
            memory: `(B, m, d)` M_n.
            memories: `(B, S m, d)`, see `SegmentState`.

        Returns:
            `(B, m (1 + S), d)`.
        """
        if memories is None:
            return self.write_tokens(memory)
        places = (self.slot_embedding + self.age_embedding).flatten(0, 1)  # (S m, d)
        return torch.cat((self.write_tokens(memory), memories + places), dim=1)

    def read_association(
        self, index: int, x: Tensor, association: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """Tokens `(B, T, d)` that enter layer `index`, with what they read from its association."""
        if association is None:
            return x
        matrix, normaliser = (part[:, index] for part in association)
        return self._associations()[index].read(x, matrix, normaliser)

    def forward_segment(
        self, tokens: Tensor, mask: Tensor, state: SegmentState, segment_mask: SegmentMask
    ) -> tuple[Tensor, SegmentState, Losses]:
        """One segment of RATE (Cherepanov et al. 2023, section 4).

            S_n = [R_1 o_1 a_1 ... R_K o_K a_K | M_n | M_n]     steps, write, read
            H_n, C_n = Transformer(S_n, cache_n)                 features, outputs of write tokens
            M_{n+1} = MRV(M_n, C_n)

        Args:
            tokens: `(B, K, n, d)`.
            mask: `(B, K)` bool padding mask, real steps first.
            state: M_n and the cached hidden states of earlier segments.
            segment_mask: The attention mask, `segment_mask(mask, state)`.

        Returns:
            Features `(B, K, d)`, the state with M_{n+1} and the next cache, and auxiliary losses.
        """
        num_steps, x = tokens.shape[1], tokens.flatten(1, 2)  # (B, nK, d)
        num_tokens = x.shape[1]
        if state.memory is not None:  # (B, nK + m + m (1 + S), d)
            x = torch.cat(
                (
                    x,
                    self.write_tokens(state.memory),
                    self.read_tokens(state.memory, state.memories),
                ),
                dim=1,
            )
        # Each layer attends to its own input at the last C tokens (Dai et al. 2019, section 3.2).
        inputs, outputs = [], []

        def run(index: int, x: Tensor) -> Tensor:
            x = self.read_association(index, x, state.association)
            cache = None if state.cache is None else state.cache[:, index]  # (B, C, d)
            inputs.append(x[:, :num_tokens])
            x = self.run_block(index, x, cache, segment_mask)
            written = num_tokens if index < self.config.num_layers - 1 else num_steps
            outputs.append(x[:, written : written + self.config.num_memory_tokens])
            return x

        # (B, K + m, d): the last block selects what is read
        out, cost = self.run_layers(x, run, lambda x: segment_mask.select_queries(x, self.read))
        features, written = out[:, :num_steps], out[:, num_steps:]
        losses = self.losses(None if cost is None else cost[:, :num_tokens], mask)
        return features, self.advance(state, written, inputs, mask, outputs), losses

    def advance(
        self,
        state: SegmentState,
        written: Tensor,
        inputs: list[Tensor],
        mask: Tensor,
        outputs: list[Tensor],
    ) -> SegmentState:
        """The state after a segment.

        Args:
            state: The state the segment started from.
            written: `(B, m, d)` outputs of the write tokens, C_n.
            inputs: Per layer its input `(B, nK, d)` at the segment's step tokens.
            mask: `(B, K)` bool padding mask. Padding enters neither memory nor cache.
            outputs: Per layer its output `(B, m, d)` at the write tokens.
        """
        before, new = replace(state, cache=None, cached=None), {}
        if state.association is not None:
            new = self._advance_association(state.association, outputs)
        elif state.memory is not None:
            new = self._advance_memory(state, state.memory, written)
        # Rows of padding keep their memory.
        after = before.where(mask.any(1), replace(before, **new))
        return replace(after, **self._advance_cache(state, inputs, mask))

    def _advance_memory(
        self, state: SegmentState, memory: Tensor, written: Tensor
    ) -> dict[str, Any]:
        """The memory retention valve, and a decay a: M_{n+1} = a M_n + (1 - a) MRV(M_n, C_n)."""
        new, cell = self.valve(memory, self.write_tokens(memory), written, state.cell)
        if self.config.memory_decay:
            new = torch.lerp(new, memory, self.config.memory_decay)
        memories = state.memories
        if memories is not None:  # M_n replaces the oldest
            memories = torch.cat((memories[:, memory.shape[1] :], memory), dim=1)
        return {"memory": self._noisy(new), "cell": cell, "memories": memories}

    def _advance_association(
        self, association: tuple[Tensor, Tensor], outputs: list[Tensor]
    ) -> dict[str, Any]:
        """What the write tokens write into the associative memory of every layer."""
        parts = zip(self._associations(), outputs, *(x.unbind(1) for x in association), strict=True)
        matrix, normaliser = _stacked([layer.write(*given) for layer, *given in parts])
        return {"association": (self._noisy(matrix), normaliser)}

    def _noisy(self, memory: Tensor) -> Tensor:
        """Memory with the noise of training (`memory_noise`)."""
        if not (self.training and self.config.memory_noise):
            return memory
        return memory + self.config.memory_noise * torch.randn_like(memory)

    def _advance_cache(
        self, state: SegmentState, inputs: list[Tensor], mask: Tensor
    ) -> dict[str, Any]:
        """The cached hidden states after a segment."""
        cache, cached = state.cache, state.cached
        if cache is not None and cached is not None:
            size, added = cache.shape[2], self.tokens.count * mask.sum(1)  # (B,)
            history = torch.cat((cache, torch.stack(inputs, dim=1)), dim=2)  # (B, L, C + nK, d)
            newest = added[:, None] + torch.arange(size, device=mask.device)  # (B, C)
            index = newest[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3])
            cache = history.gather(2, index)
            cached = (cached + added).clamp(max=size)
        return {"cache": cache, "cached": cached}

    def segment_mask(self, mask: Tensor, state: SegmentState) -> SegmentMask:
        """The attention mask of a segment; see the docstring of this module."""
        config, count = self.config, self.tokens.count
        steps, memory = count * mask.shape[1], config.num_memory_tokens
        read = memory * (1 + config.cached_memories)
        causal = geometry_mask(config.cache_length, steps, memory, count, None, mask.device, read)
        real = mask.repeat_interleave(count, dim=1)  # (B, nK)
        keys = [real, real.new_ones(real.shape[0], memory + read)]
        if state.cached is not None:
            newest_first = torch.arange(config.cache_length, 0, -1, device=mask.device)
            keys.insert(0, newest_first <= state.cached[:, None])
        key_mask = torch.cat(keys, dim=1)  # (B, keys)
        return SegmentMask(
            config.cache_length, steps, memory, read, causal & key_mask[:, None, None, :]
        )

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> SegmentDecoder:
        """A decoder with a KV cache of the open segment and the hidden states cached before it."""
        return SegmentDecoder(self, batch_size)


def _stacked(of_layers: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Pairs of every layer `(B, ...)` as a pair of `(B, L, ...)`."""
    first, second = zip(*of_layers, strict=True)
    return torch.stack(first, dim=1), torch.stack(second, dim=1)
