"""The settings of the public RATE architecture.

As in `rate.backbones.settings`, nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal

from rate.backbones.settings import Activation, Block
from rate.config import ModelConfig
from rate.errors import ConfigError


@dataclass(frozen=True)
class PublicRATEConfig(ModelConfig):
    """The settings of the public RATE architecture.

    Attributes:
        block: `trxl` (post-norm), `trxl_i` or `gtrxl`; see `rate.reference.blocks`.
        num_layers: Number of blocks.
        num_heads: Attention heads.
        d_head: Width of a head; None is `d_model / num_heads`.
        d_ff: Inner width of the feed-forward layer; None is `4 * d_model`.
        skip_ffn: Leave out the feed-forward layers; with `trxl` alone.
        num_memory_tokens: m, memory tokens in front of a segment and behind it.
        valve_heads: Attention heads of the memory retention valve; 0 is no valve (RMT).
        valve_activation: Activation before the valve; `elu` does not exist there.
        memory_noise: Standard deviation of Gaussian noise on carried memory, in training only. The
            public code has none.
    """

    backbone: str = "public_rate"
    block: Block = "trxl"
    num_layers: int = 2
    num_heads: int = 4
    d_head: int | None = None
    d_ff: int | None = None
    skip_ffn: bool = False
    num_memory_tokens: int = 5
    valve_heads: int = 2
    valve_activation: Activation = "relu"
    memory_noise: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("block", Literal["trxl", "trxl_i", "gtrxl"])
        self.check_choice("valve_activation", Literal["none", "relu", "leaky_relu", "tanh"])
        for name in ("num_layers", "num_heads", "d_head", "d_ff", "num_memory_tokens"):
            if getattr(self, name) is not None:
                self.check_count(name, 1)
        self.check_share("memory_noise", inf)
        if self.d_head is None:
            self.check_divides("num_heads")
        if self.valve_heads:
            self.check_divides("valve_heads")
        if self.d_model % 2:
            raise ConfigError(f"model.d_model={self.d_model} must be even for relative positions.")
        if self.skip_ffn and self.block != "trxl":
            raise ConfigError(
                f"model.skip_ffn=true needs model.block=trxl in the public architecture; it is "
                f"{self.block}."
            )
