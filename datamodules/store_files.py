"""The files of a store: their names, types and shapes, and the data set writer's side of them."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from datamodules.action_clipping import ActionClipping
from datamodules.episodes import Array, DatasetError, Episode, observation_items, observation_spaces
from datamodules.moments import Moments
from datamodules.npy import NpyWriter
from rate.envs.spec import EnvironmentSpec
from rate.files import file_sha256, load_json, write_atomic, write_json

FORMAT = "rate-trajectories"
SCHEMA_VERSION = 1
MANIFEST, MANIFEST_DIGEST = "manifest.json", "manifest.json.sha256"
OBSERVATIONS, LAST = "observations", "last_observations"
UNKNOWN_SEED = -1
LARGE_SEEDS = "large_seeds"  # in the manifest: those that are not in [0, 2^63), by episode
_STATE = "unfinished.json"
_PER_EPISODE = ("offsets", "terminated", "truncated", "seeds")


def storage_dtype(space: gymnasium.Space[Any]) -> np.dtype[Any]:
    """Returns the type in which elements of a space are stored.

    Pixels and booleans are bytes, other integers int64, all else float32.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return np.dtype(np.int64)
    if isinstance(space, spaces.MultiBinary):
        return np.dtype(np.int8)
    if isinstance(space, spaces.Box):
        if np.dtype(space.dtype).kind == "b" or space.dtype == np.uint8:
            return np.dtype(np.uint8)
        floating = np.issubdtype(space.dtype, np.floating)
        return np.dtype(np.float32 if floating else np.int64)
    raise DatasetError(f"the space {type(space).__name__} is not supported inside a data set")


def returns_to_go(rewards: Array) -> npt.NDArray[np.float64]:
    """Returns the undiscounted returns-to-go, `(T,)` float64 whatever the type of the rewards."""
    return np.cumsum(np.asarray(rewards, dtype=np.float64)[::-1])[::-1]


class StoreWriter:
    """Writes a store's directory, an episode at a time, in memory that does not grow.

    Args:
        directory: The directory. One that `save` was called for is gone on with.
        spec: The environment that the episodes come from, and are valid in.
        keep_last: Keep what followed the last action of each episode as well: for other formats,
            and for learning rules that bootstrap.

    Attributes:
        position: What the last `save` was told, 0 without one.
        clipped: The actions that were clipped of what was written; the caller counts them.

    Raises:
        DatasetError: If a directory that is gone on with is damaged.
    """

    def __init__(self, directory: Path, spec: EnvironmentSpec, keep_last: bool = False) -> None:
        self.directory, self.spec = directory, spec
        state = _read_state(directory / _STATE)
        self.position, self.skipped = int(state["position"]), int(state["skipped"])
        self._low: float
        self._high: float
        self._low, self._high = state["returns"] or (math.inf, -math.inf)
        self.clipped = ActionClipping(**state.get("clipped", {}))
        self._large_seeds: dict[str, str] = dict(state.get("large_seeds", {}))
        layout = _layout(spec, keep_last)
        self._writers = {
            name: NpyWriter(
                directory / _file_name(index, name), dtype, shape, state["rows"].get(name, 0)
            )
            for index, (name, (dtype, shape)) in enumerate(layout.items())
        }
        self._moments = {
            name: Moments(**state["moments"].get(name, {}))
            for name, (dtype, shape) in layout.items()
            if name.startswith(OBSERVATIONS) and dtype == np.float32 and len(shape) != 3
        }
        if not self._writers["offsets"].rows:
            self._writers["offsets"].append(np.zeros(1))

    @property
    def num_episodes(self) -> int:
        return self._writers["offsets"].rows - 1

    def append(self, episode: Episode) -> None:
        """Writes an episode, which must be valid.

        Raises:
            OSError: If the files cannot be written.
        """
        rows = _rows(episode, offset=self._writers["actions"].rows)
        if episode.seed is not None and rows["seeds"] == UNKNOWN_SEED:
            self._large_seeds[str(self.num_episodes)] = hex(episode.seed)
        earned = float(rows.pop("return"))
        self._low, self._high = min(self._low, earned), max(self._high, earned)
        for name, writer in self._writers.items():
            writer.append(rows[name])
        for name, moment in self._moments.items():
            moment.update(rows[name])

    def save(self, position: int, skipped: int = 0) -> None:
        """Make what was written durable, so that a writer made later goes on from here."""
        for writer in self._writers.values():
            writer.sync()
        state = {
            "position": position,
            "skipped": skipped,
            "clipped": asdict(self.clipped),
            "returns": [self._low, self._high] if self.num_episodes else None,
            "large_seeds": self._large_seeds,
            "rows": {name: writer.rows for name, writer in self._writers.items()},
            "moments": {name: moment.state() for name, moment in self._moments.items()},
        }
        write_json(self.directory / _STATE, state)

    def finish(self, provenance: dict[str, Any]) -> None:
        """Closes the files and writes the manifest.

        Raises:
            DatasetError: If there are no episodes.
        """
        episodes = self.num_episodes
        if not episodes:
            raise DatasetError(f"{provenance.get('source', self.directory)}: there are no episodes")
        self.close()
        spec = self.spec
        if math.isnan(spec.target_return):  # unknown: the best return of the data
            spec = replace(spec, target_return=self._high)
        manifest = {
            "format": FORMAT,
            "schema_version": SCHEMA_VERSION,
            "num_episodes": episodes,
            "num_steps": self._writers["actions"].rows,
            "return_range": [self._low, self._high],
            "environment": spec.to_dict(),
            "normalisation": {name: moment.to_dict() for name, moment in self._moments.items()},
            "provenance": provenance,
            "arrays": {name: describe_array(writer) for name, writer in self._writers.items()},
        }
        if self._large_seeds:
            manifest[LARGE_SEEDS] = self._large_seeds
        write_manifest(self.directory, manifest)
        (self.directory / _STATE).unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the files with their headers."""
        for writer in self._writers.values():
            writer.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(self, *error: object) -> None:
        for writer in self._writers.values():
            writer.__exit__(*error)  # type: ignore[arg-type]


def store_bytes(spec: EnvironmentSpec, episodes: int, steps: int, keep_last: bool = False) -> int:
    """Returns the approximate size of a store on disk, in bytes."""
    per_step = per_episode = 0
    for name, (dtype, shape) in _layout(spec, keep_last).items():
        size = dtype.itemsize * math.prod(shape)
        if name.startswith(LAST) or name in _PER_EPISODE:
            per_episode += size
        else:
            per_step += size
    return per_step * steps + per_episode * episodes


def _layout(
    spec: EnvironmentSpec, keep_last: bool
) -> dict[str, tuple[np.dtype[Any], tuple[int, ...]]]:
    """Returns the type and the row shape of every array of a store."""
    layout = {
        f"{OBSERVATIONS}/{key}" if key else OBSERVATIONS: (
            storage_dtype(space),
            tuple(space.shape or ()),
        )
        for key, space in observation_spaces(spec.observation_space).items()
    }
    last = {f"{LAST}{name[len(OBSERVATIONS) :]}": kind for name, kind in layout.items()}
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
    return {**layout, **last} if keep_last else layout


def _rows(episode: Episode, offset: int) -> dict[str, Any]:
    """Returns the rows that an episode adds to each array, and its return."""
    to_go = returns_to_go(episode.rewards)
    rows: dict[str, Any] = {
        f"{OBSERVATIONS}/{key}" if key else OBSERVATIONS: values
        for key, values in observation_items(episode.observations).items()
    }
    last, seed = episode.last_observation, episode.seed
    for name, values in list(rows.items()):
        key = name[len(OBSERVATIONS) :]
        known = None if last is None else observation_items(last)[key[1:]]
        rows[f"{LAST}{key}"] = values[-1:] if known is None else np.asarray(known)[None]
    return rows | {
        "actions": episode.actions,
        "rewards": episode.rewards,
        "returns_to_go": to_go,
        "offsets": np.array([offset + len(episode)]),
        "terminated": np.array([episode.terminated]),
        "truncated": np.array([episode.truncated]),
        "seeds": np.array([UNKNOWN_SEED if seed is None or not 0 <= seed < 1 << 63 else seed]),
        "return": to_go[0],
    }


def _file_name(index: int, name: str) -> str:
    """Returns a plain file name for an array, whatever characters an observation key has."""
    kind, slash, key = name.partition("/")
    if not slash:
        return f"{name}.npy"
    readable = "".join(c if c.isascii() and c.isalnum() else "_" for c in key)
    return f"{kind}-{index}_{readable}.npy"


def write_manifest(directory: Path, manifest: dict[str, Any]) -> None:
    """Writes the manifest of a store, and its digest."""
    write_json(directory / MANIFEST, manifest)
    digest = file_sha256(directory / MANIFEST)
    write_atomic(directory / MANIFEST_DIGEST, f"{digest}  {MANIFEST}\n")


def describe_array(writer: NpyWriter) -> dict[str, Any]:
    """Returns the entry of a written array in the manifest."""
    return {
        "file": writer.path.name,
        "dtype": str(writer.dtype),
        "shape": [writer.rows, *writer.shape],
        "bytes": writer.path.stat().st_size,
        "sha256": file_sha256(writer.path),
    }


def _read_state(path: Path) -> dict[str, Any]:
    """What `StoreWriter.save` kept; without it, a beginning."""
    empty: dict[str, Any] = {"position": 0, "skipped": 0, "returns": None, "rows": {}}
    if not path.is_file():
        return {**empty, "moments": {}}
    try:
        state: dict[str, Any] = load_json(path)
    except ValueError as error:
        raise DatasetError(f"{path}: damaged ({error}); delete its folder") from error
    return state
