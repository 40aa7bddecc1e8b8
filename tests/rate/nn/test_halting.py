"""Adaptive computation time, against the equations of one token at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.backbones.transformer import Transformer
from rate.nn.halting import Halting, Ponder
from tests.factories import make_batch, make_model


def by_hand(probabilities: list[float], threshold: float) -> tuple[list[float], float]:
    """Weights of the layers and ponder cost of a token (Graves 2016)."""
    weights, total = [], 0.0
    for number, probability in enumerate(probabilities, start=1):
        if total + probability > threshold:
            rest = [0.0] * (len(probabilities) - number)
            return [*weights, 1 - total, *rest], number + 1 - total
        weights.append(probability)
        total += probability
    return weights, len(probabilities)


def test_weights_and_costs_equal_the_equations() -> None:
    halting, layers = Halting(4, threshold=0.9).double(), torch.randn(6, 5, 7, 4).double()
    torch.nn.init.constant_(halting.linear.bias, -0.7)  # tokens halt at different layers, or never
    ponder: Ponder | None = None
    weights = []
    with torch.no_grad():
        chances = halting.linear(layers)[..., 0].sigmoid()  # (layers, B, T)
        for x in layers:
            weight, ponder = halting(x, ponder)
            weights.append(weight[..., 0])
    found, numbers = torch.stack(weights), set()
    assert ponder is not None
    for row in range(5):
        for token in range(7):
            expected, cost = by_hand(chances[:, row, token].tolist(), 0.9)
            numbers.add(sum(weight > 0 for weight in expected))
            assert found[:, row, token].tolist() == pytest.approx(expected)
            assert float(ponder.cost[row, token]) == pytest.approx(cost)
    assert len(numbers) > 2


def test_a_new_model_takes_one_or_two_layers() -> None:
    halting = Halting(16, threshold=0.9)
    x, ponder = torch.randn(8, 10, 16), None
    for _ in range(6):
        _, ponder = halting(x, ponder)
    assert ponder is not None
    assert 1 < float(ponder.cost.detach().mean()) < 3


def outputs(model: Transformer, x: Tensor) -> Tensor:
    def select(x: Tensor) -> Tensor:
        return x[:, -2:]

    last = model.config.num_layers - 1
    with torch.no_grad():
        return model.run_layers(
            x, lambda index, x: (select(x) if index == last else x) + index + 1, select
        )[0]


def test_the_output_is_the_weighted_mean_of_the_layers() -> None:
    """Tokens that halt at once have the output of the first layer, with or without selection."""
    backbone = make_model("universal").backbone
    assert isinstance(backbone, Transformer)
    assert backbone.halting is not None
    assert backbone.depth is not None
    torch.nn.init.constant_(backbone.halting.linear.bias, 50.0)
    x = torch.randn(2, 5, 16)
    found = outputs(backbone, x)
    torch.testing.assert_close(found, (x + backbone.depth[0] + 1)[:, -2:])
    torch.nn.init.constant_(backbone.halting.linear.bias, -50.0)
    assert outputs(backbone, x).abs().max() < 1e-6, "no layer has a weight"


def test_the_ponder_cost_of_a_step_is_the_mean_over_its_tokens() -> None:
    model = make_model("universal", ponder_weight=0.5)
    batch = make_batch(model)
    torch.nn.init.constant_(model.backbone.halting.linear.bias, 50.0)
    losses = model.features_and_losses(batch)[2]
    assert set(losses) == {"ponder"}
    torch.testing.assert_close(losses["ponder"], torch.full(batch.mask.shape, 0.5 * 2))
