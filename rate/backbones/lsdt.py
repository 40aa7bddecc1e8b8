"""LSDT: attention for what is far and a dynamic convolution for what is near, side by side.

Long-Short Decision Transformer (Wang et al. 2025), as in the public RATE code. Of the channels x of
a token, c enter the convolution and the others attention. A gate mixes what the two return:

    y = [g_1 Attention(x_{c:}), g_2 Convolution(x_{:c})],    g = softmax(MLP(x))
    x = LN(x + y),    x = LN(x + MLP(x))
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.backbones.window_settings import LSDTConfig
from rate.backbones.window_transformer import NoState
from rate.kernels.cpu_dropout import Dropout
from rate.nn.attention import Attention
from rate.nn.attention_mask import SegmentMask
from rate.tokenizers import StepTokens


class DynamicConvolution(nn.Module):
    """A causal depthwise convolution whose weights every token predicts (Wu et al. 2019, 3.2).

        u = GLU(W_in x),    y_i = W_out sum_j softmax(W x_i)_j u_{i - J + j},    j = 1 ... J

    Channels of the same head have the same weights.

    Args:
        width: c.
        num_heads: Heads.
        kernel: J, in tokens.
    """

    def __init__(self, width: int, num_heads: int, kernel: int) -> None:
        super().__init__()
        self.num_heads, self.kernel = num_heads, kernel
        self.input, self.out = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.weights = nn.Linear(width, num_heads * kernel)

    def forward(self, x: Tensor, reaches: Tensor) -> Tensor:
        """`(B, T, c)` to `(B, T, c)`.

        Args:
            x: Tokens.
            reaches: `(T, J)` bool, whether the convolution at a token has its j-th tap.
        """
        taps = F.pad(F.glu(self.input(x), dim=-1), (0, 0, self.kernel - 1, 0))
        taps = taps.unfold(1, self.kernel, 1)  # (B, T, c, J)
        taps = taps.reshape(*x.shape[:2], self.num_heads, -1, self.kernel)  # (B, T, H, c / H, J)
        weights = self.weights(x).view(*x.shape[:2], self.num_heads, self.kernel).softmax(-1)
        weights = weights * reaches[:, None]  # (B, T, H, J)
        out: Tensor = self.out((taps * weights[..., None, :]).sum(-1).flatten(2))
        return out


class Layer(nn.Module):
    """A post-norm layer of LSDT."""

    def __init__(self, config: LSDTConfig) -> None:
        super().__init__()
        width, heads = config.d_model, config.num_heads
        near, far = config.widths
        self.attention = Attention(
            far,
            heads,
            far // heads,
            dropout=config.attention_dropout,
            relative=config.position == "relative",
        )
        self.convolution = DynamicConvolution(near, heads, config.conv_kernel)
        self.gate = _mlp(width, width, 2)
        self.feed_forward = _mlp(width, 4 * width if config.d_ff is None else config.d_ff, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.dropout = Dropout(config.dropout)

    def forward(self, x: Tensor, segment_mask: SegmentMask, reaches: Tensor) -> Tensor:
        """`(B, T, d)` to `(B, T, d)`."""
        near = self.convolution.out.in_features
        far = self.attention(x[..., near:], None, segment_mask)
        share = self.gate(x).softmax(-1)  # (B, T, 2)
        mixed = (share[..., :1] * far, share[..., 1:] * self.convolution(x[..., :near], reaches))
        x = self.norms[0](x + self.dropout(torch.cat(mixed, dim=-1)))
        out: Tensor = self.norms[1](x + self.dropout(self.feed_forward(x)))
        return out


def _mlp(width: int, inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, inner), nn.GELU(), nn.Linear(inner, out))


def _init_xavier(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class LSDT(Backbone[NoState]):
    """Layers of attention and convolution over a sliding window of K steps; it carries no state.

    A batch is one forward pass: attention and taps of every layer reach K steps back. Acting
    computes the window again at every step.
    """

    Config = LSDTConfig
    config: LSDTConfig

    def __init__(self, config: LSDTConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_layers))
        self.layers.apply(_init_xavier)

    def initial_state(self, batch_size: int) -> NoState:
        """The empty state."""
        return NoState()

    def forward(self, tokens: Tensor, mask: Tensor, state: NoState) -> tuple[Tensor, NoState]:
        """See `Backbone`."""
        x, per_step = tokens.flatten(1, 2), self.tokens.count  # (B, T, d), T = nK
        count, kernel = x.shape[1], self.config.conv_kernel
        place = torch.arange(count, device=x.device)
        step = place // per_step
        seen = (step[:, None] - step < self.config.context_length) & (place[:, None] >= place)
        real = mask.repeat_interleave(per_step, dim=1)  # (B, T)
        segment_mask = SegmentMask(0, count, 0, 0, seen & real[:, None, None])  # (B, 1, T, T)
        taps = place[:, None] - torch.arange(kernel - 1, -1, -1, device=x.device)  # (T, J)
        reaches = step[:, None] - taps.div(per_step, rounding_mode="floor")
        reaches = (reaches < self.config.context_length) & (taps >= 0)
        for layer in self.layers:
            x = layer(x, segment_mask, reaches)
        return x[:, self.tokens.read :: per_step], state  # (B, K, d)
