"""Scores of models: a row for each length, here or on a cluster."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from rate.errors import UserError
from rate.weights import SavedModel
from rate.workers.child import Beat
from rate.workers.engine import engine_elsewhere
from rate.workers.pool import cores_for_simulators
from rate.workers.tasks import TaskFailure, run_tasks
from trainers.commands.environment_options import playing_in
from trainers.config import EvaluationConfig
from trainers.environment import at_length
from trainers.meter import Meter
from trainers.registry import environment_of
from trainers.rollout import OnProgress, evaluate


@dataclass(frozen=True)
class Candidate:
    """A model to score.

    Attributes:
        saved: The model.
        label: Its columns in rows of scores: `model`, `seed` (of training) and `which`.
        settings: The settings of the evaluation, by default those of its run.
        first_seed: Seed of the first episode.
    """

    saved: SavedModel
    label: dict[str, Any]
    settings: EvaluationConfig
    first_seed: int = 0

    def playing_in(self, name: str | None, settings: dict[str, Any]) -> Candidate:
        """Returns the candidate with the environment of `--env`; see `playing_in`."""
        spec = playing_in(self.saved.spec, name, settings)
        return replace(self, saved=replace(self.saved, spec=spec))


def score(
    candidate: Candidate, device: torch.device, on_progress: OnProgress | None = None
) -> Iterator[dict[str, Any]]:
    """Yields a row of scores for each length of a prepared candidate, in the format of a study.

    Rows are yielded as they are computed, so that an interrupt loses at most one length.

    Args:
        candidate: The model.
        device: Where it acts.
        on_progress: Called with a length and the share of its steps that are done.
    """
    saved, config = candidate.saved, candidate.settings
    known = {"environment": saved.spec.name, **candidate.label, "step": saved.extra.get("step")}
    for length in config.lengths:
        started = time.monotonic()
        (row,) = evaluate(
            saved.model.to(device),
            environment_of(saved.spec, config.workers),
            config,
            lengths=[length],
            first_seed=candidate.first_seed,
            on_progress=on_progress,
            trained_range=saved.trained_range,
        )
        yield {**known, "seconds": round(time.monotonic() - started, 1), **row}


def score_all(
    candidates: Sequence[Candidate], device: torch.device, meter: Meter
) -> Iterator[dict[str, Any]]:
    """Yields the rows of scores of candidates in their order; on a cluster, side by side.

    Raises:
        UserError: If an evaluation on the cluster failed in every attempt.
    """
    if engine_elsewhere() is None:
        for candidate in candidates:
            yield from score(candidate, device, shown(candidate, meter))
        return
    # A task is all episodes of a length: in other batches sums would be rounded differently.
    tasks = [
        replace(each, settings=replace(each.settings, lengths=[length], workers=workers))
        for each in candidates
        for workers in [each.settings.workers or cores_for_simulators()]
        for length in each.settings.lengths
    ]
    make = partial(_ScoreTask, torch.get_num_threads())
    meter.show("scoring", 0, len(tasks))
    try:
        with closing(run_tasks(make, tasks, None, timeout=math.inf)) as found:
            for done, row in enumerate(found, 1):
                meter.show("scoring", done, len(tasks))
                yield row
    except TaskFailure as failure:
        label, (length,) = failure.task.label, failure.task.settings.lengths
        raise UserError(
            f"The evaluation of {label['model']} {label['which']} at {at_length(length)} {failure}"
        ) from failure


class _ScoreTask:
    """Scores a candidate with one length: a task for `rate.workers.tasks.run_tasks`."""

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)

    def __call__(self, candidate: Candidate, beat: Beat) -> dict[str, Any]:
        (row,) = score(candidate, torch.device("cpu"))
        return row


def shown(candidate: Candidate, meter: Meter) -> OnProgress:
    """Returns a callback that shows the progress of a candidate."""
    name = f"{candidate.label['model']} {candidate.label['which']}"
    return lambda length, share: meter.show(f"{name} at {at_length(length)}", share, 1)
