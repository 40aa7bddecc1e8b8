"""Cost against sizes that are varied one at a time, on the T-Maze configuration."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

from datamodules.store import Store
from scripts.benchmarks.acting import Play, make_play, synthetic_env, time_rollout
from scripts.benchmarks.configurations import Configuration
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.rows import Row, Skipped, Subject, Task
from scripts.benchmarks.sampling import time_sampler
from scripts.benchmarks.timing import PeakMemory, time_calls, time_repeats
from scripts.benchmarks.training import time_step
from trainers.rollout import acting_threads

_CPU_LAYERS, _CPU_BATCH = 2, 8  # of ten, and of 128
_LAST, _PIECE = 500, 50  # steps of an episode that are timed, and that are timed together
_PATIENCE = 30  # times the budget that a long episode may take


def _model(base: Configuration, **changes: Any) -> Configuration:
    changed = replace(base, model=replace(base.model, **changes))
    return replace(changed, episode_length=changed.window)


def _segments(base: Configuration, value: int) -> Configuration:
    changed = replace(base, segments=value)
    return replace(changed, episode_length=changed.window)


def _tokens(base: Configuration, value: int) -> Configuration:
    return _model(base, num_memory_tokens=value, valve="cross_attention" if value else "none")


# By series of training steps: the values, and the configuration with one of them.
_STEPS: dict[str, tuple[tuple[int, ...], Callable[[Configuration, int], Configuration]]] = {
    "K": ((10, 20, 50, 100, 200), lambda base, k: _model(base, context_length=k)),
    "N": ((1, 2, 4, 8, 16), _segments),
    "cache": ((0, 100, 200, 400, 800), lambda base, c: _model(base, cache_length=c)),
    "memory_tokens": ((0, 5, 15, 45, 135), _tokens),
    "width": ((32, 64, 128, 256), lambda base, d: _model(base, d_model=d, d_head=d // 2, d_ff=d)),
}
_ENVIRONMENTS = (1, 10, 100, 1000)
_LENGTHS = (1_000, 3_000, 10_000, 30_000, 100_000)
_DATA_STEPS = (10_000, 100_000, 1_000_000)
SERIES = (*_STEPS, "environments", "episode_length", "dataset")


def scale_tasks(base: Subject, series: list[str]) -> Iterator[Task]:
    """A task for each value of the series.

    Args:
        base: Has the machine and the options; its configuration is replaced by T-Maze.
        series: Names in `SERIES`.
    """
    tmaze = CONFIGURATIONS["tmaze"]
    if base.device.type == "cpu":
        tmaze = _model(replace(tmaze, cpu_batch_size=_CPU_BATCH), num_layers=_CPU_LAYERS)
    base = replace(base, configuration=tmaze)
    for name in series:
        for value, measure in _points(base, name):
            yield Task(f"scale {name}={value:,}", partial(_point, name, value, measure))


def _points(base: Subject, name: str) -> Iterator[tuple[int, Callable[[float], list[Row]]]]:
    if name in _STEPS:
        values, change = _STEPS[name]
        for value in values:
            configuration = change(base.configuration, value)
            yield (
                value,
                partial(time_step, replace(base, configuration=configuration), baseline=False),
            )
    elif name == "environments":
        for value in _ENVIRONMENTS:
            yield value, partial(time_rollout, replace(base, num_envs=value), baseline=False)
    elif name == "episode_length":
        alone = base.num_envs or (1 if base.device.type == "cpu" else None)
        episode = _Episode(replace(base, num_envs=alone))
        for value in _LENGTHS:
            yield value, partial(episode.time, value)
    else:
        mujoco = CONFIGURATIONS["mujoco"]
        for value in _DATA_STEPS:
            episodes = value // mujoco.episode_length
            yield (
                value,
                partial(
                    _dataset,
                    replace(base, configuration=mujoco, episodes=episodes, batch_size=None),
                ),
            )


def _point(
    name: str, value: int, measure: Callable[[float], list[Row]], budget: float
) -> list[Row]:
    return [replace(row, part="scale", series=name, value=value) for row in measure(budget)]


def _dataset(subject: Subject, budget: float) -> list[Row]:
    """Sampling from a large data set, with the time to open it as a note."""
    _ = subject.store  # written before anything is measured
    peak = PeakMemory(subject.device)
    (row,) = time_sampler(subject, budget / 2, baseline=False)
    row = replace(row, peak_memory=peak.gib)
    opening = time_calls(lambda: Store.open(subject.store), subject.device, budget / 2)
    return [replace(row, note=f"opens in {1e3 * opening.seconds:.2f} ms")]


class _Episode:
    """One rollout, continued from one measurement to the next."""

    def __init__(self, subject: Subject) -> None:
        self._subject = subject
        self._env = synthetic_env(subject.configuration.spec, subject.rows)
        self._play: Play | None = None
        self._steps, self._seconds = 0, 0.0

    def time(self, length: int, budget: float) -> list[Row]:
        """Times the last steps before `length`.

        Raises:
            Skipped: If the steps before them take many times the budget.
        """
        subject = self._subject
        if self._play is None:
            self._peak = PeakMemory(subject.device)
            self._play = make_play(subject, subject.model().eval(), [self._env])
        needed = (length - self._steps) * self._seconds
        if needed > _PATIENCE * budget:
            raise Skipped(f"it would take {needed:.0f} s to get there; give a larger budget")
        with acting_threads(self._env, subject.device):
            self._play.steps(length - self._steps - _LAST)
            piece = partial(self._play.steps, _PIECE)
            timing = time_repeats(piece, subject.device, _LAST // _PIECE)
        self._seconds, self._steps = timing.seconds / _PIECE, length
        row = subject.row("scale", size=subject.rows, peak_memory=self._peak.gib)
        return [row.timed(timing, _PIECE * subject.rows, _PIECE)]
