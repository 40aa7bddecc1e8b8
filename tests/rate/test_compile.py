"""A compiled segment computes what the model does."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch._dynamo.utils import counters

from tests.factories import STEPS, make_batch, make_model
from tests.rate.test_recompute import gradients


@pytest.mark.parametrize(
    ("name", "recompute"),
    [("rate_lstm_cache", False), ("dt", False), ("rate", True), ("universal", False)],
)
def test_eager_and_compiled_agree(name: str, recompute: bool) -> None:
    """With the graphs of `torch.compile` run eagerly, which saves the time of code generation."""
    model = make_model(name, num_layers=1).double().train()
    batch = make_batch(model, [STEPS, STEPS - 1, 5])
    expected, expected_gradients = model(batch)[0], gradients(model, recompute)
    torch._dynamo.reset()
    counters.clear()
    model.compile_segments("aot_eager")
    found, found_gradients = model(batch)[0], gradients(model, recompute)
    assert counters["stats"]["unique_graphs"] <= 5  # not one for every layer or segment
    assert not counters["graph_break"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert found_gradients.keys() == expected_gradients.keys()
    for key, gradient in expected_gradients.items():
        torch.testing.assert_close(found_gradients[key], gradient, rtol=1e-11, atol=1e-11)
    model.compile_segments(None)
    assert torch.equal(model(batch)[0], expected)


def test_every_model_of_a_process_is_compiled() -> None:
    """PyTorch counts the programs of a method, not of a model, and stops compiling at eight."""
    torch._dynamo.reset()
    made, models = [], []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> Any:
        made.append(graph)
        return graph.forward

    for width in range(2, 24, 2):
        models.append(model := make_model("rate", num_layers=1, d_model=2 * width))
        before = len(made)
        model.compile_segments(backend)
        model(make_batch(model, STEPS))
        assert len(made) == before + 1, width  # and one does for the first and the later segments
