"""The DQN Replay Dataset: the experience of a DQN agent during training (Agarwal et al. 2020).

A run has a folder `replay_logs` of checkpoints of the agent's replay memory. Checkpoint `N` is a
file for each quantity, `$store$_observation_ckpt.N.gz` and `action`, `reward` and `terminal`
likewise: a gzipped `.npy` of a million rows, of single frames `(rows, 84, 84)` and of rewards that
are clipped to -1, 0 and 1. Three properties are
not documented, but follow from the code that wrote the data:

- Three rows of zero padding precede each episode, so that its first frames can be stacked. They are
  not steps and are left out; `data.frame_stack` pads with zeros itself.
- Not all rows of a checkpoint are newer than the previous one; `add_count_ckpt.N.gz` says how many.
- A game was truncated after 27,000 steps, half an hour, and its end is marked like any other.

Checkpoints are read one by one. A checkpoint other than the first starts inside an episode, and
ends inside another. These parts, whose returns are unknown, are left out.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from bisect import bisect
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.npy import BAD_HEADER
from datamodules.readers.atari_games import FRAME, atari_data_spec, known_game
from datamodules.source import OnBad, Source, raise_error
from rate.envs.atari import LONGEST

_MOST_BYTES = 1 << 27  # of a number for each of a million rows, by far
_OBSERVATION = re.compile(r"\$store\$_observation_ckpt\.(\d+)\.gz")
_PADDING = 3  # rows of zeros before an episode
_MOST_FRAMES = LONGEST + 2 * _PADDING
_FRAME_BYTES = int(np.prod(FRAME.shape))
_DAMAGED = (OSError, EOFError, zlib.error, *BAD_HEADER)


@dataclass(frozen=True)
class _Checkpoint:
    """One checkpoint of the replay memory, without its frames.

    Attributes:
        observations: The file of the frames.
        actions: `(rows,)`.
        rewards: `(rows,)`.
        ends: `(E,)` one past the last row of each whole episode.
        first: The first row of the first whole episode.
    """

    observations: Path
    actions: Array
    rewards: Array
    ends: npt.NDArray[np.int64]
    first: int

    @property
    def starts(self) -> npt.NDArray[np.int64]:
        return np.concatenate([[self.first], self.ends[:-1]])


def is_dqn_replay(path: Path) -> bool:
    """Whether a folder, or its `replay_logs`, has checkpoints of frames."""
    return bool(_frame_files(path))


def open_dqn_replay(path: Path) -> Source:
    """Opens a run as a source; reads all but the frames.

    Raises:
        DatasetError: If a file is missing, damaged or disagrees with another, or no episode ends.
    """
    files = _frame_files(path)
    game, bounds, steps, highest = known_game(path), [0], 0, 0
    for file in files:
        checkpoint = _open_checkpoint(file)
        bounds.append(bounds[-1] + len(checkpoint.ends))
        steps += int(checkpoint.ends[-1]) - checkpoint.first
        highest = max(highest, int(checkpoint.actions.max()))
    return Source(
        format="dqn-replay",
        path=path,
        files=tuple(sibling for file in files for sibling in _siblings(file).values()),
        spec=atari_data_spec(game, highest + 1),
        read=partial(read_dqn_replay, path),
        num_episodes=bounds[-1],
        num_steps=steps,
        place=lambda number: f"{path}, checkpoint {_number(files[bisect(bounds, number) - 1])}",
        notes=("parts of episodes at the ends of checkpoints are left out",),
    )


def read_dqn_replay(
    path: Path | str, start: int = 0, on_bad: OnBad = raise_error
) -> Iterator[Episode]:
    """Yields the whole episodes of a run, checkpoint by checkpoint, one in memory at a time.

    Args:
        path: The run's folder, or its `replay_logs`.
        start: The number of the first to read.
        on_bad: Called with the error of each episode that cannot be read.

    Raises:
        DatasetError: As `open_dqn_replay`.
    """
    number = 0
    for file in _frame_files(Path(path)):
        checkpoint = _open_checkpoint(file)
        skip = min(max(start - number, 0), len(checkpoint.ends))
        number += skip
        for episode in _read_checkpoint(checkpoint, skip, number):
            if isinstance(episode, DatasetError):
                on_bad(episode)
            else:
                yield episode
            number += 1


def _read_checkpoint(
    checkpoint: _Checkpoint, skip: int, number: int
) -> Iterator[Episode | DatasetError]:
    """Yields episodes of a checkpoint from `skip` on; `number` counts them in the run."""
    path = checkpoint.observations
    if skip == len(checkpoint.ends):
        return
    problem = ""
    with gzip.open(path) as file:
        beginning = _read_header(file, path, len(checkpoint.actions))
        for first, end in zip(checkpoint.starts[skip:], checkpoint.ends[skip:], strict=True):
            rows = slice(int(first), int(end))
            try:
                if problem:
                    raise EOFError(problem)
                file.seek(beginning + rows.start * _FRAME_BYTES)
                frames = _read_frames(file, rows.stop - rows.start)
            except _DAMAGED as error:  # and so is all that follows
                problem = str(error)
                yield DatasetError(f"{path}, episode {number}: damaged or truncated ({error})")
            else:
                if end == checkpoint.ends[-1]:
                    # Before the last episode is yielded: the caller may stop after it.
                    _check_sum(file, path)
                yield _without_padding(frames, checkpoint.actions[rows], checkpoint.rewards[rows])
            number += 1


def _check_sum(file: Any, path: Path) -> None:
    """Reads the rest of a file, so that gzip compares the checksum of all frames."""
    try:
        while file.read(_FRAME_BYTES):
            pass
    except _DAMAGED as error:
        raise DatasetError(
            f"{path}: damaged ({error}), in an unknown episode; get it again"
        ) from error


def _without_padding(frames: Array, actions: Array, rewards: Array) -> Episode:
    first = 0
    while first < min(_PADDING, len(actions) - 1) and _is_padding(frames[first]):
        first += 1
    is_cut = len(actions) - first == LONGEST
    return Episode(
        frames[first:], actions[first:], rewards[first:], terminated=not is_cut, truncated=is_cut
    )


def _is_padding(frame: Array) -> bool:
    return not frame.any()


def _frame_files(path: Path) -> list[Path]:
    """Returns the files of frames, in the order of their checkpoints."""
    for folder in (path, path / "replay_logs"):
        if folder.is_dir():
            files = [file for file in folder.iterdir() if _OBSERVATION.fullmatch(file.name)]
            if files:
                return sorted(files, key=_number)
    return []


def _number(file: Path) -> int:
    return int(_OBSERVATION.fullmatch(file.name)[1])  # type: ignore[index]


def _siblings(file: Path) -> dict[str, Path]:
    """Returns the files of a checkpoint by quantity, from that of its frames."""
    names = ("observation", "action", "reward", "terminal")
    return {name: file.with_name(f"$store$_{name}_ckpt.{_number(file)}.gz") for name in names}


def _open_checkpoint(file: Path) -> _Checkpoint:
    """Reads all of a checkpoint but its frames."""
    paths = _siblings(file)
    actions, rewards, terminals = (_load(paths[n]) for n in ("action", "reward", "terminal"))
    for name, array in (("action", actions), ("reward", rewards), ("terminal", terminals)):
        if array.shape != (len(terminals),):
            raise DatasetError(
                f"{paths[name]}: has shape {array.shape}, but there are {len(terminals)} terminals"
            )
    wrong = (terminals != 0) & (terminals != 1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DatasetError(f"{paths['terminal']}: {terminals[row]} at row {row} is not 0 or 1")
    with gzip.open(file) as frames:
        _read_header(frames, file, len(terminals))
        try:
            whole = _number(file) == 0 or _is_padding(_read_frames(frames, 1))
        except _DAMAGED as error:
            raise DatasetError(f"{file}: damaged or truncated ({error})") from error
    ends = np.flatnonzero(terminals[: _written(file, len(terminals))]) + 1
    first = 0 if whole or not len(ends) else int(ends[0])
    ends = ends if whole else ends[1:]
    if not len(ends):
        raise DatasetError(f"{paths['terminal']}: there is no whole episode in this checkpoint")
    return _Checkpoint(file, actions, rewards, ends, first)


def _written(file: Path, rows: int) -> int:
    """Returns how many rows of a checkpoint are newer than the previous checkpoint."""
    counter = file.with_name(f"add_count_ckpt.{_number(file)}.gz")
    return int(_load(counter)) % rows or rows if counter.is_file() else rows


def _load(path: Path) -> Array:
    """Returns a gzipped array of numbers."""
    try:
        with gzip.open(path) as file:
            content = file.read(_MOST_BYTES + 1)  # to the checksum
        if len(content) > _MOST_BYTES:
            raise ValueError(f"more than {_MOST_BYTES:,} bytes")
        array: Array = np.load(io.BytesIO(content))
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: is missing; a checkpoint has a file a quantity") from error
    except _DAMAGED as error:
        raise DatasetError(f"{path}: damaged or truncated ({error}); get it again") from error
    if not isinstance(array, np.ndarray):  # an archive of several
        raise DatasetError(f"{path}: not a single array; get it again")
    if array.dtype.kind not in "iufb":
        raise DatasetError(f"{path}: holds {array.dtype}, not numbers")
    return array


def _read_header(file: Any, path: Path, rows: int) -> int:
    """Returns where the frames start in a gzipped `.npy`, whose header is checked."""
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            read = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read(file)
    except _DAMAGED as error:
        raise DatasetError(f"{path}: damaged, or no gzipped array ({error})") from error
    if shape != (rows, *FRAME.shape) or dtype != np.uint8 or fortran:
        raise DatasetError(
            f"{path}: has {dtype} {shape}, but {rows} frames of {FRAME.shape} uint8 are wanted"
        )
    return int(file.tell())


def _read_frames(file: Any, count: int) -> Array:
    """Returns the next frames, `(count, 84, 84)` uint8."""
    if count > _MOST_FRAMES:
        raise ValueError(f"{count:,} frames, but an episode has at most {LONGEST:,} steps")
    data = file.read(count * _FRAME_BYTES)
    if len(data) < count * _FRAME_BYTES:
        raise EOFError("the file ends before its last frame")
    return np.frombuffer(data, np.uint8).reshape(count, *FRAME.shape)
