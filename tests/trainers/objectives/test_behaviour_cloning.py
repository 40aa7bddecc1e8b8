"""The loss and the metrics of behaviour cloning."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from torch import nn

from datamodules.sampler import WindowSampler
from datamodules.store import Store
from rate.batch import Batch
from rate.envs.tmaze import TMAZE_SPEC
from rate.model import SequenceModel
from tests.factories import MODELS, make_batch, make_model
from trainers.config_learning import LossConfig
from trainers.objectives import objective_class, objective_settings
from trainers.objectives.base import LossSums, Problem
from trainers.objectives.behaviour_cloning import BehaviourCloning
from trainers.objectives.steps import last_steps


@pytest.fixture
def batch(data_root: Path) -> Batch:
    store = data_root / "tmaze-12-60-seed0"
    return WindowSampler(Store.open(store), batch_size=6, window=12, seed=3).batch(0)


@pytest.fixture
def model() -> SequenceModel:
    spaces = TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space
    return SequenceModel(MODELS["rate"], *spaces).eval()


def sums_of(model: SequenceModel, batch: Batch, config: LossConfig) -> LossSums:
    objective = BehaviourCloning(config, Problem(model, TMAZE_SPEC))
    sums: LossSums = objective(model, model.features(batch)[0], batch)
    return sums


def test_it_is_the_default_objective() -> None:
    assert objective_class("behaviour_cloning") is BehaviourCloning
    assert objective_settings("behaviour_cloning") is BehaviourCloning.settings is LossConfig


def test_the_loss_is_the_weighted_mean_over_real_steps(model: SequenceModel, batch: Batch) -> None:
    config = LossConfig(label_smoothing=0.1, weighted_steps="last", step_weight=3)
    sums, (predictions, _) = sums_of(model, batch, config), model(batch)
    expected = weight = 0.0
    for row in range(6):
        for step in range(int(batch.mask[row].sum())):
            one = nn.functional.cross_entropy(
                predictions[row, step], batch.actions[row, step], label_smoothing=0.1
            )
            count = 3.0 if batch.episode_end[row, step] else 1.0
            expected, weight = expected + count * one.item(), weight + count
    assert sums.loss.item() == pytest.approx(expected, rel=1e-5)
    assert float(sums.weight) == weight
    assert list(sums.metrics) == ["accuracy", "last_step_accuracy"]
    hits = (predictions.argmax(-1) == batch.actions) & batch.mask
    assert [float(part) for part in sums.metrics["accuracy"]] == [hits.sum(), batch.mask.sum()]


def test_nan_in_the_padding_has_no_effect(model: SequenceModel, batch: Batch) -> None:
    objective = BehaviourCloning(LossConfig(), Problem(model, TMAZE_SPEC))
    features, _ = model.features(batch)
    spoilt = features.masked_fill(~batch.mask[..., None], float("nan"))
    assert not batch.mask.all()
    assert torch.equal(objective(model, spoilt, batch).loss, objective(model, features, batch).loss)


def test_the_losses_of_a_model_are_added_by_their_means(model: SequenceModel, batch: Batch) -> None:
    sums = sums_of(model, batch, LossConfig(weighted_steps="last", step_weight=3))
    losses = {"ponder": torch.rand(batch.mask.shape), "span": torch.ones(batch.mask.shape)}
    means = {name: float(part[batch.mask].mean()) for name, part in losses.items()}
    losses["ponder"][~batch.mask] = float("nan")  # of padding
    found = sums.with_losses(losses, batch.mask)
    expected = (sums.loss / sums.weight).item() + sum(means.values())
    assert (found.loss / found.weight).item() == pytest.approx(expected, rel=1e-5)
    for name, mean in means.items():
        total, weight = found.metrics[f"{name}_loss"]
        assert float(total / weight) == pytest.approx(mean, rel=1e-5)
    assert torch.equal(sums.with_losses({}, batch.mask).loss, sums.loss)


def test_the_final_accuracy_is_that_of_the_span() -> None:
    model = make_model("rate")
    batch = make_batch(model, [12, 7, 12], 12)
    batch.terminated[2] = batch.truncated[2] = False  # a window of a longer episode
    predictions, _ = model(batch)
    correct, weight = sums_of(model, batch, LossConfig(last_steps=4)).metrics["last_step_accuracy"]
    assert weight == 8
    hits = (predictions.argmax(-1) == batch.actions) & last_steps(batch, 4)
    assert correct == hits.sum()


def test_two_losses_are_summed_and_logged_separately() -> None:
    """Both losses have gradients in the model, and each is logged with its weight."""
    model = make_model("rate").train()
    batch = make_batch(model, [6, 4], 6)
    batch = replace(batch, privileged=torch.rand(2, 6, 2))
    problem = Problem(model, TMAZE_SPEC, Box(0, 1, (2,), np.float32))
    config = LossConfig(auxiliary_state_weight=0.5)
    objective = BehaviourCloning(config, problem)
    features = model.features(batch)[0].detach().requires_grad_()
    sums: LossSums = objective(model, features, batch)
    assert {"action_loss", "auxiliary_state_loss"} < set(sums.metrics)
    parts = [sums.metrics[name][0] for name in ("action_loss", "auxiliary_state_loss")]
    torch.testing.assert_close(sum(parts), sums.loss.detach())
    assert not any(part.requires_grad for part in parts)
    alone = BehaviourCloning(LossConfig(), Problem(model, TMAZE_SPEC))
    torch.testing.assert_close(alone(model, features, batch).loss, sums.metrics["action_loss"][0])
    sums.loss.backward()
    assert objective.auxiliary_head is not None
    with_both, features.grad = features.grad, None
    alone(model, features, batch).loss.backward()
    assert with_both is not None
    assert features.grad is not None
    assert not torch.equal(with_both, features.grad)
    assert (objective.auxiliary_head.linear.weight.grad != 0).any()
