"""Learnt values equal those of dynamic programming."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Discrete
from torch import Tensor

from rate.architecture import make_config
from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import OBSERVATIONS
from tests.trainers.objectives.rules import Chain, rule_of
from trainers.objectives.ddqn import DDQN
from trainers.objectives.targets import unscaled
from trainers.objectives.values import ValueObjective

CHAIN = Chain()


def learn(
    model: SequenceModel, objective: ValueObjective[Any], make: Any, steps: int, rate: float
) -> None:
    """Trains a model on batches of `make()`, with a falling learning rate."""
    parameters = [*model.parameters(), *(p for p in objective.parameters() if p.requires_grad)]
    optimizer = torch.optim.Adam(parameters, rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        sums = objective(model, model.features(batch := make())[0], batch)
        optimizer.zero_grad()
        (sums.loss / sums.weight).backward()
        optimizer.step()
        objective.after_step(model)


def learnt(rule: str, **settings: Any) -> tuple[SequenceModel, ValueObjective[Any], Tensor]:
    """Returns a model without memory after training on the chain, and its features `(S, d)`."""
    torch.manual_seed(0)
    config = make_config(backbone="mlp", d_model=32, context_length=12, **OBSERVATIONS)
    model = SequenceModel(config, Discrete(CHAIN.states), Discrete(2))
    settings = {"discount": CHAIN.discount, "target_rate": 0.2, "critic_width": 32, **settings}
    objective, rng = rule_of(rule, model, **settings), np.random.default_rng(0)
    learn(model, objective, lambda: CHAIN.batch(rng), 200, 0.015)
    with torch.no_grad():
        batch = CHAIN.batch(rng, rows=CHAIN.states)
        batch.observations = torch.arange(CHAIN.states)[:, None].expand(-1, 12).clone()
        return model, objective, model.features(batch)[0][:, 0]


def test_q_learning_finds_the_optimal_values_of_a_chain() -> None:
    """The time limit of the data does not matter: its truncated episodes are bootstrapped."""
    model, objective, features = learnt("ddqn", rescale_values=True, dueling=True)
    assert isinstance(objective, DDQN)
    with torch.no_grad():
        found = objective.action_values(model.head, objective.heads, features)
    torch.testing.assert_close(unscaled(found).double(), CHAIN.optimal(), rtol=0, atol=0.03)


def test_conservative_values_of_a_chain() -> None:
    model, _, features = learnt("cql", conservative_weight=0.5)
    with torch.no_grad():
        found = model.head(features).double()
    expected = CHAIN.conservative(0.5)
    assert (expected - CHAIN.optimal()).abs().max() > 0.06
    torch.testing.assert_close(found, expected, rtol=0, atol=0.03)


def test_implicit_values_of_a_chain() -> None:
    """With the expectile 0.5 they are those of the policy of the data."""
    _, objective, features = learnt("iql", expectile=0.5)
    with torch.no_grad():
        found = objective.heads["value"](features).double()
    expected = CHAIN.of_random_policy().mean(1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.06)


def test_soft_values_of_a_chain() -> None:
    model, objective, features = learnt("sac_discrete", entropy_weight=0.1)
    with torch.no_grad():
        found = objective.heads["critic"](features).mean(0).double()
        policy = model.head(features).softmax(-1).double()
    expected = CHAIN.optimal(temperature=0.1)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.04)
    torch.testing.assert_close(policy, (expected / 0.1).softmax(-1), rtol=0, atol=0.15)


# A cue at the first of five steps, and nothing to see afterwards. At the last step the action must
# be the cue: the reward is 1, otherwise -1. Segments have two steps, so that the cue is two
# segments away.
STEPS, GAMMA = 5, 0.9


def cue_batch(rng: np.random.Generator, rows: int = 64) -> Batch:
    actions = torch.from_numpy(rng.integers(0, 2, (rows, STEPS)))
    cue = torch.from_numpy(rng.integers(0, 2, rows))
    observations = torch.full((rows, STEPS), 2)
    observations[:, 0] = cue
    last = torch.zeros(rows, STEPS, dtype=torch.bool)
    last[:, -1] = True
    right = torch.where(actions[:, -1] == cue, 1.0, -1.0)
    return Batch(
        observations=observations,
        actions=actions,
        returns_to_go=torch.zeros(rows, STEPS, 1),
        timesteps=torch.arange(STEPS).expand(rows, -1),
        mask=torch.ones(rows, STEPS, dtype=torch.bool),
        rewards=right[:, None] * last,
        terminated=last,
        truncated=torch.zeros_like(last),
        following=torch.zeros_like(last),
    )


def test_values_of_a_pomdp_need_and_use_memory() -> None:
    torch.manual_seed(0)
    config = make_config(
        backbone="gru", tokenizer="pairs", d_model=32, context_length=2, condition_on_return=False
    )
    model = SequenceModel(config, Discrete(3), Discrete(2))
    objective = rule_of("ddqn", model, discount=GAMMA, target_rate=0.2)
    rng = np.random.default_rng(0)
    learn(model, objective, lambda: cue_batch(rng), 250, 0.015)
    batch = cue_batch(rng)
    with torch.no_grad():
        values = model.head(model.features(batch)[0])  # (B, T, 2)
    for step in range(STEPS - 1):  # both actions lead to the right answer
        expected = torch.full_like(values[:, step], GAMMA ** (STEPS - 1 - step))
        torch.testing.assert_close(values[:, step], expected, rtol=0, atol=0.06)
    cue = batch.observations[:, 0]  # type: ignore[index]
    told = torch.nn.functional.one_hot(cue, 2) * 2.0 - 1
    torch.testing.assert_close(values[:, -1], told, rtol=0, atol=0.06)
