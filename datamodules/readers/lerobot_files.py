"""The metadata of LeRobot data sets of versions 2 and 3: where their episodes are."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.readers.arrow import arrow_errors, parquet_rows
from rate.files import load_json

_FIELD = re.compile(r"\{(\w+)(?::0?(\d)d)?\}")


@dataclass(frozen=True)
class Clip:
    """The part of a video file that shows an episode.

    Attributes:
        file: The file, below the data set's folder.
        start: Seconds from the file's first frame to the episode's.
    """

    file: Path
    start: float = 0.0


@dataclass(frozen=True)
class Part:
    """The place of an episode in the files of a data set.

    Attributes:
        number: Its `episode_index`.
        length: Its number of steps.
        file: The Parquet file of its rows, below the data set's folder.
        first: Its first row in this file.
        clips: Its videos, by feature.
    """

    number: int
    length: int
    file: Path
    first: int = 0
    clips: dict[str, Clip] = field(default_factory=dict)


@dataclass(frozen=True)
class Metadata:
    """The metadata of a data set, from the folder `meta`.

    Attributes:
        folder: The folder of the data set.
        fps: Steps per second.
        features: The features of a step by name, as in `info.json`.
        parts: The episodes.
        tasks: The number of tasks, each described by a text.
        splits: The names of the splits that are left out; `train` is read.
    """

    folder: Path
    fps: float
    features: dict[str, dict[str, Any]]
    parts: tuple[Part, ...]
    tasks: int
    splits: tuple[str, ...] = ()


def read_metadata(folder: Path) -> Metadata:
    """Returns the metadata of a data set.

    Raises:
        DatasetError: If it is damaged, of another version, or names files outside of the folder.
    """
    file = folder / "meta" / "info.json"
    try:
        info = load_json(file)
        version = str(info.get("codebase_version", "v2.0"))
        if not version.startswith(("v2.", "v3.")):
            raise DatasetError(
                f"{file}: the version {version} of LeRobot's format is not read, v2.0, v2.1 and "
                "v3.0 are; LeRobot's own scripts convert to these"
            )
        features = {name: dict(feature) for name, feature in info["features"].items()}
        videos = [name for name, feature in features.items() if feature["dtype"] == "video"]
        find = _parts_of_version_2 if version.startswith("v2.") else _parts_of_version_3
        parts = tuple(find(folder, info, videos))
        train, others = _choose_split(info.get("splits") or {}, len(parts))
        fps, tasks = float(info["fps"]), int(info.get("total_tasks", 1))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"{file}: not the description of a LeRobot data set ({error!r}); get it again"
        ) from error
    if not parts or fps <= 0 or min(part.length for part in parts) < 1:
        raise DatasetError(
            f"{file}: there are no episodes, one has no steps, or there are no steps in a second"
        )
    return Metadata(folder, fps, features, parts[train], tasks, others)


def _choose_split(splits: dict[str, str], episodes: int) -> tuple[slice, tuple[str, ...]]:
    """Returns the episodes of `train` if there are other splits, and the names of these.

    Raises:
        ValueError: If the split is no range of episodes.
    """
    others = tuple(sorted(set(splits) - {"train"}))
    if "train" not in splits or not others:
        return slice(None), ()
    first, last = (int(number) for number in splits["train"].split(":"))
    if not 0 <= first < last <= episodes:
        raise ValueError(f"the split train is {first}:{last} of {episodes} episodes")
    return slice(first, last), others


def _parts_of_version_2(folder: Path, info: dict[str, Any], videos: list[str]) -> Iterator[Part]:
    """Yields episodes that have a Parquet file, and a video for each camera, of their own."""
    file = folder / "meta" / "episodes.jsonl"
    if not file.is_file():
        raise DatasetError(f"{file} is missing; get the whole folder meta")
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            if not line.strip():
                continue
            try:
                entry = json.loads(line)
                index, length = int(entry["episode_index"]), int(entry["length"])
            except (ValueError, KeyError, TypeError) as error:
                raise DatasetError(f"{file}, line {number + 1}: damaged ({error!r})") from error
            values = {
                "episode_index": index,
                "episode_chunk": index // int(info.get("chunks_size", 1000)),
            }
            clips = {
                name: Clip(_below(info["video_path"], {**values, "video_key": name}))
                for name in videos
            }
            yield Part(index, length, _below(info["data_path"], values), clips=clips)


def _parts_of_version_3(folder: Path, info: dict[str, Any], videos: list[str]) -> Iterator[Part]:
    """Yields episodes that share Parquet and video files; tables say where they are."""
    files = sorted((folder / "meta" / "episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{folder}: there is no meta/episodes/*/*.parquet; get the whole folder")
    names = ["episode_index", "length", "dataset_from_index", "data/chunk_index", "data/file_index"]
    for video in videos:
        names += [f"videos/{video}/{key}" for key in ("chunk_index", "file_index")]
        names.append(f"videos/{video}/from_timestamp")
    starts: dict[Path, int] = {}  # of each Parquet file, among all rows
    for file in files:
        with arrow_errors(str(file)):
            rows = parquet_rows(file, names).rest().to_pylist()
        for row in rows:
            yield _part_of_version_3(info, videos, row, starts, file)


def _part_of_version_3(
    info: dict[str, Any],
    videos: list[str],
    row: dict[str, Any],
    starts: dict[Path, int],
    table: Path,
) -> Part:
    if None in row.values():
        empty = next(name for name, value in row.items() if value is None)
        raise DatasetError(f"{table}: episode {row['episode_index']} has no '{empty}'")

    def place(template: str, above: str, **more: str) -> Path:
        values = {key: row[f"{above}/{key}"] for key in ("chunk_index", "file_index")}
        return _below(template, {**values, **more})

    data = place(info["data_path"], "data")
    clips = {
        name: Clip(
            place(info["video_path"], f"videos/{name}", video_key=name),
            float(row[f"videos/{name}/from_timestamp"]),
        )
        for name in videos
    }
    first = int(row["dataset_from_index"])
    start = starts.setdefault(data, first)
    if first < start:
        raise DatasetError(f"{table}: the episodes of {data} are not in the order of their rows")
    return Part(int(row["episode_index"]), int(row["length"]), data, first - start, clips)


def _below(template: str, values: dict[str, Any]) -> Path:
    """Returns a path below the data set's folder.

    Raises:
        DatasetError: If it leads out of it.
    """

    def fill(found: re.Match[str]) -> str:
        value = values[found[1]]
        return str(value) if found[2] is None else f"{int(value):0{found[2]}d}"

    path = PurePosixPath(_FIELD.sub(fill, template))
    if path.is_absolute() or ".." in path.parts or "\\" in str(path) or "{" in str(path):
        raise DatasetError(
            f"info.json names the file {path}, which is not inside of the data set's folder; it "
            "is not read"
        )
    return Path(path)
