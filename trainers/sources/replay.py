"""The replay: the newest unrolls, in memory-mapped files of fixed size, with priorities.

Unroll `i` is row `i` modulo the number of rows. There are more rows than the replay has unrolls, as
many as are added in the time of two checkpoints: a run that is killed and resumed from a checkpoint
finds every unroll of that time, although later ones were written.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rate.batch import Batch
from rate.errors import ConfigError
from rate.hashing import counter_uniforms, splitmix64
from trainers.errors import TrainingError

Array = NDArray[Any]
_DERIVED = {"returns_to_go", "importance"}  # not stored
_LEAST_PRIORITY = 1e-6


class SequenceReplay:
    """The newest unrolls of a run.

    Args:
        folder: The folder of the files, which is made with the first unrolls.
        capacity: The number of unrolls.
        spare: Further rows of the files: at least as many unrolls as are added between a checkpoint
            and the last save after it that may be lost.
        seed: The seed of sampling.
        priority_exponent: alpha of Schaul et al. 2016, "Prioritized Experience Replay"; 0 samples
            all alike.
        importance_exponent: beta.

    Attributes:
        count: The number of unrolls that were ever added.
    """

    def __init__(
        self,
        folder: Path,
        capacity: int,
        spare: int,
        seed: int,
        priority_exponent: float = 0.0,
        importance_exponent: float = 0.0,
    ) -> None:
        self.folder, self.capacity, self.num_rows = folder, capacity, capacity + spare
        self.priority_exponent = priority_exponent
        self.importance_exponent = importance_exponent
        self.count, self._most = 0, 1.0
        self._priorities = np.zeros(self.num_rows)
        self._maps: dict[str, np.memmap[Any, Any]] = {}
        self._arrays: dict[str, Array] = {}  # plain views, which are faster to index
        self._key = splitmix64(np.array([seed % (1 << 64)], np.uint64))

    def __len__(self) -> int:
        return min(self.count, self.capacity)

    @property
    def nbytes(self) -> int:
        """The size of the files in bytes; 0 before the first unroll."""
        return sum(array.nbytes for array in self._arrays.values())

    def add(self, unrolls: Batch) -> None:
        """Adds the rows of a batch that have steps, with the largest priority so far.

        Raises:
            ConfigError: If the files are larger than the free disk.
        """
        parts = named_parts(unrolls)
        if not self._arrays:
            self._make(parts)
        real = unrolls.mask.any(1).numpy()
        rows = (self.count + np.arange(int(real.sum()))) % self.num_rows
        for name, part in parts.items():
            self._arrays[name][rows] = part.numpy()[real]
        self._priorities[rows] = self._most
        self.count += len(rows)

    def sample(self, index: int, size: int) -> tuple[Batch, Array]:
        """Returns batch `index` of the replay as it is, and the numbers of its unrolls `(size,)`.

        With priorities the batch has `Batch.importance`.
        """
        first = self.count - len(self)
        counter = np.full(1, index, dtype=np.int64)
        uniforms = counter_uniforms(self._key, counter, size)[0]  # (size,)
        if not self.priority_exponent:
            numbers = first + (uniforms * len(self)).astype(np.int64)
            return self._gather(numbers, None), numbers
        rows = np.arange(first, self.count) % self.num_rows
        shares = self._priorities[rows] ** self.priority_exponent
        ends = np.cumsum(shares)
        chosen = np.searchsorted(ends, uniforms * ends[-1], side="right").clip(max=len(self) - 1)
        weights = (shares[chosen] / ends[-1] * len(self)) ** -self.importance_exponent
        importance = torch.from_numpy((weights / weights.max()).astype(np.float32))
        return self._gather(first + chosen, importance), first + chosen

    def update(self, numbers: Array, priorities: Tensor) -> None:
        """Sets the priorities `(size,)` of unrolls that are still there."""
        found = priorities.double().cpu().numpy().clip(min=_LEAST_PRIORITY)
        held = numbers >= self.count - len(self)
        self._priorities[numbers[held] % self.num_rows] = found[held]
        self._most = max(self._most, float(found.max()))

    def state_dict(self) -> dict[str, Any]:
        """Makes the files durable, and returns what belongs to them."""
        for file in self._maps.values():
            file.flush()
        rows = np.arange(self.count - len(self), self.count) % self.num_rows
        return {
            "count": self.count,
            "rows": self.num_rows,
            "most": self._most,
            "priorities": torch.from_numpy(self._priorities[rows]),
            "files": {n: [str(a.dtype), list(a.shape)] for n, a in self._arrays.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Opens the files of a run as they were.

        Raises:
            TrainingError: If a file is missing, of another size or type, or without the rows that
                the settings need now.
        """
        if state["rows"] < self.num_rows:
            raise TrainingError(
                f"The files in {self.folder} have {state['rows']:,} rows, and a checkpoint every "
                f"training.checkpoint_every_n_steps needs {self.num_rows:,}: unrolls of the last "
                "checkpoint would be overwritten before the next. Lower it to what it was."
            )
        self.count, self._most, self.num_rows = state["count"], state["most"], state["rows"]
        self._priorities = np.zeros(self.num_rows)
        rows = np.arange(self.count - len(self), self.count) % self.num_rows
        self._priorities[rows] = state["priorities"].numpy()
        for number, (name, (kind, shape)) in enumerate(state["files"].items()):
            path = self._path(number)
            try:
                array = np.load(path, mmap_mode="r+", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise TrainingError(f"{path} cannot be read ({error}). {_ADVICE}") from error
            if str(array.dtype) != kind or list(array.shape) != shape:
                raise TrainingError(
                    f"{path} holds {array.dtype} {list(array.shape)}, and the checkpoint is of "
                    f"{kind} {shape}. {_ADVICE}"
                )
            self._open(name, array)

    def _make(self, parts: dict[str, Tensor]) -> None:
        """Makes the files, with room for all rows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        need = sum(part[0].nbytes for part in parts.values()) * self.num_rows
        if need > (free := shutil.disk_usage(self.folder).free):
            raise ConfigError(
                f"A replay of online.capacity={self.capacity:,} unrolls takes {need / 1e9:.1f} GB, "
                f"and {free / 1e9:.1f} GB are free at {self.folder}. Lower online.capacity to "
                f"{max(1, int(self.capacity * free / need * 0.9)):,}, or write the run elsewhere "
                "(--logging.output)."
            )
        for number, (name, part) in enumerate(parts.items()):
            values = part.numpy()
            path, shape = self._path(number), (self.num_rows, *values.shape[1:])
            array = np.lib.format.open_memmap(path, "w+", values.dtype, shape)
            if hasattr(os, "posix_fallocate"):  # a full disk is an error now, and no signal later
                with path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
            self._open(name, array)

    def _open(self, name: str, file: np.memmap[Any, Any]) -> None:
        self._maps[name], self._arrays[name] = file, file.view(np.ndarray)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number}.npy"

    def _gather(self, numbers: Array, importance: Tensor | None) -> Batch:
        rows = numbers % self.num_rows
        parts = {name: torch.from_numpy(array[rows]) for name, array in self._arrays.items()}
        return batch_of(parts, importance)


_ADVICE = (
    "The replay of a run is part of it: bring its folder back, or start a new run that begins with "
    "its weights (--init RUN)."
)


def named_parts(batch: Batch) -> dict[str, Tensor]:
    """Returns the tensors of a batch by name, `NAME/KEY` of dictionaries."""
    found: dict[str, Tensor] = {}
    for field in fields(batch):
        part = getattr(batch, field.name)
        if field.name in _DERIVED or part is None:
            continue
        if isinstance(part, dict):
            found |= {f"{field.name}/{key}": tensor for key, tensor in part.items()}
        else:
            found[field.name] = part
    return found


def batch_of(parts: dict[str, Tensor], importance: Tensor | None = None) -> Batch:
    """Returns a batch of named tensors, the inverse of `named_parts`."""
    tables: dict[str, Any] = {}
    for name, tensor in parts.items():
        field, slash, key = name.partition("/")
        if slash:
            tables.setdefault(field, {})[key] = tensor
        else:
            tables[field] = tensor
    shape = tables["mask"].shape
    return Batch(**tables, returns_to_go=torch.zeros(*shape, 1), importance=importance)
