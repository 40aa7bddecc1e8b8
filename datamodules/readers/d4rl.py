"""Raw D4RL files: HDF5 with one flat array for each quantity, over all episodes.

`observations (N, D)`, `actions (N, A)`, `rewards (N,)`, `terminals (N,)`: the environment ended the
episode at this step; `timeouts (N,)`: the time limit did. What follows the last end was cut off
when the data were made, so that its returns are not known: it is left out, as the published code
does. `next_observations`, where they are there, give what followed the last action.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.source import (
    UNKNOWN_RETURN,
    OnBad,
    Source,
    known_mujoco,
    observation_box,
    refuse,
)
from rate.envs.spec import EnvironmentSpec

if TYPE_CHECKING:
    import h5py

_KEYS = ("observations", "actions", "rewards", "terminals")
_MAGIC = b"\x89HDF\r\n\x1a\n"
_COLUMNS = ("observations", "actions", "rewards", "next_observations")
_BLOCK_BYTES = 1 << 24
# What h5py raises for files that were cut off or changed.
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError, MemoryError)


@dataclass(frozen=True)
class _Layout:
    """Where the episodes of a file are.

    Attributes:
        ends: `(E,)` int64, one past the last step of each.
        terminated: `(E,)` bool.
        truncated: `(E,)` bool.
        unfinished: Steps after the last end.
    """

    ends: npt.NDArray[np.int64]
    terminated: npt.NDArray[np.bool_]
    truncated: npt.NDArray[np.bool_]
    unfinished: int

    @cached_property
    def starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[0], self.ends[:-1]])


def is_d4rl(path: Path) -> bool:
    """Whether a path is an HDF5 file."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def open_d4rl(path: Path, time_limit: int | None = None) -> Source:
    """A file as a source; reads which steps end episodes, and nothing else.

    Args:
        path: The file.
        time_limit: After how many steps an episode ends where the file has no `timeouts`.

    Raises:
        DatasetError: If the file is damaged, is no D4RL file, or has arrays that disagree.
    """
    with _open(path) as file:
        layout = _read_layout(file, path, time_limit)
        observations, actions = file["observations"], file["actions"]
        if actions.ndim != 2 or actions.dtype.kind != "f":
            raise DatasetError(f"{path}: actions are {actions.dtype} {actions.shape}, not (N, A)")
        spec = EnvironmentSpec(
            "d4rl",
            observation_box(observations.shape[1:], observations.dtype),
            spaces.Box(-1, 1, actions.shape[1:], np.float32),  # by D4RL's convention
            UNKNOWN_RETURN,
        )
    left = f"the last {layout.unfinished} steps are no whole episode and are left out"
    return Source(
        format="d4rl",
        path=path,
        files=(path,),
        spec=known_mujoco(spec, path.name, "v4"),
        read=partial(read_d4rl, path, time_limit=time_limit),
        num_episodes=len(layout.ends),
        num_steps=int(layout.ends[-1]),
        notes=(left,) if layout.unfinished else (),
    )


def read_d4rl(
    path: Path | str, start: int = 0, on_bad: OnBad = refuse, time_limit: int | None = None
) -> Iterator[Episode]:
    """The episodes of a file, one in memory at a time.

    Args:
        path: The file.
        start: The number of the first to read.
        on_bad: Told of each that cannot be read.
        time_limit: See `open_d4rl`.

    Raises:
        DatasetError: As `open_d4rl`.
    """
    path = Path(path)
    with _open(path) as file:
        layout = _read_layout(file, path, time_limit)
        columns = {key: _Blocks(file[key]) for key in _COLUMNS if key in file}
        for number in range(start, len(layout.ends)):
            try:
                yield _read_episode(columns, layout, number)
            except _DAMAGED as error:
                on_bad(DatasetError(f"{path}, episode {number}: cannot be read ({error})"))


def broken_chains(path: Path) -> Iterator[str]:
    """Steps whose `next_observations` are not the next step's, though no end is between them.

    Yields:
        What is wrong, naming the file, the episode and the step.
    """
    with _open(path) as file:
        if "next_observations" not in file or "timeouts" not in file:
            return
        layout = _read_layout(file, path, None)
        now, following = file["observations"], file["next_observations"]
        rows = _rows_at_once(now)
        for first in range(0, len(now) - 1, rows):
            last = min(first + rows, len(now) - 1)
            same = np.isclose(following[first:last], now[first + 1 : last + 1], equal_nan=True)
            ended = np.isin(np.arange(first, last) + 1, layout.ends)
            for row in np.flatnonzero(~same.all(axis=1) & ~ended) + first:
                number = int(np.searchsorted(layout.ends, row, side="right"))
                step = int(row - (layout.ends[number - 1] if number else 0))
                yield (
                    f"{path}, episode {number}: the next observation of step {step} is not that of "
                    f"step {step + 1}, though neither a terminal nor a time-out is between them"
                )


@contextmanager
def _open(path: Path) -> Iterator[h5py.File]:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            yield file
    except DatasetError:
        raise
    except _DAMAGED as error:
        raise DatasetError(
            f"{path}: a damaged or truncated HDF5 file ({error}); get it again"
        ) from error


def _read_layout(file: h5py.File, path: Path, time_limit: int | None) -> _Layout:
    missing = [key for key in _KEYS if not getattr(file.get(key), "shape", ())]
    if missing:
        raise DatasetError(
            f"{path}: not a D4RL file: there is no array {' and no '.join(missing)}; it has "
            f"{', '.join(sorted(file)[:12])}"
        )
    rows = len(file["actions"])
    if not rows:
        raise DatasetError(f"{path}: there are no steps in it")
    for key in (*_KEYS, "timeouts", "next_observations"):
        if key in file and len(file[key]) != rows:
            raise DatasetError(f"{path}: {key} has {len(file[key])} rows, but actions has {rows}")
    terminals = _flags(file, "terminals", path)
    if "timeouts" in file:
        timeouts = _flags(file, "timeouts", path)
    elif time_limit is not None:
        timeouts = _limit(terminals, time_limit)
    else:
        raise DatasetError(
            f"{path}: there are no timeouts, so that the file does not tell which episodes the "
            "time limit ended. Say after how many steps it does: --time-limit 1000 for MuJoCo"
        )
    ends = np.flatnonzero(terminals | timeouts) + 1
    if not len(ends):
        raise DatasetError(f"{path}: no episode ends: terminals and timeouts are all false")
    last = ends - 1
    return _Layout(ends, terminals[last], timeouts[last], rows - int(ends[-1]))


def _flags(file: h5py.File, key: str, path: Path) -> npt.NDArray[np.bool_]:
    """`(N,)` bool, checked to be 0 or 1."""
    flags: npt.NDArray[Any] = file[key][()]
    flags = flags.reshape(len(flags), -1)[:, 0] if flags.size == len(flags) else flags
    if flags.ndim != 1:
        raise DatasetError(f"{path}: {key} have shape {flags.shape}, not (N,)")
    wrong = (flags != 0) & (flags != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(f"{path}: {key} is {flags[row]} at row {row}, neither 0 nor 1")
    return flags.astype(bool)


def _limit(terminals: npt.NDArray[np.bool_], limit: int) -> npt.NDArray[np.bool_]:
    """The time-outs of a limit of so many steps after every terminal."""
    timeouts = np.zeros_like(terminals)
    bounds = [0, *(np.flatnonzero(terminals) + 1), len(terminals)]
    for first, last in pairwise(bounds):
        timeouts[first + limit - 1 : last : limit] = True
    return timeouts & ~terminals


class _Blocks:
    """Rows of an array on the disk, which is read in blocks that hold many episodes."""

    def __init__(self, data: Any) -> None:
        self._data, self._first = data, 0
        self._block: Array = data[:0]

    def rows(self, first: int, last: int) -> Array:
        if not self._first <= first <= last <= self._first + len(self._block):
            wanted = max(last, first + _rows_at_once(self._data))
            try:
                self._block, self._first = self._data[first:wanted], first
            except OSError:  # damage costs no other episode
                return np.asarray(self._data[first:last])
        return self._block[first - self._first : last - self._first]


def _rows_at_once(data: Any) -> int:
    return max(1, int(_BLOCK_BYTES // (data.dtype.itemsize * np.prod(data.shape[1:], dtype=int))))


def _read_episode(columns: dict[str, _Blocks], layout: _Layout, number: int) -> Episode:
    rows = int(layout.starts[number]), int(layout.ends[number])
    found = {key: blocks.rows(*rows) for key, blocks in columns.items()}
    following = found.get("next_observations")
    return Episode(
        observations=found["observations"],
        actions=found["actions"],
        rewards=found["rewards"].reshape(-1),
        terminated=bool(layout.terminated[number]),
        truncated=bool(layout.truncated[number]),
        last_observation=None if following is None else following[-1],
    )
