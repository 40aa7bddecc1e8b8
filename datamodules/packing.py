"""Episodes into a store's directory: one streaming pass, bounded memory, all or nothing."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from filelock import FileLock
from gymnasium import spaces

from datamodules.episodes import (
    Array,
    DatasetError,
    Episode,
    observation_items,
    observation_spaces,
    validate_episode,
)
from datamodules.npy import NpyWriter, file_sha256, fsync_directory
from rate.envs.spec import EnvironmentSpec

FORMAT = "rate-trajectories"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
OBSERVATIONS = "observations"
UNKNOWN_SEED = -1


def pack_directory(
    episodes: Iterable[Episode],
    destination: Path,
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
) -> None:
    """Write a store's directory; see `datamodules.store.pack`.

    The files are written in a hidden sibling directory, made durable, and renamed once. A lock
    lets one process at a time make a given store, so that a hidden directory that is found while
    the lock is held was left by a process that died, and is removed.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.tmp-"
    with FileLock(destination.parent / f".{destination.name}.lock"):
        if destination.exists():
            raise DatasetError(
                f"{destination}: already exists; delete it, or choose another destination"
            )
        for path in destination.parent.iterdir():
            if path.name.startswith(prefix):
                shutil.rmtree(path)
        temporary = destination.parent / f"{prefix}{os.getpid()}"
        temporary.mkdir()
        try:
            _write(episodes, temporary, spec, provenance)
            fsync_directory(temporary)
            temporary.rename(destination)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        fsync_directory(destination.parent)


def storage_dtype(space: gymnasium.Space[Any]) -> np.dtype[Any]:
    """How elements of a space are kept: pixels as uint8, integers as int64, the rest as float32."""
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return np.dtype(np.int64)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind == "b" or space.dtype == np.uint8:
            return np.dtype(np.uint8)
        floating = np.issubdtype(space.dtype, np.floating)
        return np.dtype(np.float32 if floating else np.int64)
    raise DatasetError(f"the space {type(space).__name__} is not supported inside a data set")


def returns_to_go(rewards: Array) -> npt.NDArray[np.float64]:
    """`(T,)` undiscounted sums of the rewards from each step on, in float64 whatever the input."""
    return np.cumsum(np.asarray(rewards, dtype=np.float64)[::-1])[::-1]


@dataclass
class _Moments:
    """Mean and variance of a stream of `(T, D)` rows (Chan, Golub and LeVeque, 1979)."""

    count: int = 0
    mean: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))
    squares: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(()))

    def update(self, rows: Array) -> None:
        rows = rows.astype(np.float64)
        mean = rows.mean(axis=0)
        difference = mean - self.mean
        total = self.count + len(rows)
        self.squares = (
            self.squares
            + ((rows - mean) ** 2).sum(axis=0)
            + difference**2 * (self.count * len(rows) / total)
        )
        self.mean = self.mean + difference * (len(rows) / total)
        self.count = total

    def to_dict(self) -> dict[str, list[float]]:
        std = np.sqrt(self.squares / max(self.count, 1))
        return {"mean": self.mean.tolist(), "std": std.tolist()}


def _write(
    episodes: Iterable[Episode], directory: Path, spec: EnvironmentSpec, provenance: dict[str, Any]
) -> None:
    """The arrays, then the manifest that describes them."""
    source = str(provenance.get("source", directory.parent))
    layout = _layout(spec)
    files = {name: _file_name(index, name) for index, name in enumerate(layout)}
    moments = {
        name: _Moments()
        for name, (dtype, shape) in layout.items()
        if name.startswith(OBSERVATIONS) and dtype == np.float32 and len(shape) == 1
    }
    returns: list[float] = []
    with ExitStack() as stack:
        writers = {
            name: stack.enter_context(NpyWriter(directory / files[name], dtype, shape))
            for name, (dtype, shape) in layout.items()
        }
        writers["offsets"].append(np.zeros(1))
        for index, episode in enumerate(episodes):
            validate_episode(episode, spec, source, index)
            rows = _rows(episode, offset=writers["actions"].rows)
            returns.append(float(rows.pop("return")))
            for name, values in rows.items():
                writers[name].append(values)
            for name, moment in moments.items():
                moment.update(rows[name])
    if not returns:
        raise DatasetError(f"{source}: there are no episodes to pack")
    manifest = {
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "num_episodes": len(returns),
        "num_steps": writers["actions"].rows,
        "return_range": [min(returns), max(returns)],
        "environment": spec.to_dict(),
        "normalisation": {name: moment.to_dict() for name, moment in moments.items()},
        "provenance": provenance,
        "arrays": {name: _describe(writer) for name, writer in writers.items()},
    }
    _write_json(directory / MANIFEST, manifest)


def _layout(spec: EnvironmentSpec) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """The type and row shape of every array of a store."""
    layout = {
        f"{OBSERVATIONS}/{key}" if key else OBSERVATIONS: (
            storage_dtype(space),
            tuple(space.shape or ()),
        )
        for key, space in observation_spaces(spec.observation_space).items()
    }
    layout["actions"] = (storage_dtype(spec.action_space), tuple(spec.action_space.shape or ()))
    for name, kind in (
        ("rewards", "float32"),
        ("returns_to_go", "float32"),
        ("offsets", "int64"),
        ("terminated", "bool"),
        ("truncated", "bool"),
        ("seeds", "int64"),
    ):
        layout[name] = (np.dtype(kind), ())
    return layout


def _rows(episode: Episode, offset: int) -> dict[str, Any]:
    """What one episode adds to each array, and its return."""
    to_go = returns_to_go(episode.rewards)
    rows: dict[str, Any] = {
        f"{OBSERVATIONS}/{key}" if key else OBSERVATIONS: values
        for key, values in observation_items(episode.observations).items()
    }
    return rows | {
        "actions": episode.actions,
        "rewards": episode.rewards,
        "returns_to_go": to_go,
        "offsets": np.array([offset + len(episode)]),
        "terminated": np.array([episode.terminated]),
        "truncated": np.array([episode.truncated]),
        "seeds": np.array([UNKNOWN_SEED if episode.seed is None else episode.seed]),
        "return": to_go[0],
    }


def _file_name(index: int, name: str) -> str:
    """A plain file name for an array, whatever characters an observation key has."""
    if not name.startswith(f"{OBSERVATIONS}/"):
        return f"{name}.npy"
    readable = "".join(c if c.isascii() and c.isalnum() else "_" for c in name[len(OBSERVATIONS) :])
    return f"{OBSERVATIONS}-{index}{readable}.npy"


def _describe(writer: NpyWriter) -> dict[str, Any]:
    """A written array's entry in the manifest."""
    return {
        "file": writer.path.name,
        "dtype": str(writer.dtype),
        "shape": [writer.rows, *writer.shape],
        "bytes": writer.path.stat().st_size,
        "sha256": file_sha256(writer.path),
    }


def _write_json(path: Path, data: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(data, file, indent=2, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
