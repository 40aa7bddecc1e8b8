"""Cells of `RecurrentLayers`: many steps at once equal one step at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.backbones.recurrent_layers import Cell, Layer, RecurrentLayers
from rate.nn.linear_attention import CHUNK
from rate.state import State
from tests.factories import MODELS, make_model

CELLS = [name for name in MODELS if isinstance(make_model(name).backbone, RecurrentLayers)]
every_cell = pytest.mark.parametrize("name", CELLS)
STEPS = CHUNK + 9  # more than a chunk


def cell_of(name: str) -> Cell[State]:
    layer = make_model(name).backbone.get_submodule("layers.0")
    assert isinstance(layer, Layer)
    cell: Cell[State] = layer.cell
    return cell


def step_by_step(cell: Cell[State], x: Tensor, state: State) -> tuple[Tensor, State]:
    mask, outputs = torch.ones(len(x), 1, dtype=torch.bool), []
    for t in range(x.shape[1]):
        output, state = cell(x[:, t : t + 1], mask, state)
        outputs.append(output)
    return torch.cat(outputs, dim=1), state


def assert_close(found: State, expected: State, tolerance: float) -> None:
    for name, tensor in expected.tensors().items():
        torch.testing.assert_close(
            found.tensors()[name], tensor, rtol=tolerance, atol=tolerance, msg=name
        )


@every_cell
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-10)], ids=["f32", "f64"]
)
def test_many_steps_at_once_equal_one_at_a_time(
    name: str, dtype: torch.dtype, tolerance: float
) -> None:
    cell = cell_of(name).to(dtype)
    x = torch.randn(3, STEPS, 16, dtype=dtype)
    with torch.no_grad():
        before = cell(torch.randn_like(x), torch.ones(3, STEPS) > 0, cell.initial_state(3))[1]
        found, state = cell(x, torch.ones(3, STEPS) > 0, before)
        expected, expected_state = step_by_step(cell, x, before)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert_close(state, expected_state, tolerance)


@every_cell
def test_padding_leaves_the_state_of_the_last_real_step(name: str) -> None:
    cell = cell_of(name).double()
    x, lengths = torch.randn(4, STEPS, 16).double(), torch.tensor([STEPS, 1, 5, CHUNK])
    with torch.no_grad():
        _, state = cell(x, torch.arange(STEPS) < lengths[:, None], cell.initial_state(4))
        for row, length in enumerate(lengths.tolist()):
            expected = step_by_step(cell, x[row : row + 1, :length], cell.initial_state(1))[1]
            assert_close(state.take(torch.tensor([row])), expected, 1e-10)


def test_an_interleaved_cell_reads_one_token_after_another() -> None:
    """The order is a_{t-1}, R_t, o_t; a step has the features of o_t."""
    backbone = make_model("dlstm").backbone
    tokens, mask = torch.randn(2, 4, 3, 16), torch.ones(2, 4, dtype=torch.bool)
    with torch.no_grad():
        found, _ = backbone(tokens, mask, backbone.initial_state(2))
        sequence = torch.cat((torch.zeros(2, 1, 16), tokens.flatten(1, 2)[:, :-1]), dim=1)
        expected, _ = backbone.get_submodule("cells")(sequence)
    torch.testing.assert_close(found, expected[:, 2::3])
