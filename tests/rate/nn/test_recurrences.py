"""Recurrences computed for many steps at once against the equations of the papers, step by step."""

from __future__ import annotations

import torch
from torch import Tensor

from rate.backbones.gated_deltanet import GatedDeltaNetCell, GatedDeltaNetState
from rate.backbones.mlstm import MLSTMCell, MLSTMState
from rate.nn.linear_attention import decayed_linear_attention, in_chunks
from rate.nn.scan import linear_scan
from tests.factories import make_model

B, T, H, D = 2, 11, 2, 8
CLOSE = {"rtol": 1e-10, "atol": 1e-10}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_linear_scan() -> None:
    torch.manual_seed(0)
    decay, value, hidden = random(B, T, 3), random(B, T, 3), random(B, 3)
    found = linear_scan(decay, value, hidden)
    for t in range(T):
        hidden = decay[:, t] * hidden + value[:, t]
        torch.testing.assert_close(found[:, t], hidden, **CLOSE)


def test_decayed_linear_attention() -> None:
    torch.manual_seed(0)
    query, key, value = random(B, H, T, 5), random(B, H, T, 5), random(B, H, T, 3)
    decay, memory = torch.rand(B, H, T).double(), random(B, H, 5, 3)
    found, after = decayed_linear_attention(query, key, value, decay.log(), memory)
    for t in range(T):
        written = key[:, :, t, :, None] * value[:, :, t, None, :]
        memory = decay[:, :, t, None, None] * memory + written
        read = (memory.mT @ query[:, :, t, :, None])[..., 0]
        torch.testing.assert_close(found[:, :, t], read, **CLOSE)
    torch.testing.assert_close(after, memory, **CLOSE)


def test_gated_deltanet_equation_10() -> None:
    """S_t = a_t S_{t-1} (I - b_t k_t k_t^T) + v_t k_t^T."""
    torch.manual_seed(0)
    cell = make_model("gated_deltanet").backbone.get_submodule("layers.0.cell")
    assert isinstance(cell, GatedDeltaNetCell)
    key = torch.nn.functional.normalize(random(B, T, H, D), dim=-1)
    query, value, start = random(B, T, H, D), random(B, T, H, D), random(B, H, D, D)
    decay, erase = torch.rand(B, T, H, 1).double(), 2 * torch.rand(B, T, H, 1).double()
    inputs = (query, key, value, decay.log(), erase)
    found, after = in_chunks(cell._chunk, inputs, GatedDeltaNetState(start))
    memory = start.mT  # S
    for t in range(T):
        k, v = key[:, t, :, :, None], value[:, t, :, :, None]
        a, b = decay[:, t, :, :, None], erase[:, t, :, :, None]
        memory = a * memory @ (torch.eye(D).double() - b * k @ k.mT) + v @ k.mT
        read = (memory @ query[:, t, :, :, None])[..., 0]
        torch.testing.assert_close(found[:, t], read, **CLOSE)
    torch.testing.assert_close(after.memory.mT, memory, **CLOSE)


def test_mlstm_equations_without_stabiliser() -> None:
    """C_t = f C + i v k^T, n_t = f n + i k, C q / max(|n q|, 1)."""
    torch.manual_seed(0)
    cell = make_model("mlstm").backbone.get_submodule("layers.0.cell")
    assert isinstance(cell, MLSTMCell)
    query, key, value = random(B, T, H, D), random(B, T, H, D), random(B, T, H, D)
    log_input, log_forget = random(B, T, H), torch.rand(B, T, H).double().log()
    zeros = torch.zeros(B, H, D, dtype=torch.float64)
    state = MLSTMState(zeros[..., None] * zeros[..., None, :], zeros, zeros[..., 0])
    inputs = (query, key, value, log_input, log_forget)
    found, after = in_chunks(cell._chunk, inputs, state)
    memory, normaliser = state.memory, zeros  # C, n
    for t in range(T):
        write, keep = log_input[:, t, :, None].exp(), log_forget[:, t, :, None].exp()
        k, v, q = key[:, t], value[:, t], query[:, t]
        memory = keep[..., None] * memory + write[..., None] * v[..., :, None] * k[..., None, :]
        normaliser = keep * normaliser + write * k
        size = (normaliser * q).sum(-1, keepdim=True).abs().clamp(min=1)
        torch.testing.assert_close(found[:, t], (memory @ q[..., None])[..., 0] / size, **CLOSE)
    scale = after.log_scale.exp()[..., None]
    torch.testing.assert_close(after.normaliser * scale, normaliser, **CLOSE)
    torch.testing.assert_close(after.memory.mT * scale[..., None], memory, **CLOSE)
