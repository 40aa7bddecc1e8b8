"""Timing of rollouts, in turns with one environment whose whole window is recomputed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

from datamodules.episodes import Array
from rate.architecture import make_config
from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import RIGHT, TMazeVector
from rate.model import SequenceModel
from rate.policy import Policy
from scripts.benchmarks.data import sample
from scripts.benchmarks.full_window import FullWindowPolicy
from scripts.benchmarks.rows import OURS, PRESET, Row, Skipped, Subject
from scripts.benchmarks.timing import Step, Turns, ready
from trainers.episode_rows import Record, Rows
from trainers.playing import play
from trainers.preset_files import load_preset
from trainers.registry import get_environment
from trainers.rollout import acting_threads, row_groups

FULL_WINDOW = "one environment, full window"
RAW = "raw simulator, random actions"
_LONG = 1_000_000  # steps; no episode ends while it is timed
_EPISODES = 20_000  # more than are rolled out in that time
_STORED = 8  # different observations of a synthetic environment
_PIECE = 20  # simulator steps that are timed together


class SyntheticVector:
    """A vector environment of random observations and endless episodes, which costs nothing.

    Args:
        spec: Has the observation space.
        num_envs: Environments.
    """

    def __init__(self, spec: EnvironmentSpec, num_envs: int) -> None:
        rng, space = np.random.default_rng(0), spec.observation_space
        self._stored = itertools.cycle([sample(space, num_envs, rng) for _ in range(_STORED)])
        self.num_envs = num_envs
        self._rewards, self._flags = np.zeros(num_envs), np.zeros(num_envs, dtype=bool)

    def reset(self, **_: Any) -> tuple[Array, dict[str, Any]]:
        return next(self._stored), {}

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        return next(self._stored), self._rewards, self._flags, self._flags, {}

    def close(self) -> None:
        """Nothing to close."""


class Corridor:
    """T-Mazes too long to end, in which every action moves to the right.

    Args:
        num_envs: Environments.
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


class RandomPolicy:
    """Samples from the action space.

    Args:
        env: Has the action space.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self._space = env.action_space
        self._space.seed(0)

    def reset(self, *_: Any, **__: Any) -> None:
        """There is no state to reset."""

    def act(self, *_: Any) -> Array:
        return np.asarray(self._space.sample())


class Play:
    """A rollout as in evaluation, which can be continued by any number of steps.

    Args:
        policies: One for each group, with as many rows.
        envs: Groups of environments that step in turns.
    """

    def __init__(self, policies: Sequence[Any], envs: Sequence[Any]) -> None:
        record = Record(range(_EPISODES))
        self._left = 0
        self._games = [
            play(policy, env, Rows(env.num_envs, record), on_step=self._count)
            for policy, env in zip(policies, envs, strict=True)
        ]

    def steps(self, count: int) -> None:
        """Continues by a number of steps in every environment."""
        self._left += count * len(self._games)
        while self._left > 0:
            for game in self._games:
                next(game)

    def _count(self, *_: int) -> None:
        self._left -= 1


def synthetic_env(spec: EnvironmentSpec, num_envs: int) -> Any:
    """An environment that costs next to nothing: T-Maze itself, or noise of the right shape."""
    return Corridor(num_envs) if spec.name == "tmaze" else SyntheticVector(spec, num_envs)


def make_play(subject: Subject, model: SequenceModel, envs: Sequence[Any]) -> Play:
    """The rollout of a model by the project's own policy."""
    policies = [
        Policy(
            model,
            num_envs=env.num_envs,
            target_return=subject.configuration.spec.target_return,
            recompute_window=subject.run.evaluation.recompute_window,
        )
        for env in envs
    ]
    return Play(policies, envs)


def time_rollout(subject: Subject, budget: float, baseline: bool = True) -> list[Row]:
    """Acting in an environment that costs next to nothing, a segment at a time.

    Args:
        subject: Whose model acts.
        budget: Seconds.
        baseline: Whether to time one environment whose window is recomputed as well.
    """
    spec, steps = subject.configuration.spec, subject.configuration.model.context_length

    def build_baseline() -> Step:
        policy = FullWindowPolicy(subject.model(), spec.target_return)
        return partial(Play([policy], [synthetic_env(spec, 1)]).steps, steps)

    def build() -> Step:
        return partial(make_play(subject, subject.model().eval(), [env]).steps, steps)

    env = synthetic_env(spec, subject.rows)
    builds = {FULL_WINDOW: build_baseline, OURS: build} if baseline else {OURS: build}
    with acting_threads(env, subject.device):
        turns = Turns(builds, subject.device, budget)
        turns.run()
    recomputes = not subject.run.model.carries_state and subject.run.evaluation.recompute_window
    rows = subject.failed("rollout", turns.failed)
    for name, timing in turns.timings().items():
        size = subject.rows if name == OURS else 1
        note = "window recomputed at every step" if name == OURS and recomputes else ""
        row = subject.row("rollout", name, size=size, peak_memory=turns.memory[name], note=note)
        rows.append(row.timed(timing, size * steps, steps))
    return rows


def time_simulator(subject: Subject, budget: float) -> list[Row]:
    """Acting in the real environment, in turns with random actions.

    Raises:
        ConfigError: If the simulator is not installed.
        Skipped: If the configuration has none.
    """
    if subject.configuration.simulator is None:
        raise Skipped("no simulator of these shapes is registered")
    name, length = subject.configuration.simulator
    entry = get_environment(name, workers=subject.workers)
    rows = subject.num_envs or entry.num_envs or subject.configuration.num_envs
    preset = make_config(**load_preset(name, "rate")["model"])
    plays = {}
    with ExitStack() as stack:
        for variant, config in {RAW: None, OURS: subject.run.model, PRESET: preset}.items():
            env = stack.enter_context(closing(entry.make_vector(rows, length)))
            envs = row_groups(env)
            if config is None:
                plays[variant] = Play([RandomPolicy(group) for group in envs], envs)
            else:
                spaces = entry.spec.observation_space, entry.spec.action_space
                model = SequenceModel(config, *spaces).eval()
                plays[variant] = make_play(subject, model.to(subject.device), envs)
        stack.enter_context(acting_threads(env, subject.device))
        calls = {variant: ready(partial(play.steps, _PIECE)) for variant, play in plays.items()}
        turns = Turns(calls, subject.device, budget)
        turns.run()
    measured = subject.failed("simulators", turns.failed)
    for variant, timing in turns.timings().items():
        note = f"{rows} episodes of {length:,} steps: {timing.seconds / _PIECE * length:,.0f} s"
        workers = getattr(env, "num_workers", None)
        row = subject.row("simulators", variant, size=rows, workers=workers, note=note)
        measured.append(row.timed(timing, rows * _PIECE, _PIECE))
    return measured
