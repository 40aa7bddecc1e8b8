"""The distance between the memories of episodes after filler, measured at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from datamodules.episodes import DatasetError
from datamodules.sampler import WindowSampler
from datamodules.trajectories import TrajectoryDataModule
from rate.analysis.retention import FILLER, retention
from rate.batch import Batch
from rate.weights import CHECKPOINTS, load_model
from trainers.config import RunConfig
from trainers.meter import Meter

_EPISODES = 32
_LOST = 0.05  # of the distance before the filler


def measure_retention(
    config: RunConfig,
    datamodule: TrajectoryDataModule,
    folder: Path,
    steps: Mapping[str, int | None],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Measure how far apart a run's saved weights keep the memories of different episodes.

    It tells before any rollout whether memory will hold; see `rate.analysis.retention`.

    Args:
        config: The run.
        datamodule: The data of the run.
        folder: The run folder.
        steps: Name of the weights to their optimiser step; None if there are no such weights.
        device: The device to compute on.

    Returns:
        A row per name of weights: `which`, `step`, `filler` (numbers of segments) and `distance`
        after each. Empty if the model carries no state, or there are no two different episodes of
        two segments.
    """
    openings = _openings(datamodule) if config.model.carries_state else None
    if openings is None:
        return []
    batch = datamodule.on_after_batch_transfer(openings.to(device), 0)
    found: dict[int, list[float]] = {}  # by step: weights of one step are the same
    saved = {which: step for which, step in steps.items() if step is not None}
    for which, step in saved.items():
        if step not in found:
            model = load_model(folder / CHECKPOINTS / which).model.to(device)
            found[step] = retention(model, batch, FILLER)
    if not all(found.values()):
        return []
    if found:
        Meter(shown=config.logging.progress).say(_describe(next(iter(found.values()))))
    return [
        {
            "which": which,
            "step": step,
            "filler": list(FILLER),
            "distance": [round(x, 4) if math.isfinite(x) else None for x in found[step]],
        }
        for which, step in saved.items()
    ]


def _describe(distance: list[float]) -> str:
    line = (
        f"memory: {distance[0]:.3g} apart after the first segment of different episodes, "
        f"{distance[-1]:.3g} after {FILLER[-1]} segments of filler"
    )
    if distance[-1] < _LOST * distance[0]:
        line += "; what happened before is forgotten by then"
    return line


def _openings(datamodule: TrajectoryDataModule) -> Batch | None:
    """Returns the first two segments of training episodes; None if all of them are equal."""
    length = 2 * datamodule.context_length
    try:
        sampler = WindowSampler(
            datamodule.store,
            batch_size=_EPISODES,
            window=length,
            seed=datamodule.seed,
            min_return=datamodule.min_return,
            min_length=max(length, datamodule.min_length or 0),
            frame_stack=datamodule.frame_stack,
            arrays=datamodule.arrays,
            held_out=datamodule.held_out.excluded,
        )
    except DatasetError:  # no episode is that long
        return None
    batch = sampler.batch(0)
    observations = batch.steps(0, datamodule.context_length).observations
    parts = observations.values() if isinstance(observations, dict) else [observations]
    return batch if any((part != part[:1]).any() for part in parts) else None
