"""The associative memory of ARMT: a matrix of a layer, rewritten once a segment."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_ROLLS = 3  # nu of DPFP
_EPS = 1e-5


def dpfp(x: Tensor) -> Tensor:
    """Deterministic parameter-free projection (Schlag et al. 2021).

    Products of each unit of [ReLU(x), ReLU(-x)] with those 1 to 3 places before it:
    `(..., s)` become `(..., 6 s)`, not negative.
    """
    parts = torch.cat((torch.relu(x), torch.relu(-x)), dim=-1)
    rolled = [parts * parts.roll(shift, dims=-1) for shift in range(1, _ROLLS + 1)]
    return torch.cat(rolled, dim=-1)


class AssociativeMemory(nn.Module):
    """A matrix A and a normaliser z, read by all tokens and written by the memory tokens.

    The associative recurrent memory transformer (ARMT, Rodkin et al. 2024, arXiv 2407.04841). With
    phi = DPFP, a token x reads

        x + A phi(W_q x) / (z phi(W_q x) + eps)

    and memory tokens m_i write by the delta rule, k = phi(W_k m), v = W_v m, b = sigmoid(w_b m):

        A <- A + sum_i b_i (v_i - A k_i / (z k_i + eps)) k_i^T
        z <- z + sum_i g_i k_i,    g = clip(1 - z k / |k|^2, 0, 1)

    W_v starts at 0, so that a new model reads nothing. The public code gives g no gradient.

    Args:
        d_model: Width of a token.
        size: Width of queries and keys before the projection.
    """

    def __init__(self, d_model: int, size: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, size, bias=False)
        self.key = nn.Linear(d_model, size, bias=False)
        self.value = nn.Linear(d_model, d_model, bias=False)
        self.gate = nn.Linear(d_model, 1)
        nn.init.zeros_(self.value.weight)

    def initial(self, batch_size: int) -> tuple[Tensor, Tensor]:
        """A `(B, d, 6 s)` and z `(B, 6 s)` before the first segment: zeros."""
        size, d_model = self.query.weight.shape
        matrix = self.query.weight.new_zeros(batch_size, d_model, 2 * _ROLLS * size)
        return matrix, matrix[:, 0].clone()

    def read(self, x: Tensor, matrix: Tensor, normaliser: Tensor) -> Tensor:
        """Tokens `(B, T, d)` with what they read."""
        query = dpfp(self.query(x))  # (B, T, 6 s)
        return x + query @ matrix.mT / (query @ normaliser[..., None] + _EPS)

    def write(self, tokens: Tensor, matrix: Tensor, normaliser: Tensor) -> tuple[Tensor, Tensor]:
        """A and z after memory tokens `(B, m, d)` have written."""
        key = dpfp(self.key(tokens))  # (B, m, 6 s)
        known = key @ normaliser[..., None]  # (B, m, 1)
        change = self.value(tokens) - key @ matrix.mT / (known + _EPS)  # (B, m, d)
        change = torch.sigmoid(self.gate(tokens)) * change
        new = (1 - known / (key.square().sum(-1, keepdim=True) + _EPS)).clamp(0, 1)
        return matrix + change.mT @ key, normaliser + (new * key).sum(1)
