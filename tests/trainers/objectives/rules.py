"""Every learning rule with values on tiny models, and problems whose values are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import make_batch, make_model, make_spec
from trainers.objectives import objective_class, objective_settings
from trainers.objectives.base import Problem
from trainers.objectives.values import ValueObjective

# Each rule, settings of it, and the spaces of its actions.
RULES: dict[str, tuple[str, dict[str, Any], str]] = {
    "ddqn": ("ddqn", {"n_step": 2}, "vector_to_discrete"),
    "dueling": ("ddqn", {"dueling": True}, "bits_to_started"),
    "r2d2": ("r2d2", {"n_step": 3, "burn_in": 2}, "vector_to_discrete"),
    "cql": ("cql", {"conservative_weight": 0.5}, "vector_to_discrete"),
    "continuous_cql": ("cql", {"num_samples": 3}, "matrix_to_bounded"),
    "iql": ("iql", {"policy_weight": 0.5}, "vector_to_discrete"),
    "multi_discrete_iql": ("iql", {}, "scalar_to_multi_discrete"),
    "unbounded_iql": ("iql", {"n_step": 2}, "discrete_to_unbounded"),
    "td3_bc": ("td3_bc", {"n_step": 2}, "matrix_to_bounded"),
    "sac_discrete": ("sac_discrete", {"n_step": 2}, "vector_to_discrete"),
    "unfrozen_sac": ("sac_discrete", {"freeze_critic": False}, "vector_to_discrete"),
}


def make_rule(name: str, backbone: str = "rate") -> tuple[SequenceModel, ValueObjective[Any]]:
    """Returns a tiny model and a rule whose target network is another one."""
    rule, settings, spaces = RULES[name]
    model = make_model(backbone, spaces, condition_on_return=False)
    objective = rule_of(rule, model, spaces, critic_width=8, **settings)
    with torch.no_grad():
        for parameter in objective.target.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, objective


def rule_of(
    rule: str, model: SequenceModel, spaces: str = "vector_to_discrete", **settings: Any
) -> ValueObjective[Any]:
    """Returns a rule for a model."""
    config = objective_settings(rule)(**settings)
    made = objective_class(rule).make(config, Problem(model, make_spec(spaces)))
    assert isinstance(made, ValueObjective)
    return made


def make_steps(model: SequenceModel, lengths: list[int], steps: int, seed: int = 0) -> Batch:
    """Returns random steps; odd rows are terminated, even ones truncated and followed, if room.

    Rows from the third on begin in the middle of an episode.
    """
    batch = make_batch(model, lengths, steps, seed)
    places, long = torch.arange(steps), torch.tensor(lengths)[:, None]
    batch.following = (places == long) & batch.truncated.any(1, keepdim=True)
    batch.timesteps = places + 3 * (torch.arange(len(lengths)) >= 2)[:, None]
    return batch


class Chain:
    """Ten states in a row; the last action of the last state is rewarded, and ends the episode.

    Actions 0 and 1 go left and right. Episodes start anywhere and are truncated after some steps.
    """

    states, discount = 10, 0.8

    def optimal(self, temperature: float = 0.0) -> Tensor:
        """Returns the optimal values, `(S, A)`, by value iteration; soft with a temperature."""
        values = torch.zeros(self.states, 2, dtype=torch.float64)
        for _ in range(500):
            best = values.amax(1)
            if temperature:
                best = temperature * (values / temperature).logsumexp(1)
            values = self.backup(best)
        return values

    def of_random_policy(self) -> Tensor:
        """Returns the values of the random policy, `(S, A)`."""
        values = torch.zeros(self.states, 2, dtype=torch.float64)
        for _ in range(500):
            values = self.backup(values.mean(1))
        return values

    def conservative(self, weight: float) -> Tensor:
        """Returns the values of CQL on random data, `(S, A)`.

        Where the gradient of `1/2 sum_a (Q - G)^2 + weight (logsumexp Q - 1/2 sum_a Q)` is 0.
        """
        values = torch.zeros(self.states, 2, dtype=torch.float64)
        for _ in range(500):
            push = weight * (values.softmax(1) - 0.5)
            values = 0.5 * values + 0.5 * (self.backup(values.amax(1)) - push)
        return values

    def backup(self, values: Tensor) -> Tensor:
        """Returns `r + γ V(s')` of both actions, `(S, A)`, from the values of states `(S,)`."""
        states = torch.arange(self.states)
        left = self.discount * values[(states - 1).clamp(min=0)]
        right = self.discount * values[(states + 1).clamp(max=self.states - 1)]
        right[-1] = 1.0
        return torch.stack((left, right), 1)

    def batch(
        self, rng: np.random.Generator, rows: int = 64, steps: int = 12, right: Any = None
    ) -> Batch:
        """Returns episodes of `steps - 1` steps at most.

        Args:
            rng: Of states and actions.
            rows: Episodes.
            steps: Columns.
            right: `(S,)`, how probably the policy goes right; None acts at random.
        """
        state = rng.integers(0, self.states, rows)
        actions = rng.integers(0, 2, (rows, steps))
        seen = np.zeros((rows, steps), np.int64)
        ended = np.zeros((rows, steps), bool)
        for step in range(steps):
            seen[:, step] = state
            if right is not None:
                actions[:, step] = rng.random(rows) < right[state]
            ended[:, step] = (state == self.states - 1) & (actions[:, step] == 1)
            moved = state + 2 * actions[:, step] - 1
            state = np.clip(moved, 0, self.states - 1)
        before = np.cumsum(ended, axis=1) - ended  # ends before a step
        mask = (before == 0) & (np.arange(steps) < steps - 1)
        terminated = ended & mask
        truncated = np.zeros_like(mask)
        truncated[:, -2] = mask[:, -2] & ~terminated[:, -2]
        following = np.zeros_like(mask)
        following[:, -1] = truncated[:, -2]
        tensors = map(torch.from_numpy, (seen, actions, mask, terminated, truncated, following))
        observations, actions_, mask_, terminated_, truncated_, following_ = tensors
        return Batch(
            observations=observations,
            actions=actions_,
            returns_to_go=torch.zeros(rows, steps, 1),
            timesteps=torch.arange(steps).expand(rows, -1),
            mask=mask_,
            rewards=terminated_.float(),
            terminated=terminated_,
            truncated=truncated_,
            following=following_,
        )
