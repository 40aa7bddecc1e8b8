"""The settings of further backbones with a sliding window of K steps.

As in `rate.backbones.settings`, nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rate.backbones.settings import Block, WindowTransformerConfig
from rate.config import ModelConfig
from rate.errors import ConfigError


@dataclass(frozen=True)
class GPT2Config(WindowTransformerConfig):
    """The settings of a transformer with a sliding window of K steps and one token a step."""

    backbone: str = "gpt2"
    block: Block = "gpt"

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """That of the window, and the last action at its first step if it is not exact."""
        steps = super().information_horizon(tokens_per_step, exact=exact)
        return steps if steps is None or exact or tokens_per_step == 1 else steps + 1


@dataclass(frozen=True)
class LSDTConfig(ModelConfig):
    """The settings of LSDT.

    Attributes:
        num_layers: Number of layers.
        num_heads: Heads of attention, and of the convolution: channels with the same weights.
        d_ff: Inner width of the feed-forward layers; None is `4 * d_model`.
        attention_dropout: Dropout of attention probabilities.
        conv_width: Channels of the convolution; attention has the others of `d_model`. None is half
            of them.
        conv_kernel: Tokens that the convolution spans.
    """

    carries_state: ClassVar[bool] = False

    backbone: str = "lsdt"
    num_layers: int = 2
    num_heads: int = 4
    d_ff: int | None = None
    attention_dropout: float = 0.0
    conv_width: int | None = None
    conv_kernel: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "num_heads", "conv_width", "conv_kernel", "d_ff"):
            if getattr(self, name) is not None:
                self.check_count(name, 1)
        self.check_share("attention_dropout")
        widths = self.widths
        if widths[1] <= 0 or any(width % self.num_heads for width in widths) or widths[1] % 2:
            raise ConfigError(
                f"model.conv_width={widths[0]} leaves {widths[1]} channels of "
                f"model.d_model={self.d_model} to attention; both must be positive multiples of "
                f"model.num_heads={self.num_heads}, the latter even."
            )

    @property
    def widths(self) -> tuple[int, int]:
        """Channels of the convolution, and those of attention."""
        near = self.d_model // 2 if self.conv_width is None else self.conv_width
        return near, self.d_model - near

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """The window of K steps, which acting computes again at every step."""
        return self.context_length
