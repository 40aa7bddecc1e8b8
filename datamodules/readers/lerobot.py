"""LeRobot data sets of versions 2 and 3: a folder with `meta/info.json`.

The rows of Parquet files are steps. Features whose names start with `observation` are observations;
`action` is the action; there may be `next.reward` and `next.done`. Cameras are images in the rows,
or MP4 videos whose frames are found by their times. In version 2 each episode has its own files, in
version 3 files hold many. Texts, like that of the task, are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.arrow import RowReader, arrow_errors, lazy_images, numbers, parquet_rows
from datamodules.readers.end_kinds import NO_END_FLAGS
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.lerobot_files import Clip, Metadata, Part, read_metadata
from datamodules.readers.named import open_episodes
from datamodules.readers.roles import IGNORED
from datamodules.readers.video import has_pyav, read_frames
from datamodules.source import Source
from rate.advice import install

_ROLES = {
    "action": "actions",
    "next.reward": "rewards",
    "next.terminated": "terminated",
    "next.truncated": "truncated",
    "next.done": "dones",
}
_ENDS = ("terminated", "truncated", "dones", "terminals")
_CHANNELS = (1, 3, 4)  # that an image may have
_BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def is_lerobot(path: Path) -> bool:
    """Whether a path is the folder of a LeRobot data set."""
    return (path / "meta" / "info.json").is_file()


def open_lerobot(path: Path, options: Options | None = None) -> Source:
    """Opens a data set as a source.

    Raises:
        DatasetError: If its metadata are damaged or name files outside of its folder, files are
            missing, or it cannot be trained on.
    """
    options = options or Options()
    metadata, missing = _downloaded(read_metadata(path))
    chosen = _choose_columns(metadata, options)
    return open_episodes(
        "lerobot",
        path,
        _files(metadata, chosen),
        partial(_episodes, metadata, chosen),
        replace(options, columns=chosen.read),
        num_episodes=len(metadata.parts),
        notes=(*missing, *chosen.notes),
        place=lambda number: f"{path}, episode {metadata.parts[number].number}",
    )


def _downloaded(metadata: Metadata) -> tuple[Metadata, tuple[str, ...]]:
    """Returns the episodes whose files are here, and a note if others are not."""
    known = {part.file for part in metadata.parts}
    here = {file for file in known if (metadata.folder / file).is_file()}
    parts = tuple(part for part in metadata.parts if part.file in here)
    if not parts or len(here) == len(known):
        return metadata, ()
    example = next(part.file for part in metadata.parts if part.file not in here)
    note = (
        f"only {len(parts)} of the data set's {len(metadata.parts)} episodes are here: "
        f"{len(known) - len(here)} files are missing, {example} among them"
    )
    return replace(metadata, parts=parts), (note,)


@dataclass(frozen=True)
class _Columns:
    """The columns that are read.

    Attributes:
        roles: `(name, role)` of each column.
        notes: What is left out or assumed.
    """

    roles: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()

    @property
    def read(self) -> tuple[tuple[str, str], ...]:
        return tuple(pair for pair in self.roles if pair[1] != IGNORED)

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.read]


def _choose_columns(metadata: Metadata, options: Options) -> _Columns:
    """Returns the columns by the roles that a person gives them, else by their usual names."""
    features, given = metadata.features, dict(options.columns)
    for name in given:
        if name not in features:
            raise DatasetError(
                f"{metadata.folder}: there is no column '{name}'; it has {', '.join(features)}"
            )
    roles: list[tuple[str, str]] = []
    texts = []
    cameras = _missing_cameras(metadata)
    for name, feature in features.items():
        role = _ROLES.get(name, "observations" if name.startswith("observation") else "")
        if name in given or not role or role in given.values() or name in cameras:
            continue
        if _is_text(feature):
            texts.append(name)
        else:
            roles.append((name, role))
    chosen = _Columns((*given.items(), *roles))
    _check_videos(metadata, chosen.names)
    return replace(chosen, notes=tuple(_notes(metadata, chosen, texts, cameras)))


def _is_text(feature: dict[str, Any]) -> bool:
    return str(feature["dtype"]) in ("string", "language")


def _missing_cameras(metadata: Metadata) -> list[str]:
    """Returns the cameras of a folder that was downloaded without any video."""
    names = [name for name, item in metadata.features.items() if item["dtype"] == "video"]
    files = {part.clips[name].file for part in metadata.parts for name in names}
    return [] if any((metadata.folder / file).exists() for file in files) else names


def _check_videos(metadata: Metadata, names: list[str]) -> None:
    videos = [name for name in names if metadata.features[name]["dtype"] == "video"]
    if videos and not has_pyav():
        without = " ".join(f"--map {name}={IGNORED}" for name in videos)
        raise DatasetError(
            f"{metadata.folder}: {', '.join(videos)} are videos, which need PyAV: "
            f"{install('lerobot')} (or pip install av). "
            f"To leave them out: {without}"
        )


def _notes(
    metadata: Metadata, chosen: _Columns, texts: list[str], cameras: list[str]
) -> Iterator[str]:
    """Yields notes on what is left out or assumed."""
    if cameras:
        yield f"there are no videos in the folder; left out are {', '.join(cameras)}"
    if metadata.splits:
        yield f"only the split train is read; {', '.join(metadata.splits)} are left out"
    if texts:
        yield f"texts are left out: {', '.join(texts)}"
    if metadata.tasks > 1:
        yield (
            f"the data are of {metadata.tasks} tasks, told by texts, which are left out; "
            "--map task_index=observations, beside the other observations, tells the task's number"
        )
    read = {*dict(chosen.roles), *_BOOKKEEPING, *texts, *cameras}
    left = [name for name in metadata.features if name not in read]
    if left:
        yield f"not read: {', '.join(left)}"
    if not set(_ENDS) & set(dict(chosen.roles).values()):
        yield NO_END_FLAGS


def _files(metadata: Metadata, chosen: _Columns) -> tuple[Path, ...]:
    """Returns the files that are read, without those that are missing."""
    found = [Path("meta", "info.json")]
    for part in metadata.parts:
        found.append(part.file)
        found += [clip.file for name, clip in part.clips.items() if name in chosen.names]
    files = [metadata.folder / file for file in dict.fromkeys(found)]
    return tuple(file for file in files if file.is_file())


def _episodes(
    metadata: Metadata, chosen: _Columns, start: int
) -> Iterator[Mapping[str, Any] | DatasetError]:
    """Yields the columns of each episode. A file is opened once for its episodes in order."""
    opened: tuple[Path, RowReader] | None = None
    for part in metadata.parts[start:]:
        file = metadata.folder / part.file
        try:
            with arrow_errors(str(file)):
                if not file.is_file():
                    raise DatasetError(f"{file} is missing; get it, the data set is not whole")
                if opened is None or opened[0] != file or opened[1].position > part.first:
                    opened = file, _open_rows(metadata, chosen, file)
                table = _rows_of(part, opened[1], file)
                yield _columns(metadata, chosen, part, table, f"{file}, episode {part.number}")
        except DatasetError as error:
            opened = None
            yield error


def _open_rows(metadata: Metadata, chosen: _Columns, file: Path) -> RowReader:
    kinds = {name: metadata.features[name]["dtype"] for name in chosen.names}
    stored = [name for name, kind in kinds.items() if kind != "video"]
    names = dict.fromkeys([*stored, *_needed(metadata)])
    return parquet_rows(file, list(names), images="image" in kinds.values())


def _needed(metadata: Metadata) -> list[str]:
    return [name for name in ("episode_index", "timestamp") if name in metadata.features]


def _rows_of(part: Part, reader: RowReader, file: Path) -> Any:
    """Returns the rows of an episode, and checks that the file has as many as the metadata say."""
    table = reader.rows(part.first, part.first + part.length)
    after = reader.rows(part.first + part.length, part.first + part.length + 1)
    if table is None:
        raise DatasetError(
            f"{file}: there are fewer rows than the {part.length} of episode {part.number}; the "
            "file is not whole"
        )
    if "episode_index" in table.column_names:
        found = numbers(table["episode_index"], f"{file}: episode_index")
        rest = None if after is None else numbers(after["episode_index"], "episode_index")
        if (found != part.number).any() or (rest is not None and rest[0] == part.number):
            raise DatasetError(
                f"{file}: the rows of episode {part.number} are not the {part.length} that the "
                "metadata say; the file and the folder meta are not of one data set"
            )
    return table


def _columns(
    metadata: Metadata, chosen: _Columns, part: Part, table: Any, place: str
) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, role in chosen.read:
        feature = metadata.features[name]
        if feature["dtype"] == "video":
            times = _times(metadata, table, part, place)
            columns[name] = _video(metadata, part.clips[name], times, _frame_shape(feature))
        elif feature["dtype"] == "image":
            columns[name] = lazy_images(table[name], f"{place}: {name}", _frame_shape(feature))
        else:
            columns[name] = numbers(table[name], f"{place}: {name}")
            if role in _ENDS:  # episodes share a number; flags inside one are ignored
                columns[name] = bool(columns[name][-1:].any())
    return columns


def _times(metadata: Metadata, table: Any, part: Part, place: str) -> Array:
    """Returns the time of each frame since the first of the episode, `(T,)` in seconds."""
    if "timestamp" not in table.column_names:
        return np.arange(part.length) / metadata.fps
    times = numbers(table["timestamp"], f"{place}: timestamp").astype(np.float64).reshape(-1)
    if not np.isfinite(times).all() or (np.diff(times) <= 0).any():
        raise DatasetError(f"{place}: the times of the frames (timestamp) do not ascend")
    return times


def _frame_shape(feature: dict[str, Any]) -> tuple[int, int, int]:
    """Returns the shape of a camera's decoded frames, `(H, W, C)`."""
    shape, names = feature["shape"], feature.get("names")
    if len(shape) != 3:
        raise DatasetError(f"a camera's frames have the shape {shape}, not that of an image")
    height, width, channels = (int(size) for size in shape)
    first = isinstance(names, list) and bool(names) and str(names[0]).startswith("channel")
    first = first or (height in _CHANNELS and channels not in _CHANNELS)
    return (width, channels, height) if first else (height, width, channels)


def _video(metadata: Metadata, clip: Clip, times: Array, shape: tuple[int, int, int]) -> LazyArray:
    file, times = metadata.folder / clip.file, times + clip.start
    return LazyArray(
        (len(times), *shape),
        np.uint8,
        lambda first, last: read_frames(file, times[first:last], metadata.fps, shape),
    )
