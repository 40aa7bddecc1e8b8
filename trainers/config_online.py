"""Settings of training in environments: typed and validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from rate.errors import ConfigError
from trainers.checks import at_least, choice

if TYPE_CHECKING:
    from trainers.config import RunConfig

Exploring = Literal["epsilon", "softmax", "gaussian"]
Decay = Literal["linear", "exponential"]
ONLINE, OFFLINE = "online", "offline"


@dataclass(frozen=True)
class OnlineConfig:
    """How a run acts while it learns (`data.source=online`).

    Attributes:
        num_envs: Environments that are acted in side by side. Rules that learn from their own
            policy (`a2c`, `vtrace`) have as many as `training.batch_size` has windows.
        updates: Optimiser steps after each round of unrolls, one unroll of every environment.
        capacity: Unrolls in the replay, of which the oldest is replaced by the newest.
        begin_after: Unrolls in the replay before the first optimiser step.
        stored_state: Whether an unroll that begins in the middle of an episode is learnt from with
            the state that it was acted from; otherwise with the initial state, as in Ni et al.
            2023.
        priority_exponent: How much the replay prefers unrolls with large errors, 0.9 max + 0.1 mean
            of them (Kapturowski et al. 2019); 0 samples all equally often.
        importance_exponent: How much the loss corrects for that preference, in [0, 1].
        exploration: `epsilon`, a random action instead of the best one; `softmax`, a sample of the
            head's distribution; `gaussian` noise on continuous actions. None is the rule's own.
        epsilon: The share of random actions at the beginning.
        final_epsilon: The share at the end of `epsilon_steps`.
        epsilon_steps: Environment steps from one to the other.
        epsilon_decay: How the share falls.
        temperature: Of `softmax`.
        noise: Standard deviation of `gaussian`, in half the range of an action.
        data_share: The share of each batch that comes from the data set of `data.store`, if there
            is one (Ball et al. 2023, "Efficient Online Reinforcement Learning with Offline Data").
    """

    num_envs: int = 16
    updates: int = 1
    capacity: int = 5000
    begin_after: int = 64
    stored_state: bool = True
    priority_exponent: float = 0.0
    importance_exponent: float = 0.4
    exploration: Exploring | None = None
    epsilon: float = 1.0
    final_epsilon: float = 0.05
    epsilon_steps: int = 10_000
    epsilon_decay: Decay = "linear"
    temperature: float = 1.0
    noise: float = 0.1
    data_share: float = 0.5

    def __post_init__(self) -> None:
        if self.exploration is not None:
            choice("online.exploration", self.exploration, Exploring)
        choice("online.epsilon_decay", self.epsilon_decay, Decay)
        for name in ("num_envs", "updates", "capacity", "begin_after", "epsilon_steps"):
            at_least(f"online.{name}", getattr(self, name), 1)
        for name in ("priority_exponent", "noise"):
            at_least(f"online.{name}", getattr(self, name), 0)
        for name in ("epsilon", "final_epsilon", "importance_exponent", "data_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"online.{name} is {getattr(self, name)}; it must be in [0, 1].")
        if not self.temperature > 0:
            raise ConfigError(f"online.temperature is {self.temperature}; it must be above 0.")
        if self.epsilon_decay == "exponential" and not min(self.epsilon, self.final_epsilon) > 0:
            raise ConfigError(
                f"online.epsilon_decay=exponential never reaches 0, and online.epsilon is "
                f"{self.epsilon}, online.final_epsilon {self.final_epsilon}. Set both above 0, or "
                "online.epsilon_decay=linear."
            )
        if self.begin_after > self.capacity:
            raise ConfigError(
                f"online.begin_after={self.begin_after} unrolls never fit into a replay of "
                f"online.capacity={self.capacity}. Lower the one or raise the other."
            )

    def epsilon_at(self, steps: int) -> float:
        """Returns the share of random actions after a number of environment steps."""
        part = min(1.0, steps / self.epsilon_steps)
        if self.epsilon_decay == "exponential":
            return float(self.epsilon * (self.final_epsilon / self.epsilon) ** part)
        return self.epsilon + part * (self.final_epsilon - self.epsilon)


def check_source(run: RunConfig) -> None:
    """Check that the objective and the other settings go with where batches come from.

    Raises:
        ConfigError: If one does not; the message names it and the remedy.
    """
    source, known = run.data.source, run.loss.sources
    if source not in known:
        remedy = "Set --source online."
        if source == ONLINE:
            remedy = (
                "Leave --source online out, or choose a rule that learns from its own actions: "
                "ddqn, r2d2, sac_discrete, a2c, vtrace."
            )
        raise ConfigError(
            f"training.objective={run.training.objective} learns from {known[0]} batches alone, "
            f"and data.source is {source}. {remedy}"
        )
    if source == OFFLINE:
        if run.online != OnlineConfig():
            raise ConfigError(
                "The settings online.* are of training in an environment, and data.source is "
                "offline. Set --source online, or leave them out."
            )
        return
    _check_obstacles(run)
    if run.loss.on_policy:
        _check_on_policy(run)


def _check_obstacles(run: RunConfig) -> None:
    training, burn_in = run.training, getattr(run.loss, "burn_in", 0)
    obstacles = {
        "environment=none: there is nothing to act in. Name an environment (--env)": (
            run.environment == "none"
        ),
        "curriculum.enabled=true, whose stages choose among recorded episodes. Set it to false": (
            run.curriculum.enabled
        ),
        "data.normalise=true: no recorded data tell the mean. Set it to false": (
            run.data.normalise and run.data.store is None
        ),
        f"{training.devices} x {training.nodes} devices: one process acts and learns. Set "
        "training.devices=1": training.devices * training.nodes > 1,
        f"a window of {run.window} step: an unroll holds the observation after its last step as "
        "well. Raise model.context_length": run.window < 2,
        f"loss.burn_in={burn_in}, more than half of an unroll of {run.window - 1} steps. Lower it, "
        "or raise model.context_length": 2 * burn_in > run.window - 1,
        "training.cuda_graphs=always and priorities, which each step tells the replay. Set "
        "online.priority_exponent=0": bool(
            training.cuda_graphs == "always" and run.online.priority_exponent
        ),
    }
    for obstacle, is_there in obstacles.items():
        if is_there:
            raise ConfigError(f"data.source=online does not go with {obstacle}.")


def _check_on_policy(run: RunConfig) -> None:
    online, objective = run.online, f"training.objective={run.training.objective}"
    if run.data.store is not None:
        raise ConfigError(
            f"{objective} learns from the actions of its own policy, not from those in "
            f"{run.data.store}. Leave --data out and begin with weights that were trained on it "
            "(--init RUN), or choose ddqn, r2d2 or sac_discrete."
        )
    if online.exploration not in (None, "softmax") or online.temperature != 1:
        raise ConfigError(
            f"{objective} acts by samples of its policy. Leave online.exploration and "
            "online.temperature out."
        )
    if online.updates > 1 and not run.loss.corrects_for_lag:
        raise ConfigError(
            f"{objective} learns once from each unroll, and online.updates={online.updates}. Set "
            "it to 1, or choose vtrace, which corrects for a policy that has moved on."
        )
