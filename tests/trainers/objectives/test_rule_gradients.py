"""The loss and the gradient of each learning rule equal those of a float64 reference with loops."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.model import SequenceModel
from tests.trainers.objectives.rules import make_rule, make_steps
from trainers.objectives.targets import n_step_targets, rescaled, unscaled
from trainers.objectives.values import ValueObjective

LENGTHS, STEPS, SEED = [6, 4, 5, 1], 6, 7
EPSILON = 0.01


def squash(x: Tensor) -> Tensor:
    """R2D2's scale."""
    return x.sign() * ((x.abs() + 1).sqrt() - 1) + EPSILON * x


def unsquash(x: Tensor) -> Tensor:
    """Its inverse, by bisection."""
    low, high = torch.full_like(x, -1e4), torch.full_like(x, 1e4)
    for _ in range(100):
        middle = (low + high) / 2
        below = squash(middle) < x
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


class Reference:
    """A rule in float64, one step at a time.

    Args:
        objective: The rule.
        model: The model.
        features: `(B, T, d)` in float64, with a gradient.
        batch: The steps.
    """

    def __init__(
        self, objective: ValueObjective[Any], model: SequenceModel, features: Tensor, batch: Batch
    ) -> None:
        self.config, self.batch, self.features = objective.config, batch, features
        self.head = copy.deepcopy(model.head).double()
        self.heads = copy.deepcopy(objective.heads).double()
        self.later_head = copy.deepcopy(objective.target.model.head).double()
        self.later_heads = copy.deepcopy(objective.target.heads).double()
        self.later = objective.target.features(batch).double()  # (B, T, d)
        self.rewards = batch.rewards.double()

    def mean_loss(self, loss: Callable[[int, int, Tensor], Tensor], first: int = 0) -> Tensor:
        """Returns the mean over the steps with a target of `loss(row, step, target)`."""
        found = []
        for row, length in enumerate(LENGTHS):
            inside = bool(self.batch.timesteps[row, 0] > 0)  # a burn-in is of such windows
            for step in range(first if inside else 0, length):
                target = self.target(row, step)
                if target is not None:
                    found.append(loss(row, step, target))
        assert found
        return torch.stack(found).mean()

    def target(self, row: int, step: int) -> Tensor | None:
        """Returns the n-step target of a step; None if it has none."""
        length = LENGTHS[row]
        terminated = bool(self.batch.terminated[row, length - 1])
        assert self.batch.following is not None
        last = length - 1 + int(self.batch.following[row].any())  # last observation
        if step >= last and not terminated:
            return None
        total, factor = torch.zeros((), dtype=torch.float64), 1.0
        for _ in range(self.config.n_step):
            if not terminated and step == last:
                break
            total = total + factor * self.rewards[row, step]
            factor *= self.config.discount
            step += 1
            if terminated and step == length:
                return total
        with torch.no_grad():
            return total + factor * self.value(row, step)

    def value(self, row: int, step: int) -> Tensor:
        raise NotImplementedError

    def critic(self, features: Tensor, *actions: Tensor, later: bool = False) -> Tensor:
        """Returns the two values of one step."""
        nets = (self.later_heads if later else self.heads)["critic"].nets
        return torch.stack([net(torch.cat((features, *actions))) for net in nets])

    def chosen(self, row: int, step: int) -> int:
        return int(self.batch.actions[row, step]) - int(getattr(self.head, "start", 0))


class QReference(Reference):
    def q(self, head: nn.Module, heads: Any, features: Tensor) -> Tensor:
        values: Tensor = head.linear(features)
        if getattr(self.config, "dueling", False):
            values = values - values.mean() + heads["value"].net(features)[0]
        return values

    def value(self, row: int, step: int) -> Tensor:
        best = self.q(self.head, self.heads, self.features[row, step]).argmax()
        found = self.q(self.later_head, self.later_heads, self.later[row, step])[best]
        return unsquash(found) if self.config.rescale_values else found

    def loss(self) -> Tensor:
        def one(row: int, step: int, target: Tensor) -> Tensor:
            values = self.q(self.head, self.heads, self.features[row, step])
            chosen = values[self.chosen(row, step)]
            scaled = squash(target) if self.config.rescale_values else target
            loss = (chosen - scaled) ** 2
            if weight := getattr(self.config, "conservative_weight", 0.0):
                loss = loss + weight * (values.exp().sum().log() - chosen)
            return loss

        return self.mean_loss(one, self.config.burn_in)


class IQLReference(Reference):
    def value(self, row: int, step: int) -> Tensor:
        found: Tensor = self.heads["value"].net(self.features[row, step])[0]
        return found

    def loss(self) -> Tensor:
        def one(row: int, step: int, target: Tensor) -> Tensor:
            features, chosen = self.features[row, step], self.chosen(row, step)
            both = self.critic(features)[:, chosen]
            least = self.critic(self.later[row, step], later=True)[:, chosen].min().detach()
            u = least - self.heads["value"].net(features)[0]
            tau = self.config.expectile if u >= 0 else 1 - self.config.expectile
            weight = min(math.exp(self.config.temperature * u.item()), self.config.most_weight)
            log_policy = self.head.linear(features).log_softmax(0)[chosen]
            td = ((both - target) ** 2).sum()
            return td + tau * u**2 - self.config.policy_weight * weight * log_policy

        return self.mean_loss(one)


class SACReference(Reference):
    def value(self, row: int, step: int) -> Tensor:
        policy = self.head.linear(self.features[row, step]).softmax(0)
        least = self.critic(self.later[row, step], later=True).min(0).values
        return (policy * (least - self.config.entropy_weight * policy.log())).sum()

    def loss(self) -> Tensor:
        def one(row: int, step: int, target: Tensor) -> Tensor:
            features = self.features[row, step]
            both = self.critic(features)
            policy, least = self.head.linear(features).softmax(0), both.min(0).values
            if self.config.freeze_critic:
                least = least.detach()
            actor = (policy * (self.config.entropy_weight * policy.log() - least)).sum()
            return 0.5 * ((both[:, self.chosen(row, step)] - target) ** 2).sum() + actor

        return self.mean_loss(one)


class TD3Reference(Reference):
    """Without noise on the actions of targets."""

    def unit(self, actions: Tensor) -> Tensor:
        found: Tensor = (actions - self.head.centre) / self.head.unit
        return found

    def value(self, row: int, step: int) -> Tensor:
        features = self.later[row, step]
        action = self.later_head.linear(features).tanh()
        return self.critic(features, action, later=True).min()

    def loss(self) -> Tensor:
        acted: list[Tensor] = []
        weights = self.heads["critic"].nets[0]
        still = copy.deepcopy(weights).requires_grad_(False)

        def of_policy(row: int, step: int, target: Tensor) -> Tensor:
            features = self.features[row, step]
            both = (features.detach(), self.head.linear(features).tanh())
            acted.append(still(torch.cat(both))[0])
            return acted[-1].abs().detach()

        mean = self.mean_loss(of_policy)
        values = iter(acted)

        def one(row: int, step: int, target: Tensor) -> Tensor:
            features = self.features[row, step]
            action = self.unit(self.batch.actions[row, step].double())
            td = ((self.critic(features, action)[:, 0] - target) ** 2).sum()
            cloned = ((self.head.linear(features).tanh() - action) ** 2).mean()
            return td + cloned - self.config.value_weight / mean * next(values)

        return self.mean_loss(one)


class ContinuousCQLReference(Reference):
    """Of actions in half their range; draws the noise that the rule draws."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        objective = given[0]
        self.log_temperature = objective.log_temperature.detach().double().requires_grad_()
        self.count, size = self.config.num_samples, objective.num_actions
        shape = (len(LENGTHS), STEPS, size)
        torch.manual_seed(SEED)
        self.noise = torch.randn(shape).double()
        self.noises = torch.randn(self.count, *shape).double()
        self.uniform = torch.rand(self.count, *shape).double() * 2 - 1

    def sample(self, row: int, step: int, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Returns an action of the policy and the logarithm of its density."""
        features = self.features[row, step]
        log_std = self.heads["log_std"](features).clamp(-5, 2)
        normal = torch.distributions.Normal(self.head.linear(features), log_std.exp())
        raw = normal.loc + normal.scale * noise
        return raw.tanh(), (normal.log_prob(raw) - (1 - raw.tanh() ** 2).log()).sum()

    def value(self, row: int, step: int) -> Tensor:
        action, _ = self.sample(row, step, self.noise[row, step])
        return self.critic(self.later[row, step], action, later=True).min()

    def loss(self) -> Tensor:
        still = copy.deepcopy(self.heads["critic"]).requires_grad_(False)

        def one(row: int, step: int, target: Tensor) -> Tensor:
            features = self.features[row, step]
            action = self.head.encode(self.batch.actions.double())[row, step]
            both = self.critic(features, action)[:, 0]
            weighed = []  # Q - log density of actions, of both networks
            for number in range(self.count):
                with torch.no_grad():
                    acted, density = self.sample(row, step, self.noises[number, row, step])
                flat = torch.tensor(0.5 ** action.numel()).double().log()
                for sampled, log in ((acted, density), (self.uniform[number, row, step], flat)):
                    weighed.append(self.critic(features, sampled)[:, 0] - log)
            every = torch.stack(weighed).exp().mean(0).log()
            acted, density = self.sample(row, step, self.noise[row, step])
            inputs = torch.cat((features.detach(), acted))
            least = torch.stack([net(inputs)[0] for net in still.nets]).min()
            entropy_gap = (density - action.numel()).detach()
            return (
                ((both - target) ** 2).sum()
                + self.config.conservative_weight * (every - both).sum()
                + self.log_temperature.exp().detach() * density
                - least
                - self.log_temperature * entropy_gap
            )

        return self.mean_loss(one)


REFERENCES: dict[str, type[Any]] = {
    "ddqn": QReference,
    "dueling": QReference,
    "r2d2": QReference,
    "cql": QReference,
    "iql": IQLReference,
    "sac_discrete": SACReference,
    "unfrozen_sac": SACReference,
    "td3_bc": TD3Reference,
    "continuous_cql": ContinuousCQLReference,
}


@pytest.mark.parametrize("name", REFERENCES)
def test_gradients_equal_those_of_the_reference(name: str, monkeypatch) -> None:
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    model, objective = make_rule(name)
    batch = make_steps(model, LENGTHS, STEPS)
    features = model.features(batch)[0].detach().requires_grad_()
    torch.manual_seed(SEED)
    sums = objective(model, features, batch)
    (sums.loss / sums.weight).backward()
    double = features.detach().double().requires_grad_()
    reference = REFERENCES[name](objective, model, double, batch)
    loss = reference.loss()
    loss.backward()
    torch.testing.assert_close((sums.loss / sums.weight).double(), loss, rtol=1e-5, atol=1e-6)
    assert features.grad is not None
    torch.testing.assert_close(features.grad.double(), double.grad, rtol=1e-4, atol=1e-6)
    for mine, other in ((model.head, reference.head), (objective.heads, reference.heads)):
        pairs = zip(mine.named_parameters(), other.parameters(), strict=True)
        for (_, weight), expected in pairs:
            assert weight.grad is not None
            torch.testing.assert_close(weight.grad.double(), expected.grad, rtol=1e-4, atol=1e-6)
    if name == "continuous_cql":
        mine, expected = objective.log_temperature.grad, reference.log_temperature.grad
        torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-6)


def test_the_scale_of_values_is_inverted() -> None:
    x = torch.linspace(-300, 300, 61)
    torch.testing.assert_close(rescaled(x).double(), squash(x.double()), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(unscaled(rescaled(x)), x, rtol=1e-3, atol=1e-3)


def test_targets_stop_at_the_end_of_the_episode() -> None:
    """One row is terminated after three steps, one is truncated, one is cut by the window."""
    model, _ = make_rule("ddqn")
    batch = make_steps(model, [4, 3, 4], 5)
    batch.truncated[2] = False
    assert batch.following is not None
    batch.following[2] = False
    batch.rewards = torch.ones(3, 5)
    values = torch.full((3, 5), 10.0)
    found = n_step_targets(batch, values, 0.5, 2)
    torch.testing.assert_close(found[0, :4], torch.tensor([4.0, 4.0, 4.0, 6.0]))
    torch.testing.assert_close(found[1, :3], torch.tensor([4.0, 1.5, 1.0]))
    torch.testing.assert_close(found[2, :3], torch.tensor([4.0, 4.0, 6.0]))
