"""Episodes of TensorFlow Datasets (RLDS): a folder with `features.json` and TFRecord shards.

A record is an episode with a nested series of `steps`. Each has `observation`, `action`, `reward`
(of this action), `is_first`, `is_last` and `is_terminal`. The last step holds only the last
observation; its action and reward are undefined and are not read. The environment ended the episode
if that step `is_terminal`, otherwise it was truncated. TensorFlow is not needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.atari_games import FRAME
from datamodules.readers.dmlab import dmlab_spec
from datamodules.readers.json_files import read_json
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.named import open_episodes
from datamodules.readers.roles import IGNORED
from datamodules.readers.tfds_features import StepFeature, read_step_features, step_array
from datamodules.readers.tfrecord import Feature, parse_example, read_records, record_files
from datamodules.source import Source

_SPLIT = re.compile(
    r"(?:.*-)?(?P<split>[^-.]+)(?:\.tfrecord)?-(?P<number>\d{5})-of-(?P<count>\d{5}).*"
)
_MOST_RECORDS = 1 << 20  # of a shard
_METADATA = ("is_first", "is_last", "is_terminal", "discount")


@dataclass(frozen=True)
class _Contents:
    """The shards of a data set and the features of their records.

    Attributes:
        files: The shards that are read, in order.
        lengths: The number of episodes in each, where `dataset_info.json` says it.
        features: The features of a step, by path.
        notes: What is left out.
        name: The name of the data set; its path ends with the version instead.
    """

    files: tuple[Path, ...]
    lengths: tuple[int | None, ...]
    features: dict[str, StepFeature]
    notes: tuple[str, ...]
    name: str


def is_rlds(path: Path) -> bool:
    """Whether a path is such a folder or one of its shards, but not of RL Unplugged's Atari."""
    folder = path if path.is_dir() else path.parent
    if not (folder / "features.json").is_file() or not (path.is_dir() or record_files(path)):
        return False
    try:
        features = read_step_features(folder / "features.json")
    except DatasetError:
        return True
    seen = features.get("observation")
    return seen is None or seen.kind != "image" or seen.shape != (*FRAME.shape, 1)


def open_rlds(path: Path, options: Options | None = None) -> Source:
    """Opens a folder, or a shard in it, as a source.

    Raises:
        DatasetError: If it is damaged, or holds no episodes.
    """
    options = options or Options()
    contents = _read_contents(path, dict(options.columns))
    columns = tuple(pair for pair in options.columns if pair[0] not in _METADATA)
    return open_episodes(
        "rlds",
        path,
        contents.files,
        partial(_episodes, contents),
        replace(options, columns=columns),
        None if None in contents.lengths else sum(length or 0 for length in contents.lengths),
        contents.notes + _last_reward(contents),
        spec=None if options.columns else dmlab_spec(contents.name, contents.features),
        name=contents.name,
    )


def _last_reward(contents: _Contents) -> tuple[str, ...]:
    """Returns a note on the last step, whose action and reward RLDS leaves undefined."""
    if "is_last" not in contents.features:
        return ()
    reward = 0.0
    with suppress(DatasetError, ValueError, KeyError, IndexError, TypeError):
        record = next(read_records(contents.files[0]), b"")
        reward = float(parse_example(record)["steps/reward"][-1])
    return (
        "the last step of an episode (is_last) is what followed the last action; RLDS leaves its "
        "own action and reward undefined, and they are not read"
        + (f" (the first episode has a reward of {reward:g} there)" if reward else "")
        + ". --map is_last=none reads the action and reward of every step",
    )


def _episodes(contents: _Contents, start: int) -> Iterator[Mapping[str, Any] | DatasetError]:
    number = 0
    for file, length in zip(contents.files, contents.lengths, strict=True):
        if length is not None and number + length <= start:
            number += length
            continue
        end, place = (None if length is None else number + length), number
        error = DatasetError(f"{file}: there are fewer than its {length} episodes")
        try:
            for record in read_records(file):
                if number == end:
                    raise DatasetError(f"{file}: there are more than its {length} episodes")
                if number >= start:
                    yield _episode(record, contents.features, f"{file}, episode {number - place}")
                number += 1
        except DatasetError as damage:
            if number == end:  # more than there should be
                raise
            error, end = damage, number + 1 if end is None else end
        lost = range(number, number if end is None else end)  # with the rest of the file
        for _ in range(max(lost.start, start), lost.stop):
            yield error
        number = lost.stop


def _episode(
    record: bytes, features: dict[str, StepFeature], place: str
) -> Mapping[str, Any] | DatasetError:
    try:
        return _columns(record, features, place)
    except DatasetError as error:
        return error


def _read_contents(path: Path, mapped: dict[str, str]) -> _Contents:
    """Returns the files to read and the features of their records.

    Args:
        path: The folder or a shard.
        mapped: Roles that a person gives to features; those in `_METADATA` matter here.
    """
    folder = path if path.is_dir() else path.parent
    features = read_step_features(folder / "features.json")
    info = _information(folder / "dataset_info.json")
    files, notes = _choose_shards(path, info)
    left = sorted(name for name, feature in features.items() if not feature.readable)
    joined = _action_parts(features)
    if joined:
        notes.append(f"the actions are joined of {', '.join(joined)}")
    if left:
        notes.append(f"{', '.join(left)}: not a fixed number of numbers or an image; left out")
    return _Contents(
        files=tuple(files),
        lengths=tuple(_num_records(file, info) for file in files),
        features={
            name: item
            for name, item in features.items()
            if item.readable and not (name in _METADATA and mapped.get(name) == IGNORED)
        },
        notes=tuple(notes),
        name=str(info.get("name", "")),
    )


def _information(file: Path) -> dict[str, Any]:
    """Returns `dataset_info.json`; empty where there is none."""
    return read_json(file, "a data set") if file.is_file() else {}


def _choose_shards(path: Path, info: dict[str, Any]) -> tuple[list[Path], list[str]]:
    """Returns the shards to read, and notes on them."""
    files, notes = record_files(path), []
    if not files:
        kind = str(info.get("fileFormat", "tfrecord"))
        raise DatasetError(
            f"{path}: there are no TFRecord shards"
            + ("" if kind == "tfrecord" else f"; the data are stored as {kind}, which is not read")
        )
    if path.is_dir():
        splits = {file: _shard(file)[0] for file in files}
        others = sorted(set(splits.values()) - {"train"})
        if "train" in splits.values() and others:
            files = [file for file in files if splits[file] == "train"]
            notes.append(
                f"only the split train is read; name a file to read of {', '.join(others)}"
            )
        count = max(_shard(file)[2] for file in files)
        if count > len(files) and len({splits[file] for file in files}) == 1:
            notes.append(f"only {len(files)} of the data set's {count} shards are here")
    return files, notes


def _shard(file: Path) -> tuple[str, int, int]:
    """Returns the split, the number and the count of a shard; `("", 0, 1)` for an unknown name."""
    found = _SPLIT.fullmatch(file.name)
    return (found["split"], int(found["number"]), int(found["count"])) if found else ("", 0, 1)


def _num_records(file: Path, info: dict[str, Any]) -> int | None:
    """Returns the number of records of a shard, where `dataset_info.json` says it."""
    split, number, count = _shard(file)
    for known in info.get("splits", []):
        lengths = known.get("shardLengths", [])
        if known.get("name") == split and len(lengths) == count:
            length = int(lengths[number])
            if not 0 <= length <= _MOST_RECORDS:
                raise DatasetError(f"{file}: dataset_info.json says that it has {length} episodes")
            return length
    return None


def _columns(record: bytes, features: dict[str, StepFeature], place: str) -> dict[str, Any]:
    """Returns the columns of an episode; observations may have one row more."""
    try:
        found = parse_example(record)
    except ValueError as error:
        raise DatasetError(f"{place}: no tf.train.Example ({error})") from error
    steps = _num_steps(found, features, place)
    columns: dict[str, Any] = {
        name: step_array(found, name, feature, steps, place) for name, feature in features.items()
    }
    joined = _action_parts(features)
    if joined:
        flat = [columns.pop(name).reshape(steps, -1).astype(np.float32) for name in joined]
        columns["action"] = np.concatenate(flat, axis=1)
    flags = {name: columns.pop(name) for name in _METADATA if name in columns}
    ended = _is_ended(flags, place)
    rows = steps - ended
    terminated = _is_terminal(flags, rows)
    nested = _nested({name: _head(values, rows) for name, values in columns.items()})
    if ended:
        seen = {name: values for name, values in columns.items() if _is_observation(name)}
        nested |= _nested(seen)
    return {**nested, "terminated": terminated, "truncated": not terminated}


def _head(column: Any, rows: int) -> Any:
    return column.head(rows) if isinstance(column, LazyArray) else column[:rows]


def _action_parts(features: dict[str, StepFeature]) -> list[str]:
    """Returns the parts of actions that are dictionaries, as those of robots often are."""
    return [
        name
        for name, feature in features.items()
        if name.startswith("action/") and feature.kind == "tensor" and feature.readable
    ]


def _is_observation(name: str) -> bool:
    return name.partition("/")[0] == "observation"


def _num_steps(found: dict[str, Feature], features: dict[str, StepFeature], place: str) -> int:
    """Returns the number of steps of an episode, by a feature with one value per step."""
    single = [name for name, feature in features.items() if feature.single]
    pictures = [name for name, feature in features.items() if feature.kind == "image"]
    for name in (*single, *pictures):
        if f"steps/{name}" in found:
            return len(found[f"steps/{name}"])
    raise DatasetError(f"{place}: no feature has one value a step, so its length is not known")


def _is_ended(flags: dict[str, Array], place: str) -> bool:
    """Whether the last step is marked `is_last`, so that it has only an observation."""
    for name, wrong in (("is_first", slice(1, None)), ("is_last", slice(0, -1))):
        early = np.flatnonzero(flags.get(name, np.zeros(0))[wrong])
        if early.size:
            step = int(early[0]) + (name == "is_first")
            raise DatasetError(f"{place}: {name} is set at step {step}, inside of the episode")
    last = flags.get("is_last", np.zeros(0))
    return bool(last.size and last[-1])


def _is_terminal(flags: dict[str, Array], rows: int) -> bool:
    """Whether the environment ended an episode of `rows` actions."""
    if "is_terminal" in flags:
        return bool(flags["is_terminal"][-1:].any())
    return "discount" in flags and rows > 0 and bool(flags["discount"][rows - 1] == 0)


def _nested(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Returns columns by paths like `observation/pixels` as nested dictionaries."""
    found: dict[str, Any] = {}
    for path, values in columns.items():
        *above, name = path.split("/")
        part = found
        for key in above:
            part = part.setdefault(key, {})
        part[name] = values
    return found
