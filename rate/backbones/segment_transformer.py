"""RATE, RMT, TrXL and DTXL: a transformer over segments, with memory tokens and cached states.

    segment n:   [ cache | R o a  R o a  ...  R o a | write = M_n | read = M_n ]
                                                        |
    segment n+1:                              M_{n+1} = MRV(M_n, C_n)

The attention mask: step tokens attend to the cache, to the read tokens and to the steps up to their
own (causal). Write tokens attend to the read tokens, to every step and to each other. Read tokens
attend to each other alone. RATE (Cherepanov et al. 2023, section 4) puts the read tokens in front;
attention does not depend on where they stand.

RMT (Bulatov et al. 2022) has no memory retention valve (MRV) and no cache; TrXL (Dai et al. 2019)
and DTXL have a cache and no memory tokens.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rate.backbones.base import Losses
from rate.backbones.settings import SegmentTransformerConfig
from rate.backbones.transformer import Transformer
from rate.decoders.segments import SegmentDecoder
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
    """

    memory: Tensor | None
    cell: Tensor | None
    cache: Tensor | None
    cached: Tensor | None


class SegmentTransformer(Transformer[SegmentState]):
    """A transformer that passes a `SegmentState` from segment to segment.

    Attributes:
        memory: `(m, d)` the learned memory tokens of the first segment, M_0.
        slot_embedding: `(m, d)`, added to the memory tokens: it tells memory tokens of equal
            content apart. Without it they have equal queries, hence equal updates, and memory
            collapses to one token (rank 1).
        valve: The memory retention valve.
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
        # Write tokens follow step K, so that memory does not depend on where a batch ends.
        self.whole_segments = config.num_memory_tokens > 0

    def initial_state(self, batch_size: int) -> SegmentState:
        """The learned memory tokens and an empty cache."""
        config, reference = self.config, next(self.parameters())
        memory = cell = cache = cached = None
        if config.num_memory_tokens:
            # Contiguous, as in all later segments: `torch.compile` makes one program for all.
            memory = self.memory.expand(batch_size, -1, -1).contiguous()
            if self.valve.has_cell:
                cell = torch.zeros_like(memory)
        if config.cache_length:
            shape = (batch_size, config.num_layers, config.cache_length, config.d_model)
            cache = reference.new_zeros(shape)
            cached = torch.zeros(batch_size, dtype=torch.int64, device=reference.device)
        return SegmentState(memory, cell, cache, cached)

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
        if state.memory is not None:
            memory = state.memory + self.slot_embedding  # (B, m, d)
            x = torch.cat((x, memory, memory), dim=1)  # (B, nK + 2m, d)
        # Each layer attends to its own input at the last C tokens (Dai et al. 2019, section 3.2).
        inputs = []

        def run(index: int, x: Tensor) -> Tensor:
            inputs.append(x[:, :num_tokens])
            cache = None if state.cache is None else state.cache[:, index]  # (B, C, d)
            return self.run_block(index, x, cache, segment_mask)

        # (B, K + m, d): the last block selects what is read
        out, cost = self.run_layers(x, run, lambda x: segment_mask.select_queries(x, self.read))
        features, written = out[:, :num_steps], out[:, num_steps:]
        losses = self.losses(None if cost is None else cost[:, :num_tokens], mask)
        return features, self.advance(state, written, inputs, mask), losses

    def advance(
        self, state: SegmentState, written: Tensor, inputs: list[Tensor], mask: Tensor
    ) -> SegmentState:
        """The state after a segment.

        Args:
            state: The state the segment started from.
            written: `(B, m, d)` outputs of the write tokens, C_n.
            inputs: Per layer its input `(B, nK, d)` at the segment's step tokens.
            mask: `(B, K)` bool padding mask. Padding enters neither memory nor cache.
        """
        memory, cell, cache, cached = state.memory, state.cell, state.cache, state.cached
        if memory is not None:
            # The memory retention valve: M_{n+1} = MRV(M_n, C_n).
            new, new_cell = self.valve(memory, memory + self.slot_embedding, written, cell)
            if self.training and self.config.memory_noise:
                new = new + self.config.memory_noise * torch.randn_like(new)
            real = mask.any(1)[:, None, None]  # (B, 1, 1): rows of padding keep their memory
            memory = torch.where(real, new, memory)
            if new_cell is not None and cell is not None:
                cell = torch.where(real, new_cell, cell)
        if cache is not None and cached is not None:
            size, added = cache.shape[2], self.tokens.count * mask.sum(1)  # (B,)
            history = torch.cat((cache, torch.stack(inputs, dim=1)), dim=2)  # (B, L, C + nK, d)
            newest = added[:, None] + torch.arange(size, device=mask.device)  # (B, C)
            index = newest[:, None, :, None].expand(-1, cache.shape[1], -1, cache.shape[3])
            cache = history.gather(2, index)
            cached = (cached + added).clamp(max=size)
        return SegmentState(memory, cell, cache, cached)

    def segment_mask(self, mask: Tensor, state: SegmentState) -> SegmentMask:
        """The attention mask of a segment; see the docstring of this module."""
        config, count = self.config, self.tokens.count
        steps, memory = count * mask.shape[1], config.num_memory_tokens
        causal = geometry_mask(config.cache_length, steps, memory, count, None, mask.device)
        real = mask.repeat_interleave(count, dim=1)  # (B, nK)
        keys = [real, real.new_ones(real.shape[0], 2 * memory)]
        if state.cached is not None:
            newest_first = torch.arange(config.cache_length, 0, -1, device=mask.device)
            keys.insert(0, newest_first <= state.cached[:, None])
        key_mask = torch.cat(keys, dim=1)  # (B, keys)
        return SegmentMask(
            config.cache_length, steps, memory, memory, causal & key_mask[:, None, None, :]
        )

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> SegmentDecoder:
        """A decoder with a KV cache of the open segment and the hidden states cached before it."""
        return SegmentDecoder(self, batch_size)
