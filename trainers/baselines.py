"""What models are compared with: an expert that sees the true state, and chance."""

from __future__ import annotations

import math
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from datamodules.crew import leave_with_parent
from datamodules.spawning import leave_if_started_again
from rate.advice import command
from rate.errors import ConfigError, UserError
from rate.progress import OnProgress, tell_nobody
from rate.stopping import held_back, ignore_stop_signals, release_held_back, with_message
from trainers.environment import BASELINES, Environment, Length
from trainers.episode_rows import RolloutResult
from trainers.scores import scores

if TYPE_CHECKING:
    from datamodules.players import Player

_CHUNK = 5


def score_baseline(
    policy: str,
    environment: Environment,
    *,
    lengths: Sequence[Length],
    seeds: Sequence[int],
    workers: int | None = None,
    on_progress: OnProgress = tell_nobody,
) -> list[dict[str, Any]]:
    """Scores of the expert or of chance, as `trainers.rollout.evaluate` gives those of a model.

    Args:
        policy: One of `BASELINES`.
        environment: Where it plays.
        lengths: What lengths are, the environment says.
        seeds: Of the episodes.
        workers: Processes; None is one per core.
        on_progress: Told of progress, in episodes.

    Raises:
        ConfigError: If there is no such policy here.
        UserError: If the simulator died.
    """
    leave_if_started_again()
    if policy not in BASELINES:
        raise ConfigError(f"There is no baseline '{policy}'; there are: {', '.join(BASELINES)}.")
    if policy == "expert" and environment.no_expert:
        raise ConfigError(f"{environment.spec.name} has no expert that plays for comparison.")
    rows = []
    for length in lengths:
        make_player = partial(environment.make_player, policy, length)
        tell = partial(on_progress, f"{policy} at {length}")
        result = _play_all(make_player, list(seeds), workers or os.cpu_count() or 1, tell)
        known = {"length": length, "episodes": len(seeds), "first_seed": seeds[0]}
        rows.append({**known, **scores(result, environment.group)})
    return rows


def _play_all(
    make_player: Callable[[], Player],
    seeds: list[int],
    workers: int,
    tell: Callable[[int, int], None],
) -> RolloutResult:
    """Play an episode of every seed in several processes."""
    chunks = [seeds[i : i + _CHUNK] for i in range(0, len(seeds), _CHUNK)]
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(chunks)), context, _begin, (make_player,))
    with pool:
        try:
            tell(0, len(seeds))
            played: list[tuple[float, int, dict[str, float]]] = []
            with held_back():  # also from the processes, which are told to ignore them
                parts = pool.map(_play, chunks)
            for part in parts:
                played += part
                tell(len(played), len(seeds))
        except KeyboardInterrupt as interrupt:
            for process in list(pool._processes.values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise with_message(
                interrupt, "Stopped while an expert was being scored; the same command does it."
            ) from None
        except BrokenProcessPool as error:
            raise UserError(
                "A process in which the simulator ran has died. "
                f"`{command('doctor')}` tells "
                'what runs here; a program of your own needs a line `if __name__ == "__main__":` '
                "above what it does."
            ) from error
    names = dict.fromkeys(name for _, _, outcome in played for name in outcome)
    return RolloutResult(
        returns=np.array([earned for earned, _, _ in played]),
        lengths=np.array([length for _, length, _ in played]),
        outcomes={name: _outcome(name, [outcome for *_, outcome in played]) for name in names},
    )


def _outcome(name: str, outcomes: list[dict[str, float]]) -> NDArray[np.float64]:
    """What the episodes say of one outcome, as `RolloutResult` has it."""
    unknown = 0.0 if name == "success" else math.nan
    return np.array([outcome.get(name, unknown) for outcome in outcomes])


_MAKE: list[Callable[[], Player]] = []  # in a process of the pool: what to play with
_PLAYER: list[Player] = []


def _begin(make_player: Callable[[], Player]) -> None:
    ignore_stop_signals()  # the parent ends this process, by its own end if by nothing else
    threading.Thread(target=leave_with_parent, daemon=True).start()
    release_held_back()
    _MAKE.append(make_player)


def _play(seeds: list[int]) -> list[tuple[float, int, dict[str, float]]]:
    """Return, length and outcome of each seed's episode."""
    if not _PLAYER:  # here, where an error finds its way back
        _PLAYER.append(_MAKE[0]())
    episodes = [_PLAYER[0].play(seed) for seed in seeds]
    return [(float(np.sum(e.rewards, dtype=np.float64)), len(e), e.outcome) for e in episodes]
