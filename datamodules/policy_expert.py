"""Policies of others as experts: those of stable-baselines3, or any function of an observation."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.collector import Collector, Expert
from rate.errors import ConfigError
from rate.registry import import_path


class LastObservation(gymnasium.Wrapper[Any, Any, Any, Any]):
    """Keeps the last observation, which a policy acts on.

    Attributes:
        observation: That one.
    """

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        self.observation, info = self.env.reset(**options)
        return self.observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        return self.observation, reward, terminated, truncated, info


class PolicyExpert:
    """An expert that does what a policy says of the last observation alone.

    Args:
        policy: Has stable-baselines3's `predict(observation, state, episode_start, deterministic)`,
            or is called with an observation and returns an action.
    """

    def __init__(self, policy: Any) -> None:
        self._policy = policy

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Begin an episode of a `LastObservation`."""
        self._env: Any = env
        self._state: Any = None
        self._is_start = True

    def act(self) -> Any:
        """The policy's action; its most probable one, if it draws them."""
        observation = self._env.observation
        if hasattr(self._policy, "predict"):
            action, self._state = self._policy.predict(
                observation,
                state=self._state,
                episode_start=np.array([self._is_start]),
                deterministic=True,
            )
        else:
            action = self._policy(observation)
        self._is_start = False
        return int(action) if isinstance(self._env.action_space, spaces.Discrete) else action


def find_expert(reference: str, noise: float = 0.0) -> Expert:
    """The expert of an import path.

    Args:
        reference: `my_package.policies:name`, of an `Expert`, a policy (see `PolicyExpert`), or a
            class or function without arguments that makes one of them.
        noise: Given to a class or function with an argument of this name.

    Raises:
        ConfigError: If there is none.
    """
    found: Any = import_path(reference, "expert")
    if inspect.isclass(found) or (inspect.isroutine(found) and not _needs_arguments(found)):
        make: Any = found
        found = make(noise=noise) if _takes_noise(make) else make()
    if hasattr(found, "reset") and hasattr(found, "act"):
        expert: Expert = found
        return expert
    if hasattr(found, "predict") or callable(found):
        return PolicyExpert(found)
    raise ConfigError(
        f"expert={reference} is {found!r}; it must be a policy with predict() as "
        "stable-baselines3's have, a function from an observation to an action, an expert with "
        "reset(env, seed) and act(), or a function without arguments that makes one of these."
    )


def make_policy_collector(
    make_env: Callable[[], gymnasium.Env[Any, Any]], reference: str, noise: float = 0.0
) -> Collector:
    """A collector whose expert is found by an import path; see `find_expert`."""
    return Collector(lambda: LastObservation(make_env()), lambda: find_expert(reference, noise))


def _needs_arguments(function: Callable[..., Any]) -> bool:
    return any(
        parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        for parameter in inspect.signature(function).parameters.values()
    )


def _takes_noise(function: Callable[..., Any]) -> bool:
    return "noise" in inspect.signature(function).parameters
