"""Collectors: an environment and an expert that plays complete episodes in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Generic, Protocol, TypeVar, cast

import gymnasium
import numpy as np

from datamodules.episodes import (
    Array,
    DatasetError,
    Episode,
    from_items,
    observation_items,
    observation_spaces,
    validate_episode,
)
from rate.envs.outcomes import ORACLE_ACTION
from rate.envs.spec import EnvironmentSpec

E = TypeVar("E")
_FIRST_ROWS = 128


# The seeds of collected episodes start here, so that they are disjoint from small evaluation seeds.
# Each data seed has its own range.
FIRST_SEED, SEEDS_EACH = 1 << 40, 1 << 36


def expert_seeds(num_episodes: int, seed: int) -> range:
    """Returns the seeds of a data set's episodes; `seed` selects the data set."""
    first = FIRST_SEED + seed * SEEDS_EACH
    return range(first, first + num_episodes)


def probability(noise: float) -> float:
    """Returns the noise of an expert, after checking it.

    Raises:
        ValueError: If it is not a probability.
    """
    if not 0 <= noise <= 1:
        raise ValueError(f"noise is {noise}; a probability is in [0, 1]")
    return noise


class Expert(Protocol):
    """A policy that may read the true state of its environment.

    Its actions depend on the episode and the seed alone, so that an episode can be reproduced.
    """

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Start an episode; `env` was reset with `seed`, which also seeds the expert's noise."""

    def act(self) -> Any:
        """Returns the action for the current state of the environment."""


class NoisyExpert(Generic[E]):
    """Base of experts that play one kind of environment, with a probability of random actions.

    Args:
        noise: See the expert.

    Raises:
        ValueError: If `noise` is no probability.
    """

    plays: ClassVar[type]  # the class of the environment

    def __init__(self, noise: float = 0.0) -> None:
        self._noise = probability(noise)

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Starts the episode that `env` was or will be reset to; `seed` decides the noise.

        Raises:
            TypeError: If it is another environment.
        """
        self._env = cast(E, env.unwrapped)
        if not isinstance(self._env, self.plays):
            found = type(self._env).__name__
            raise TypeError(f"the expert plays {self.plays.__name__}, not {found}")
        self._random = np.random.default_rng([seed, 1])  # not the stream of the environment


class RandomExpert:
    """The random baseline: samples actions from the action space."""

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        self._space = env.action_space
        self._space.seed(seed % (1 << 32))

    def act(self) -> Any:
        return self._space.sample()


class Collector:
    """Plays episodes of an environment with an expert, and records them.

    Args:
        make_env: Makes the environment.
        make_expert: Makes the expert.
    """

    def __init__(
        self,
        make_env: Callable[[], gymnasium.Env[Any, Any]],
        make_expert: Callable[[], Expert],
    ) -> None:
        self._env = make_env()
        self._expert = make_expert()

    def collect(self, seed: int, on_step: Callable[[], None] | None = None) -> Episode:
        """Play one episode to its end.

        Args:
            seed: The seed of the environment and the expert, which determines the episode.
            on_step: Called after the reset and every step.

        Returns:
            The episode of `T` steps, with the observation after the last action. Its outcome is the
            numbers in the environment's last `info`.

        Raises:
            DatasetError: If an observation, action or reward does not have the shape of its space.
        """
        env, expert = self._env, self._expert
        spaces = observation_spaces(env.observation_space)
        seen = {key: _Rows(space, key) for key, space in spaces.items()}
        actions, rewards = _Rows(env.action_space, "action"), _Rows(_REWARD, "reward")
        observation, info = env.reset(seed=seed)
        expert.reset(env, seed)
        terminated = truncated = False
        while True:
            for key, value in observation_items(observation).items():
                seen[key].append(value)
            if on_step is not None:
                on_step()
            if terminated or truncated:
                break
            action = expert.act()
            observation, reward, terminated, truncated, info = env.step(action)
            actions.append(action)
            rewards.append(reward)
        frames = {key: rows.get() for key, rows in seen.items()}
        return Episode(
            observations=from_items({key: array[:-1] for key, array in frames.items()}),
            actions=actions.get(),
            rewards=rewards.get(),
            terminated=bool(terminated),
            truncated=bool(truncated),
            seed=seed,
            last_observation=from_items({key: array[-1].copy() for key, array in frames.items()}),
            outcome=_numbers(info),
        )

    def close(self) -> None:
        """Close the environment."""
        self._env.close()


class InvalidEpisode(Exception):
    """An episode that no data set may have."""


class EpisodeTask:
    """Collects the episode of a seed: a task for `rate.workers.tasks.run_tasks`.

    Args:
        make_collector: Makes the collector.
        keep: Returns the part of an episode that is the result; by default the whole episode.
        spec: What episodes must be valid for; None does not check them.
    """

    def __init__(
        self,
        make_collector: Callable[[], Collector],
        keep: Callable[[Episode], Any] = lambda episode: episode,
        spec: EnvironmentSpec | None = None,
    ) -> None:
        self._collector, self._keep, self._spec = make_collector(), keep, spec

    def __call__(self, seed: int, beat: Callable[[], None]) -> Any:
        """Returns the part of the episode of a seed.

        Raises:
            InvalidEpisode: If a value is not finite or not of its space; it may be tried again.
        """
        try:
            episode = self._collector.collect(seed, beat)
            if self._spec is not None:
                validate_episode(episode, self._spec, self._spec.name, seed)
        except DatasetError as error:
            raise InvalidEpisode(str(error)) from None
        return self._keep(episode)

    def close(self) -> None:
        """Close the environment."""
        self._collector.close()


_REWARD = gymnasium.spaces.Box(-np.inf, np.inf, (), np.float64)


class _Rows:
    """A growing array `(n, *shape)` of elements of a space."""

    def __init__(self, space: gymnasium.Space[Any], name: str) -> None:
        self._name, self._shape = name or "observation", tuple(space.shape or ())
        self._array: Array = np.empty((_FIRST_ROWS, *self._shape), dtype=space.dtype)
        self._count = 0

    def append(self, value: Any) -> None:
        if np.shape(value) != self._shape:  # NumPy would broadcast it
            raise DatasetError(
                f"the {self._name} of step {self._count} has shape {np.shape(value)}, but its "
                f"space has {self._shape}"
            )
        if self._count == len(self._array):
            self._array = np.concatenate([self._array, np.empty_like(self._array)])
        self._array[self._count] = value
        self._count += 1

    def get(self) -> Array:
        return self._array[: self._count]


def _numbers(info: dict[str, Any]) -> dict[str, float]:
    """Returns the outcomes in `info`: numbers and Booleans, as floats."""
    arrays = {key: np.asarray(value) for key, value in info.items() if key != ORACLE_ACTION}
    return {
        key: float(array)
        for key, array in arrays.items()
        if array.ndim == 0 and array.dtype.kind in "biuf"
    }
