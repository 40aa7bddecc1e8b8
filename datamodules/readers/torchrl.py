"""TensorDicts of TorchRL on disk: folders of `meta.json` and `.memmap` files.

There is one row per step, in temporal order: `action` and the observations, and under `next` the
`reward`, `terminated`, `truncated`, `done` and the next observations. Other keys that are there and
under `next` as well are observations. A replay buffer that was saved with `dumps` has them in
`storage`. A buffer that was full begins at its writer's cursor.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.json_files import plain_name, read_json
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.named import open_flat
from datamodules.source import Source

_META, _WHAT = "meta.json", "a TensorDict"
_ENDS = {"terminated": "terminated", "truncated": "truncated", "done": "dones"}
_NO_OBSERVATIONS = {"action", "reward", *_ENDS, "step_count", "is_init", "episode_reward"}
_MASKS = ("mask", "collector/mask")  # of trajectories that are padded to one length
_TRAJECTORIES = ("episode", "collector/traj_ids", "traj_ids")
_TYPES = {
    f"torch.{np.dtype(name).name}": np.dtype(name)
    for name in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")
}


def is_torchrl(path: Path) -> bool:
    """Whether a path is a folder of a TensorDict."""
    folder = _storage(path)
    return (folder / _META).is_file() and next(folder.rglob("*.memmap"), None) is not None


def open_torchrl(path: Path, options: Options | None = None) -> Source:
    """Opens a folder as a source.

    Raises:
        DatasetError: If it is damaged, or its columns are not those of trajectories.
    """
    stored = _read_folder(path)
    notes = [f"not numbers, and left out: {', '.join(stored.left_out)}"] if stored.left_out else []
    rows, note = _order(stored, path)
    columns = _columns(stored, rows)
    return open_flat("torchrl", path, stored.files, columns, options, (*notes, *note))


@dataclass
class _Stored:
    """The tensors of a folder.

    Attributes:
        shape: The batch shape of the TensorDict, with which the shape of every tensor starts.
        tensors: The tensors by their path.
        files: Their files.
        left_out: The paths of tensors that are not numbers.
    """

    shape: tuple[int, ...]
    tensors: dict[str, np.memmap[Any, Any]]
    files: tuple[Path, ...]
    left_out: tuple[str, ...]


def _storage(path: Path) -> Path:
    """Returns the folder of the tensors of a TensorDict or replay buffer."""
    return path if (path / _META).is_file() else path / "storage"


def _read_folder(path: Path) -> _Stored:
    folder = _storage(path)
    tensors: dict[str, np.memmap[Any, Any]] = {}
    files, left = [folder / _META], list[str]()
    top = read_json(folder / _META, _WHAT)
    shape = _shape(top.get("shape"), folder / _META)
    for name, file, entry in _entries(folder, top, ""):
        dtype = _TYPES.get(str(entry.get("dtype")))
        if dtype is None or entry.get("is_nested"):
            left.append(name)
            continue
        tensors[name] = _map(file, dtype, _shape(entry.get("shape"), file))
        files.append(file)
    if not shape or any(item.shape[: len(shape)] != shape for item in tensors.values()):
        raise DatasetError(f"{folder / _META}: the tensors have not all the shape {shape} it tells")
    if len(shape) > 2:
        raise DatasetError(f"{folder / _META}: the shape {shape} is neither (N,) nor (B, T)")
    return _Stored(shape, tensors, tuple(files), tuple(left))


def _entries(
    folder: Path, meta: dict[str, Any], above: str
) -> Iterator[tuple[str, Path, dict[str, Any]]]:
    """Yields the path, the file and the description of each tensor."""
    for name, entry in meta.items():
        if not isinstance(entry, dict):
            continue
        plain_name(name, folder / _META)
        if "shape" in entry:
            yield f"{above}{name}", folder / f"{name}.memmap", entry
        elif (folder / name / _META).is_file():
            inner = read_json(folder / name / _META, _WHAT)
            yield from _entries(folder / name, inner, f"{above}{name}/")


def _shape(value: Any, place: Path) -> tuple[int, ...]:
    if not isinstance(value, list) or any(type(size) is not int or size < 0 for size in value):
        raise DatasetError(f"{place}: '{value}' is no shape")
    return tuple(value)


def _map(file: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.memmap[Any, Any]:
    expected = math.prod(shape) * dtype.itemsize
    found = file.stat().st_size if file.is_file() else None
    if found != expected or not expected:
        there = "is missing" if found is None else f"has {found} bytes"
        raise DatasetError(
            f"{file} {there}, but {_META} says {expected}, for {dtype} {shape}; get it again"
        )
    return np.memmap(file, dtype, "r", shape=shape)


def _order(stored: _Stored, path: Path) -> tuple[Array, list[str]]:
    """Returns the rows `(N,)` in temporal order, and notes on them."""
    file = _storage(path) / "storage_metadata.json"
    writer = _storage(path).parent / "writer" / "metadata.json"
    size, width = stored.shape[0], math.prod(stored.shape[1:])
    filled = read_json(file, _WHAT).get("len", size) if file.is_file() else size
    if type(filled) is not int or not 0 < filled <= size:
        raise DatasetError(f"{file}: {filled} of {size} rows cannot be filled")
    rows, notes = np.arange(filled * width), list[str]()
    cursor = read_json(writer, _WHAT).get("cursor", 0) if writer.is_file() else 0
    if filled == size and width == 1 and type(cursor) is int and 0 < cursor < size:
        rows = np.roll(rows, -cursor)
        notes.append(f"the buffer went round: its oldest step is row {cursor}")
    mask = next((stored.tensors[name] for name in _MASKS if name in stored.tensors), None)
    if mask is not None and mask.shape == stored.shape:
        rows = rows[mask.reshape(-1)[rows].astype(bool)]
    if not len(rows):
        raise DatasetError(f"{path}: there are no steps in it, all are masked")
    return rows, notes


def _columns(stored: _Stored, rows: Array) -> dict[str, Any]:
    """Returns the columns in temporal order, renamed where TorchRL's names are not ours."""
    flat: dict[str, Any] = {
        name: _in_time(stored, tensor, rows) for name, tensor in stored.tensors.items()
    }
    found = {
        name: column
        for name, column in flat.items()
        if "/" not in name and name not in (*_NO_OBSERVATIONS, *_TRAJECTORIES, *_MASKS)
    }
    seen = [name for name in found if f"next/{name}" in flat]
    if len(seen) > 1:
        found = {name: column for name, column in found.items() if name not in seen}
        found["observations"] = {name: flat[name] for name in seen}
        found["next_observations"] = {name: flat[f"next/{name}"] for name in seen}
    elif seen:
        found = {name: column for name, column in found.items() if name not in seen}
        found |= {"observations": flat[seen[0]], "next_observations": flat[f"next/{seen[0]}"]}
    if "action" in flat:
        found["action"] = flat["action"]
    if "next/reward" in flat:
        found["rewards"] = flat["next/reward"]
    for name, role in _ENDS.items():
        if f"next/{name}" in flat:
            found[role] = flat[f"next/{name}"]
    numbers = next((name for name in _TRAJECTORIES if name in flat), None)
    if numbers is not None:
        found["episode"] = flat[numbers]
    if len(stored.shape) == 2:  # (B, T): each of B rows is a piece of one trajectory
        trajectory = rows // stored.shape[1]
        found["is_last"] = np.append(trajectory[1:] != trajectory[:-1], True)
    return found


def _in_time(stored: _Stored, tensor: np.memmap[Any, Any], rows: Array) -> LazyArray:
    """Returns the rows of a tensor in temporal order, which are read when they are used."""
    flat = tensor.reshape(-1, *tensor.shape[len(stored.shape) :])
    return LazyArray(
        (len(rows), *flat.shape[1:]),
        tensor.dtype,
        lambda first, last: np.asarray(flat[rows[first:last]]),
    )
