"""The architecture of the public RATE code, to be trained.

    S_n = [ M_n | R o a  R o a ... R o a | M_n ]
    M_{n+1} = MRV(M_n, outputs of the last M_n)

Its blocks and its valve are those of `rate.reference`, with their doubled residuals, positions that
count memory tokens, and memory tokens that all start as one vector. With `training.bptt_segments=0`
memory is detached at every segment, as in the public recipe; the gradient flows through memory and
the valve by default. Training it both ways, and `rate` both ways, tells what the architecture and
what the recipe contribute.

Unlike the public code it masks padding, has biases u and v of attention in every block, and no
cache.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rate.backbones.public_settings import PublicRATEConfig
from rate.reference.backbone import PublicState, PublicTransformer
from rate.reference.config import ReferenceConfig
from rate.tokenizers import StepTokens


class PublicRATE(PublicTransformer):
    """RATE as its public code has it, and RMT with `valve_heads=0`."""

    Config = PublicRATEConfig
    config: PublicRATEConfig

    def __init__(self, config: PublicRATEConfig, tokens: StepTokens) -> None:
        super().__init__(_arguments(config), config.context_length, tokens, config.dropout)
        self.config, width = config, config.d_model
        with torch.no_grad():
            self.memory.copy_(torch.randn(1, width))  # one vector for all memory tokens
            exponents = torch.arange(0, width, 2) / width
            self.frequencies.copy_(10000.0**-exponents)
        for name, parameter in self.named_parameters():
            if name.endswith(("content_bias", "position_bias")):
                nn.init.xavier_uniform_(parameter[:, 0])

    def forward(
        self, tokens: Tensor, mask: Tensor, state: PublicState
    ) -> tuple[Tensor, PublicState]:
        """See `Backbone`. Padding is masked."""
        real = mask.repeat_interleave(self.tokens.count, dim=1)  # (B, nK)
        memory = real.new_ones(real.shape[0], self.config.num_memory_tokens)
        padding = ~torch.cat([memory, real, memory], dim=1)  # (B, m + nK + m)
        features, new = self.segment(tokens, state, 0, padding)
        if self.training and self.config.memory_noise and new.memory is not None:
            noise = self.config.memory_noise * torch.randn_like(new.memory)
            new = PublicState(new.memory + noise, None, state.cached)
        return features, new.where(~mask.any(1), state)


def _arguments(config: PublicRATEConfig) -> ReferenceConfig:
    """The public constructor's arguments of these settings."""
    activation = config.valve_activation
    return ReferenceConfig(
        env_name="tmaze",
        act_dim=1,  # encoders and head are the model's
        n_layer=config.num_layers,
        n_head=config.num_heads,
        d_model=config.d_model,
        d_head=config.d_head or config.d_model // config.num_heads,
        d_inner=config.d_ff or 4 * config.d_model,
        mem_len=0,
        num_mem_tokens=config.num_memory_tokens,
        n_head_ca=config.valve_heads,
        mrv_act=None if activation == "none" else activation,
        skip_dec_ffn=config.skip_ffn,
        use_stable_version=config.block != "trxl",
        use_gate=config.block == "gtrxl",
    )
