"""What holds for every learning rule with values."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.factories import with_padding
from tests.trainers.objectives.rules import RULES, make_rule, make_steps
from trainers.objectives.targets import has_target

LENGTHS, STEPS = [9, 6, 12, 5, 1], 12
METRICS = {"value", "value_std", "value_min", "value_max", "td_error", "accuracy"}


@pytest.mark.parametrize("name", RULES)
def test_padding_has_no_effect(name: str) -> None:
    """Neither on the loss and the metrics, nor on the gradient of any weight."""
    found = []
    for seed in (0, 1):
        model, objective = make_rule(name)
        batch = make_steps(model, LENGTHS, STEPS)
        other = make_steps(model, LENGTHS, STEPS, seed=9)
        assert batch.following is not None
        real = replace(batch, mask=batch.observed)  # what follows an episode is no padding
        spoilt = batch
        if seed:
            kept = {"mask": batch.mask, "following": batch.following}
            spoilt = replace(with_padding(real, other), **kept)
            assert not torch.equal(spoilt.rewards, batch.rewards)
        torch.manual_seed(3)
        sums = objective(model, model.features(spoilt)[0], spoilt)
        sums.loss.backward()
        weights = {**dict(model.named_parameters()), **dict(objective.named_parameters())}
        gradients = [w.grad for w in weights.values() if w.grad is not None]
        numbers = [number for pair in sums.metrics.values() for number in pair]
        found.append((sums.loss, sums.weight, *numbers, *gradients))
        assert sums.metrics.keys() >= METRICS
        assert not any(number.requires_grad for number in numbers)
    for mine, others in zip(*found, strict=True):
        torch.testing.assert_close(mine, others, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["cql", "continuous_cql", "iql", "td3_bc", "sac_discrete"])
def test_what_follows_a_truncated_episode_is_bootstrapped_from(name: str) -> None:
    """A change of the last observation changes the loss, that of a terminated episode does not."""
    model, objective = make_rule(name)
    batch = make_steps(model, LENGTHS, STEPS)
    assert batch.following is not None
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.following.any(1).tolist() == [True, False, False, False, True]
    assert has_target(batch).sum(1).tolist() == [9, 6, 11, 5, 1]

    def loss(row: int, place: int) -> float:
        changed = batch.observations.clone()  # type: ignore[union-attr]
        changed[row, place] += 1.0
        torch.manual_seed(3)
        other = replace(batch, observations=changed)
        return float(objective(model, model.features(other)[0], other).loss.detach())

    torch.manual_seed(3)
    before = float(objective(model, model.features(batch)[0], batch).loss.detach())
    assert loss(0, LENGTHS[0]) != before
    assert loss(1, LENGTHS[1]) == pytest.approx(before, rel=1e-6)


@pytest.mark.parametrize("name", ["ddqn", "iql", "td3_bc"])
def test_the_target_network_moves_towards_the_model(name: str) -> None:
    model, objective = make_rule(name)
    assert not any(p.requires_grad for p in objective.target.parameters())
    assert not objective.train().target.training
    slow = {n: p.clone() for n, p in objective.target.named_parameters()}
    objective.after_step(model)
    fast = {f"model.{n}": p for n, p in model.named_parameters()}
    fast |= {f"heads.{n}": p for n, p in objective.heads.named_parameters()}
    rate = objective.config.target_rate
    for known, parameter in objective.target.named_parameters():
        expected = (1 - rate) * slow[known] + rate * fast[known]
        torch.testing.assert_close(parameter, expected)


@pytest.mark.parametrize("name", RULES)
def test_a_batch_without_targets_is_finite(name: str) -> None:
    model, objective = make_rule(name)
    batch = make_steps(model, LENGTHS, STEPS)
    empty = replace(batch, mask=torch.zeros_like(batch.mask))
    sums = objective(model, model.features(batch)[0], empty)
    assert sums.loss == 0
    assert sums.weight == 0
    assert all(torch.isfinite(number) for pair in sums.metrics.values() for number in pair)


def test_divergence_is_told() -> None:
    _, objective = make_rule("ddqn")
    objective.largest = 2.0
    assert objective.warning({"value_min": -1.9, "value_max": 2.0}) == ""
    told = objective.warning({"value_min": -1.0, "value_max": 2.5})
    assert "values diverge: those of the data's actions are -1 to 2.5" in told
    assert "more than 2." in told


@pytest.mark.parametrize("backbone", ["rate", "trxl", "dt", "lstm", "elmur_of_observations", "mlp"])
def test_a_cue_before_a_segment_border_changes_later_targets(backbone: str) -> None:
    """Targets come from features that carry memory, if the backbone has one."""
    model, objective = make_rule("cql", backbone)
    batch = make_steps(model, [12], 12)
    assert isinstance(batch.observations, torch.Tensor)
    other = batch.observations.clone()
    other[0, 3] += 1.0  # the last step of the first segment of four
    changed = replace(batch, observations=other)
    found = [objective.target.features(each)[0, 4:] for each in (batch, changed)]
    remembers = backbone != "mlp"
    assert torch.equal(*found) != remembers
    sums = objective(model, model.features(changed)[0], changed)
    sums.loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
