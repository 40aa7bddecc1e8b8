"""Scores of the baselines: an expert that sees the true state, and a random policy."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.collector import EpisodeTask
from rate.advice import command
from rate.errors import ConfigError, UserError
from rate.progress import OnProgress, no_progress
from rate.stopping import with_message
from rate.workers.tasks import TaskFailure, run_tasks
from trainers.environment import BASELINES, Environment, Length
from trainers.episode_rows import RolloutResult
from trainers.scores import scores

if TYPE_CHECKING:
    from datamodules.collector import Collector
    from datamodules.episodes import Episode

_Summary = tuple[float, int, dict[str, float]]  # return, length and outcome of an episode


def score_baseline(
    policy: str,
    environment: Environment,
    *,
    lengths: Sequence[Length],
    seeds: Sequence[int],
    workers: int | None = None,
    on_progress: OnProgress = no_progress,
) -> list[dict[str, Any]]:
    """Returns the scores of a baseline, in the format of `trainers.rollout.evaluate`.

    Args:
        policy: One of `BASELINES`.
        environment: The environment.
        lengths: Episode lengths, in the environment's unit.
        seeds: One seed per episode.
        workers: Worker processes; None is one per core.
        on_progress: Called with the progress, in episodes.

    Raises:
        ConfigError: If the environment has no such baseline.
        UserError: If the simulator crashes.
    """
    if policy not in BASELINES:
        raise ConfigError(f"There is no baseline '{policy}'; there are: {', '.join(BASELINES)}.")
    if policy == "expert" and environment.no_expert:
        raise ConfigError(f"{environment.spec.name} has no expert that plays for comparison.")
    rows = []
    for length in lengths:
        make_collector = partial(environment.make_collector, policy, length)
        tell = partial(on_progress, f"{policy} at {length}")
        result = _play_all(make_collector, list(seeds), workers, tell)
        known = {"length": length, "episodes": len(seeds), "first_seed": seeds[0]}
        rows.append({**known, **scores(result, environment.group)})
    return rows


def _play_all(
    make_collector: Callable[[], Collector],
    seeds: list[int],
    workers: int | None,
    tell: Callable[[int, int], None],
) -> RolloutResult:
    """Run one episode per seed in worker processes."""
    played: list[_Summary] = []
    tell(0, len(seeds))
    try:
        make = partial(EpisodeTask, make_collector, _summary)
        with closing(run_tasks(make, seeds, workers)) as results:
            for summary in results:
                played.append(summary)
                tell(len(played), len(seeds))
    except KeyboardInterrupt as interrupt:
        raise with_message(
            interrupt, "Stopped while an expert was being scored; the same command does it."
        ) from None
    except TaskFailure as failure:
        raise UserError(
            f"The episode of seed {failure.task} {failure}. `{command('doctor')}` tells what runs "
            "here."
        ) from failure
    names = dict.fromkeys(name for _, _, outcome in played for name in outcome)
    return RolloutResult(
        returns=np.array([earned for earned, _, _ in played]),
        lengths=np.array([length for _, length, _ in played]),
        outcomes={name: _outcome(name, [outcome for *_, outcome in played]) for name in names},
    )


def _summary(episode: Episode) -> _Summary:
    """Returns the return, the length and the outcome of an episode."""
    earned = float(np.sum(episode.rewards, dtype=np.float64))
    return earned, len(episode), episode.outcome


def _outcome(name: str, outcomes: list[dict[str, float]]) -> NDArray[np.float64]:
    """Returns one outcome of all episodes, `(episodes,)`; a missing one is NaN, or no success."""
    unknown = 0.0 if name == "success" else math.nan
    return np.array([outcome.get(name, unknown) for outcome in outcomes])
