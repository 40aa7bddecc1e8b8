"""Loss and accuracy of action predictions on held-out steps, by position.

No environment is needed: predictions are compared with the actions of the data. For discrete
actions the loss is a cross-entropy, and `accuracy` the share of correct predictions. For continuous
actions the loss is a squared error in units of the actions' range, and `action_error` the mean
absolute error of a component in the environment's units.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from datamodules.held_out import HeldOut
from datamodules.trajectories import TrajectoryDataModule
from rate.batch import Batch
from rate.config import Decoding
from rate.model import SequenceModel
from rate.spaces import choices_of
from rate.weights import CHECKPOINTS, load_model
from trainers.config import RunConfig
from trainers.distributed import sum_over_processes

Array = npt.NDArray[Any]
LOSS, ACCURACY, ERROR = "action_loss", "accuracy", "action_error"
POSITION, DISTANCE = "by_position", "by_distance"
FEW, MANY = 4, 20  # number of bins: in logged columns, in the final table
# Windows in the final measurement as a share of those trained on. Measuring a window takes about a
# third of the time of training on it.
_MEASURED = 0.015


@dataclass(frozen=True)
class Bins:
    """Sums over steps, in bins of positions.

    Attributes:
        edges: `(n + 1,)`, the first position of each bin, and the end of the last one.
        sums: `(3, n)`: number of steps, sum of losses, sum of accuracies or errors.
    """

    edges: Array
    sums: Array

    @classmethod
    def of(cls, places: int, most: int) -> Bins:
        """Returns bins of about equal width for the positions from 0 on.

        Args:
            places: Number of positions.
            most: Maximum number of bins.
        """
        edges = np.linspace(0, places, min(places, most) + 1).round().astype(np.int64)
        return cls(edges, np.zeros((3, len(edges) - 1)))

    def add(self, places: Array, values: tuple[Array, Array]) -> None:
        """Add steps: positions `(S,)`, and their losses and accuracies or errors, `(S,)` each."""
        index = np.searchsorted(self.edges, places, side="right") - 1
        for row, weights in zip(self.sums, (np.ones(len(places)), *values), strict=True):
            row += np.bincount(index, weights, minlength=len(row))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Returns a row per bin that has steps; its first position is `from`, its last `to`."""
        columns = zip(self.edges[:-1], self.edges[1:], *self.sums, strict=True)
        return [
            {"from": int(first), "to": int(stop) - 1, **_means(name, steps, loss, score)}
            for first, stop, steps, loss, score in columns
            if steps
        ]


@dataclass
class Account:
    """Statistics of a model's predictions on held-out steps.

    Args:
        held_out: The steps.
        context_length: Steps of a segment; memory is carried between segments. For a model without
            memory a window is one segment.
        most: The largest number of bins of each kind.
    """

    held_out: HeldOut
    context_length: int
    most: int
    bins: dict[str, Bins] = field(init=False)
    score: str = field(init=False)

    def __post_init__(self) -> None:
        space = self.held_out.action_space
        self.score = ACCURACY if choices_of(space) is not None else ERROR
        self.bins = {
            POSITION: Bins.of(self.held_out.last_step + 1, self.most),
            DISTANCE: Bins.of(self.context_length, self.most),
        }

    def add(self, model: SequenceModel, features: Tensor, batch: Batch) -> None:
        """Add the real steps of a batch.

        Args:
            model: The model, whose head is applied to the features.
            features: `(B, T, d)`.
            batch: The steps; windows start at a segment boundary.
        """
        predictions, actions = model.head(features), batch.actions
        losses = model.head.loss(predictions, actions)  # (B, T)
        if self.score == ERROR:
            wrong = (model.head.decode(predictions, Decoding()) - actions).abs()  # (B, T, *shape)
            scores = wrong.flatten(2).mean(-1)
        else:
            scores = model.head.correct(predictions, actions).float()
        distances = torch.arange(batch.num_steps, device=actions.device) % self.context_length
        places = torch.stack((batch.timesteps, distances.expand_as(batch.timesteps)))  # (2, B, T)
        position, distance = places[:, batch.mask].cpu().numpy()
        found = torch.stack((losses, scores))[:, batch.mask].double().cpu().numpy()
        values = found[0], found[1]
        self.bins[POSITION].add(position, values)
        self.bins[DISTANCE].add(distance, values)

    def over_processes(self, device: torch.device) -> Account:
        """Sum over the processes, in place; all processes must call it. Returns itself."""
        for bins in self.bins.values():
            found = sum_over_processes(torch.from_numpy(bins.sums).to(device))
            bins.sums[:] = found.cpu().numpy()
        return self

    def row(self) -> dict[str, Any]:
        """Returns means over all steps, and tables of means by position; plain JSON types."""
        steps, loss, score = self.bins[DISTANCE].sums.sum(1)
        tables = {name: bins.rows(self.score) for name, bins in self.bins.items()}
        return {**_means(self.score, steps, loss, score), **tables}

    def columns(self) -> dict[str, float]:
        """Returns the same as columns of metrics: `action_loss@position_0-22`, ..."""
        row = self.row()
        names = (LOSS, self.score)
        found = {name: row[name] for name in names}
        for kind in self.bins:
            for part in row[kind]:
                place = f"{kind.removeprefix('by_')}_{part['from']}-{part['to']}"
                found |= {f"{name}@{place}": part[name] for name in names}
        return {name: value for name, value in found.items() if value is not None}


def _means(name: str, steps: float, loss: float, score: float) -> dict[str, Any]:
    means = (float(total / steps) if steps else math.nan for total in (loss, score))
    known = (mean if math.isfinite(mean) else None for mean in means)
    return {"steps": int(steps), **dict(zip((LOSS, name), known, strict=True))}


@torch.no_grad()
def measure_weights(
    config: RunConfig,
    datamodule: TrajectoryDataModule,
    folder: Path,
    steps: Mapping[str, int | None],
    device: torch.device,
) -> list[dict[str, Any]]:
    """Measure a run's saved weights on held-out steps.

    Args:
        config: The run.
        datamodule: The data of the run.
        folder: The run folder.
        steps: Name of the weights to their optimiser step; None if there are no such weights.
        device: The device to compute on.

    Returns:
        A row per name of weights: `which`, `step`, and the result of `Account.row`. Empty if no
        episode is held out.
    """
    training, held_out = config.training, datamodule.held_out
    limit = training.batch_size * math.ceil(_MEASURED * training.max_steps)
    known: dict[int, dict[str, Any]] = {}
    rows = []
    for which, step in steps.items():
        if step is None or not held_out.num_windows:
            continue
        if step not in known:  # the best weights may be the last ones
            model = load_model(folder / CHECKPOINTS / which).model.to(device)
            account = Account(held_out, datamodule.context_length, MANY)
            for batch in datamodule.held_out_batches(device, training.batch_size, limit):
                account.add(model, model.features(batch)[0], batch)
            known[step] = account.row()
        rows.append({"which": which, "step": step, **known[step]})
    return rows


def episodes_held_out(datamodule: TrajectoryDataModule) -> dict[str, Any]:
    """Returns the held-out episodes of a run and their data set, as plain JSON types."""
    return {
        "data": datamodule.store.fingerprint,
        "num_episodes": datamodule.store.num_episodes,
        "share": datamodule.held_out.share,
        "episodes": datamodule.held_out.excluded.tolist(),
    }
