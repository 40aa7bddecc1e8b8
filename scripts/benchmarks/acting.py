"""Timing of rollouts: many episodes at once against one that recomputes its window."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv

import trainers
from datamodules.episodes import Array
from rate.architecture import make_config
from rate.config import ModelConfig
from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import RIGHT, TMazeVector
from rate.model import SequenceModel
from rate.policy import Policy
from scripts.benchmarks.baselines import FullWindowPolicy
from scripts.benchmarks.data import draw
from scripts.benchmarks.rows import OURS, PRESET, Row, Subject, Task
from scripts.benchmarks.timing import PeakMemory, time_calls, time_in_turns
from trainers.episode_rows import Record, Rows
from trainers.registry import get_environment
from trainers.rollout import acting_threads, play, row_groups
from trainers.yaml_files import read_yaml

FULL_WINDOW = "one environment, full window"
RAW = "raw simulator, random actions"
_LONG = 1_000_000  # no episode ends while it is timed
_EPISODES = 20_000  # more than are played in that time
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


class RandomPolicy:
    """Acts at random, in no time.

    Args:
        env: What it plays.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        self._space = env.action_space
        self._space.seed(0)

    def reset(self, *_: Any, **__: Any) -> None:
        """It knows of no episodes."""

    def act(self, *_: Any) -> Array:
        return np.asarray(self._space.sample())


class Play:
    """A rollout, as evaluation does it, that goes on for as long as anybody asks.

    Args:
        policies: With as many rows as the environments.
        envs: Groups of rows that step in turn.
    """

    def __init__(self, policies: Sequence[Any], envs: Sequence[Any]) -> None:
        record = Record(range(_EPISODES))
        self._left = 0
        self._games = [
            play(policy, env, Rows(env.num_envs, record), on_step=self._count)
            for policy, env in zip(policies, envs, strict=True)
        ]

    def steps(self, count: int) -> None:
        """Go on for a number of steps in every row."""
        self._left += count * len(self._games)
        while self._left > 0:
            for game in self._games:
                next(game)

    def _count(self, *_: int) -> None:
        self._left -= 1


def synthetic_env(spec: EnvironmentSpec, num_envs: int) -> Any:
    """An environment that costs next to nothing: the T-Maze itself, or noise of the right shape."""
    return Corridor(num_envs) if spec.name == "tmaze" else SyntheticVector(spec, num_envs)


def make_play(subject: Subject, model: SequenceModel, envs: Sequence[Any]) -> Play:
    """Our rollout of a model in groups of rows."""
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


def rollout_tasks(subject: Subject) -> Iterator[Task]:
    """Acting in an environment that costs nothing."""
    yield Task(FULL_WINDOW, lambda budget: _full_window(subject, budget))
    yield Task("ours", lambda budget: time_rollout(subject, budget))


def time_rollout(subject: Subject, budget: float) -> Row:
    """Our rollout, timed a segment at a time."""
    steps = subject.configuration.model.context_length
    peak = PeakMemory(subject.device)
    env = synthetic_env(subject.configuration.spec, subject.rows)
    with acting_threads(env, subject.device):
        play = make_play(subject, subject.model().eval(), [env])
        timing = time_calls(lambda: play.steps(steps), subject.device, budget)
    row = subject.row("rollout", size=subject.rows, peak_memory=peak.gib)
    is_window = not subject.run.model.carries_state
    if is_window and subject.run.evaluation.recompute_window:
        row = replace(row, note="exact window: recomputed at every step")
    return row.timed(timing, subject.rows * steps, steps)


def _full_window(subject: Subject, budget: float) -> Row:
    spec, steps = subject.configuration.spec, subject.configuration.model.context_length
    policy = FullWindowPolicy(subject.model(), spec.target_return)
    env = synthetic_env(spec, 1)
    play = Play([policy], [env])
    with acting_threads(env, subject.device):
        timing = time_calls(lambda: play.steps(steps), subject.device, budget)
    return subject.row("rollout", FULL_WINDOW, size=1).timed(timing, steps, steps)


def simulator_tasks(subject: Subject) -> Iterator[Task]:
    """Acting in the real environment, where it is installed, against its own rate."""
    if subject.configuration.simulator is not None:
        label = "simulators alone and with policies"
        yield Task(label, partial(_simulators, subject), shares=3)


def _simulators(subject: Subject, budget: float) -> list[Row]:
    """The same loop with random actions and with policies, a few steps of each in turns.

    Raises:
        ConfigError: If the simulator is not installed.
    """
    name, length = subject.configuration.simulator or ("", 0)
    entry = get_environment(name, workers=subject.workers)
    rows = subject.num_envs or entry.num_envs or subject.configuration.num_envs
    sizes = {RAW: None, OURS: subject.run.model, PRESET: _preset(name)}
    plays = {}
    with ExitStack() as stack:
        for variant, config in sizes.items():
            env = stack.enter_context(closing(entry.make_vector(rows, length)))
            envs = row_groups(env)
            if config is None:
                plays[variant] = Play([RandomPolicy(group) for group in envs], envs)
            else:
                spaces = entry.spec.observation_space, entry.spec.action_space
                model = SequenceModel(config, *spaces).eval()
                plays[variant] = make_play(subject, model.to(subject.device), envs)
        stack.enter_context(acting_threads(env, subject.device))
        calls = {variant: partial(play.steps, _PIECE) for variant, play in plays.items()}
        timings = time_in_turns(calls, subject.device, budget)
    workers = getattr(env, "num_workers", None)
    return [
        subject.row(
            "simulators",
            variant,
            size=rows,
            workers=workers,
            note=f"{rows} episodes of {length:,} steps: {timing.seconds / _PIECE * length:,.0f} s",
        ).timed(timing, rows * _PIECE, _PIECE)
        for variant, timing in timings.items()
    ]


def _preset(environment: str) -> ModelConfig:
    """The size of the model that our preset of an environment trains."""
    path = Path(trainers.__file__).parent / "presets" / environment / "rate.yaml"
    return make_config(**read_yaml(path)["model"])
