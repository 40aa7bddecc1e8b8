"""Timing of rollouts: many episodes at once against one that recomputes its window."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from datamodules.episodes import Array
from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import RIGHT, TMazeVector
from rate.model import SequenceModel
from rate.policy import Policy
from scripts.benchmarks.baselines import FullWindowPolicy
from scripts.benchmarks.data import draw
from scripts.benchmarks.rows import Row, Subject, Task
from scripts.benchmarks.timing import one_thread, peak_memory, time_calls
from trainers.registry import get_environment

FULL_WINDOW = "one environment, full window"
RAW = "raw simulator, random actions"
_LONG = 1_000_000  # no episode ends while it is timed
_STORED = 8  # different observations of a synthetic environment
_PIECE = 20  # simulator steps that are timed as one


class SyntheticVector:
    """Rows that show noise and never end: an environment that costs nothing.

    Args:
        spec: What is seen.
        num_envs: Rows.
    """

    def __init__(self, spec: EnvironmentSpec, num_envs: int) -> None:
        rng, space = np.random.default_rng(0), spec.observation_space
        self._stored = itertools.cycle([draw(space, num_envs, rng) for _ in range(_STORED)])
        self.num_envs = num_envs
        self._rewards, self._flags = np.zeros(num_envs), np.zeros(num_envs, dtype=bool)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        return next(self._stored), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        return next(self._stored), self._rewards, self._flags, self._flags, {}

    def close(self) -> None:
        """Nothing is open."""


class Corridor:
    """T-Mazes too long to end, whose rows go right whatever they are told.

    Args:
        num_envs: Rows.
    """

    def __init__(self, num_envs: int) -> None:
        self._env = TMazeVector(num_envs, _LONG)
        self.num_envs = num_envs
        self._right = np.full(num_envs, RIGHT)

    def reset(self, **arguments: Any) -> tuple[Array, dict[str, Any]]:
        return self._env.reset(**arguments)

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        return self._env.step(self._right)

    def close(self) -> None:
        self._env.close()


class Play:
    """An endless rollout: a row whose episode is over begins another one.

    Args:
        env: A vector environment without autoreset.
        choose: The actions for observations and rewards (None at the first step).
        begin: Told which rows `(N,)` bool begin an episode.
    """

    def __init__(
        self,
        env: Any,
        choose: Callable[[Any, Array | None], Array],
        begin: Callable[[Array], None] | None = None,
    ) -> None:
        self._env, self._choose, self._begin = env, choose, begin
        self._seed = itertools.count(0, env.num_envs)
        observations, _ = env.reset(seed=self._seeds())
        self._actions = choose(observations, None)

    def steps(self, count: int) -> None:
        """Go on for a number of steps in every row."""
        for _ in range(count):
            observations, rewards, terminated, truncated, info = self._env.step(self._actions)
            over = np.asarray(terminated | truncated)
            fresh = over | np.asarray(info.get("restarted", np.zeros_like(over)), dtype=bool)
            if over.any():
                options = {"reset_mask": over}
                observations, _ = self._env.reset(seed=self._seeds(), options=options)
            if fresh.any() and self._begin is not None:
                self._begin(fresh)
            self._actions = self._choose(observations, rewards)

    def _seeds(self) -> list[int]:
        first = next(self._seed)
        return list(range(first, first + self._env.num_envs))


def synthetic_env(spec: EnvironmentSpec, num_envs: int) -> Any:
    """An environment that costs next to nothing: the T-Maze itself, or noise of the right shape."""
    return Corridor(num_envs) if spec.name == "tmaze" else SyntheticVector(spec, num_envs)


def make_play(subject: Subject, model: SequenceModel, env: Any) -> Play:
    """Our rollout of a model in an environment."""
    evaluation = subject.run.evaluation
    policy = Policy(
        model,
        num_envs=env.num_envs,
        target_return=subject.configuration.spec.target_return,
        exact_window=evaluation.exact_window,
    )
    return Play(env, policy.act, policy.reset)


def rollout_tasks(subject: Subject) -> Iterator[Task]:
    """Acting in an environment that costs nothing."""
    yield Task(FULL_WINDOW, lambda budget: _full_window(subject, budget))
    yield Task("ours", lambda budget: time_rollout(subject, budget))


def time_rollout(subject: Subject, budget: float) -> Row:
    """Our rollout, timed a segment at a time."""
    steps = subject.configuration.model.context_length
    with one_thread(subject.device), peak_memory(subject.device) as peak:
        env = synthetic_env(subject.configuration.spec, subject.rows)
        play = make_play(subject, subject.model(), env)
        timing = time_calls(lambda: play.steps(steps), subject.device, budget)
    row = subject.row("rollout", size=subject.rows, peak_memory=peak.gib)
    if subject.run.model.context == "window" and subject.run.evaluation.exact_window:
        row = replace(row, note="exact window: recomputed at every step")
    return row.timed(timing, subject.rows * steps, steps)


def _full_window(subject: Subject, budget: float) -> Row:
    spec, steps = subject.configuration.spec, subject.configuration.model.context_length
    policy = FullWindowPolicy(subject.model(), spec.target_return)

    def choose(observations: Array, rewards: Array | None) -> Array:
        return policy.act(observations, 0.0 if rewards is None else float(rewards[0]))

    play = Play(synthetic_env(spec, 1), choose)
    with one_thread(subject.device):
        timing = time_calls(lambda: play.steps(steps), subject.device, budget)
    return subject.row("rollout", FULL_WINDOW, size=1).timed(timing, steps, steps)


def simulator_tasks(subject: Subject) -> Iterator[Task]:
    """Acting in the real environment, where it is installed, against its own rate."""
    if subject.configuration.simulator is None:
        return
    yield Task(RAW, lambda budget: _simulator(subject, RAW, budget))
    yield Task("ours", lambda budget: _simulator(subject, "ours", budget))


def _simulator(subject: Subject, variant: str, budget: float) -> Row:
    """The same loop with random actions or with the policy.

    Raises:
        ConfigError: If the simulator is not installed.
    """
    name, length = subject.configuration.simulator or ("", 0)
    entry = get_environment(name)
    with closing(
        entry.make_vector(min(subject.rows, entry.num_envs or subject.rows), length)
    ) as env:
        play = _random_play(env)
        if variant != RAW:
            space = entry.spec.observation_space
            model = SequenceModel(subject.run.model, space, entry.spec.action_space)
            play = make_play(subject, model.to(subject.device), env)
        with one_thread(subject.device):
            timing = time_calls(lambda: play.steps(_PIECE), subject.device, budget)
        row = subject.row("simulators", variant, size=env.num_envs)
        return row.timed(timing, env.num_envs * _PIECE, _PIECE)


def _random_play(env: VectorEnv[Any, Any, Any]) -> Play:
    env.action_space.seed(0)
    return Play(env, lambda *_: np.asarray(env.action_space.sample()))
