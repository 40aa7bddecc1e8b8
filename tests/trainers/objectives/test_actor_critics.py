"""A2C and V-trace: loops in float64, known values, and ends of episodes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from rate.architecture import make_config
from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import OBSERVATIONS, make_model, make_spec
from tests.trainers.objectives.rules import Chain, make_steps
from trainers.objectives import objective_class, objective_settings
from trainers.objectives.actor_critic import ActorCritic
from trainers.objectives.base import Problem
from trainers.objectives.targets import has_target

LENGTHS, STEPS = [6, 4, 5, 1], 6
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    "monte_carlo": ("a2c", {}),
    "n_step": ("a2c", {"n_step": 2, "entropy_weight": 0.1}),
    "normalised": ("a2c", {"normalise_returns": True, "value_weight": 1.0}),
    "clipped_rewards": ("a2c", {"reward_clip": 0.5}),
    "vtrace": ("vtrace", {}),
    "vtrace_with_other_clips": ("vtrace", {"rho_clip": 1.3, "c_clip": 0.8}),
}


def make_rule(name: str) -> tuple[SequenceModel, ActorCritic[Any]]:
    rule, settings = RULES[name]
    model = make_model("rate", condition_on_return=False)
    config = objective_settings(rule)(critic_width=8, discount=0.9, **settings)
    made = objective_class(rule).make(config, Problem(model, make_spec("vector_to_discrete")))
    assert isinstance(made, ActorCritic)
    return model, made


def steps_of(model: SequenceModel) -> Batch:
    """A row cut by a time limit, one terminated, one cut, and one of a single step."""
    batch = make_steps(model, LENGTHS, STEPS)
    rng = torch.Generator().manual_seed(5)
    return replace(batch, behaviour=-0.5 - torch.rand(4, STEPS, generator=rng))


class Reference:
    """The loss in float64, one row and one step at a time, from the papers' equations."""

    def __init__(self, objective: ActorCritic[Any], model: SequenceModel, batch: Batch) -> None:
        self.config, self.batch = objective.config, batch
        self.head, self.value = model.head.double(), objective.heads["value"].net.double()

    def loss(self, features: Tensor) -> Tensor:
        found = [
            part
            for row, length in enumerate(LENGTHS)
            for part in self.row(features[row], row, length)
        ]
        return torch.stack(found).mean()

    def row(self, features: Tensor, row: int, length: int) -> list[Tensor]:
        batch, config = self.batch, self.config
        terminated = bool(batch.terminated[row, length - 1])
        assert batch.following is not None
        assert batch.behaviour is not None
        # Without an observation to bootstrap from, the last step only serves as one.
        known = length if terminated or bool(batch.following[row].any()) else length - 1
        values = self.value(features)[:, 0]
        log_policy = self.head(features).log_softmax(-1)
        rewards = batch.rewards[row].double()
        if config.reward_clip:
            rewards = rewards.clamp(-config.reward_clip, config.reward_clip)
        chosen = log_policy[torch.arange(STEPS), batch.actions[row]]
        v = [*values.detach().tolist(), 0.0]
        last = [terminated and step == length - 1 for step in range(known)]
        ratios = (chosen.detach() - batch.behaviour[row].double()).exp().tolist()
        goals, advantages = self.estimates(v, rewards.tolist(), last, ratios)
        found = []
        for step in range(known):
            entropy = -(log_policy[step].exp() * log_policy[step]).sum()
            error = goals[step] - values[step]
            found.append(
                -chosen[step] * advantages[step]
                + config.value_weight * 0.5 * error**2
                - config.entropy_weight * entropy
            )
        return found

    def estimates(
        self, v: list[float], r: list[float], last: list[bool], ratios: list[float]
    ) -> Any:
        config, known, gamma = self.config, len(last), self.config.discount
        if hasattr(config, "rho_clip"):
            rho = [min(config.rho_clip, ratio) for ratio in ratios]
            c = [min(config.c_clip, ratio) for ratio in ratios]
            goals = []
            for s in range(known):  # equation 1: a sum of products from s on
                goal, product = v[s], 1.0
                for t in range(s, known):
                    later = 0.0 if last[t] else v[t + 1]
                    goal += gamma ** (t - s) * product * rho[t] * (r[t] + gamma * later - v[t])
                    product *= c[t]
                goals.append(goal)
            after = [*goals, v[known]] if known < len(v) else goals
            nexts = [0.0 if last[t] else after[t + 1] for t in range(known)]
            return goals, [rho[t] * (r[t] + gamma * nexts[t] - v[t]) for t in range(known)]
        goals = []
        for s in range(known):
            goal, t = 0.0, s
            steps = known if config.n_step is None else config.n_step
            while t < known and t - s < steps:
                goal += gamma ** (t - s) * r[t]
                t += 1
            if not last[t - 1]:
                goal += gamma ** (t - s) * v[t]
            goals.append(goal)
        if config.normalise_returns and goals:
            goals = ((np.array(goals) - np.mean(goals)) / max(np.std(goals), 1e-6)).tolist()
        return goals, [goals[s] - v[s] for s in range(known)]


@pytest.mark.parametrize("name", RULES)
def test_gradients_equal_those_of_a_reference_in_float64(name) -> None:
    model, objective = make_rule(name)
    batch = steps_of(model)
    features = model.features(batch)[0].detach().requires_grad_()
    sums = objective(model, features, batch)
    (sums.loss / sums.weight).backward()
    found = [p.grad.double() for p in (*model.head.parameters(), *objective.heads.parameters())]
    double = features.detach().double().requires_grad_()
    reference = Reference(objective, model, batch)
    for parameter in (*reference.head.parameters(), *reference.value.parameters()):
        parameter.grad = None
    loss = reference.loss(double)
    loss.backward()
    torch.testing.assert_close((sums.loss / sums.weight).double(), loss, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(features.grad.double(), double.grad, rtol=1e-4, atol=1e-6)
    expected = [p.grad for p in (*reference.head.parameters(), *reference.value.parameters())]
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["n_step", "vtrace"])
def test_nothing_after_the_first_end_changes_a_row(name) -> None:
    model, objective = make_rule(name)
    batch = steps_of(model)
    features = model.features(batch)[0].detach()
    spoilt = features.clone()
    spoilt[~batch.observed] += 1.0
    later = replace(batch, rewards=batch.rewards + 5.0 * ~batch.mask)
    first, second = objective(model, features, batch), objective(model, spoilt, later)
    torch.testing.assert_close(first.loss, second.loss)
    assert int(first.weight) == int(has_target(batch).sum())


def test_v_trace_on_its_own_policy_is_the_n_step_return() -> None:
    """Espeholt et al. 2018, remark 1: with ratios of 1 the targets are those of A2C."""
    model, vtrace = make_rule("vtrace")
    _, a2c = make_rule("monte_carlo")
    batch = replace(steps_of(model), behaviour=None)
    values, chosen = torch.randn(4, STEPS), -torch.rand(4, STEPS)
    mine, theirs = (rule.estimates(batch, values, chosen) for rule in (vtrace, a2c))
    known = has_target(batch)
    for first, second in zip(mine[:2], theirs[:2], strict=True):
        torch.testing.assert_close(first[known], second[known])


@pytest.mark.parametrize(("rule", "settings"), [("a2c", {"n_step": 3}), ("vtrace", {})])
def test_the_policy_and_the_values_of_a_chain(rule, settings) -> None:
    """On unrolls of its own policy, it goes right, and values are those of going right."""
    torch.manual_seed(0)
    chain, rng = Chain(), np.random.default_rng(0)
    config = make_config(backbone="mlp", d_model=32, context_length=12, **OBSERVATIONS)
    spaces = make_spec("vector_to_discrete")
    model = SequenceModel(config, Discrete(chain.states), Discrete(2))
    made = objective_settings(rule)(critic_width=32, discount=chain.discount, **settings)
    objective = objective_class(rule).make(made, Problem(model, spaces))
    optimizer = torch.optim.Adam([*model.parameters(), *objective.parameters()], 0.01)
    every = torch.arange(chain.states)[:, None]

    def policy() -> tuple[Tensor, Tensor]:
        seen = chain.batch(rng, rows=chain.states)
        seen.observations = every.expand(-1, 12).clone()
        with torch.no_grad():
            features = model.features(seen)[0][:, 0]
            return features, model.head(features).softmax(-1)

    for step in range(250):
        optimizer.param_groups[0]["lr"] = 0.01 * (1 - step / 250)
        batch = chain.batch(rng, right=policy()[1][:, 1].numpy())
        sums = objective(model, model.features(batch)[0], batch)
        optimizer.zero_grad()
        (sums.loss / sums.weight).backward()
        optimizer.step()
    features, probabilities = policy()
    assert (probabilities[:, 1] > 0.9).all()
    expected = chain.discount ** torch.arange(chain.states - 1, -1, -1)
    with torch.no_grad():
        found = objective.heads["value"](features)
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=0.1)
