"""RL Unplugged's Atari data (Gulcehre et al. 2020): TFRecord shards of episodes.

A record is an episode: `observations`, a PNG for each single frame; `actions`;
`unclipped_rewards`, `clipped_rewards`; `discounts`, of which the last is 0 if the game was over.
Files that TensorFlow Datasets made of it (`rlu_atari`) have the same as `steps/observation`,
`steps/action`, `steps/reward`, `steps/is_terminal`. Both are read. Rewards are clipped to -1, 0
and 1, as for the agents that played.

The older copy, whose records are shuffled transitions (`o_t`, `a_t`, ...), holds no episodes and is
refused by name.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError, Episode
from datamodules.readers.atari_games import FRAME, atari_data_spec, known_game
from datamodules.readers.images import decode_image
from datamodules.readers.tfrecord import Feature, parse_example, read_records, record_files
from datamodules.source import OnBad, Source, raise_error

# What each quantity is called in either kind of file, the better one first.
_NAMES = {
    "observations": ("observations", "steps/observation"),
    "actions": ("actions", "steps/action"),
    "rewards": ("clipped_rewards", "unclipped_rewards", "steps/reward"),
}
_ENDS = ("discounts", "steps/is_terminal", "steps/discount")
_MOST_ACTIONS = 18


def is_rl_unplugged(path: Path) -> bool:
    """Whether a path is a shard of records, or a folder of them."""
    return bool(record_files(path))


def open_rl_unplugged(path: Path) -> Source:
    """Opens shards as a source; reads the first episode.

    Raises:
        DatasetError: If that is damaged or has another content.
    """
    files = tuple(record_files(path))
    game = known_game(path)
    next(read_rl_unplugged(path), None)  # refuses other files at once
    notes = ["rewards are clipped to -1, 0 and 1"]
    if game is None:
        notes.append(
            "no folder names the game, so that the actions are taken to be all 18; for fewer "
            "convert with --environment atari --env.game NAME"
        )
    return Source(
        format="rl-unplugged",
        path=path,
        files=files,
        spec=atari_data_spec(game, _MOST_ACTIONS),
        read=partial(read_rl_unplugged, path),
        notes=tuple(notes),
    )


def read_rl_unplugged(
    path: Path | str, start: int = 0, on_bad: OnBad = raise_error
) -> Iterator[Episode]:
    """Yields the episodes of all shards in order, one in memory at a time.

    Args:
        path: A shard, or a folder of them.
        start: The number of the first to read.
        on_bad: Called with the error of each episode that cannot be read. The rest of a damaged
            shard is lost.
    """
    number = 0
    for file in record_files(Path(path)):
        try:
            for record in read_records(file):
                if number >= start:
                    try:
                        yield _read_episode(record, f"{file}, episode {number}")
                    except DatasetError as error:
                        on_bad(error)
                number += 1
        except DatasetError as error:
            on_bad(error)
            number += 1


def _read_episode(record: bytes, place: str) -> Episode:
    try:
        features = parse_example(record)
    except ValueError as error:
        raise DatasetError(f"{place}: no tf.train.Example ({error})") from error
    if "o_t" in features:
        raise DatasetError(
            f"{place}: the record is a single transition, as in the older copy of RL Unplugged, "
            "whose transitions are shuffled; get the episodes (rlu_atari) instead"
        )
    found = {name: _find(features, names, place) for name, names in _NAMES.items()}
    actions, rewards = _numbers(found, "actions", place), _numbers(found, "rewards", place)
    steps = len(actions)
    frames = found["observations"]
    if len(frames) and not isinstance(frames[0], bytes):
        raise DatasetError(
            f"{place}: not RL Unplugged's Atari data, as the observations are numbers, not images. "
            "Other data of TensorFlow Datasets are read where their features.json is beside the "
            "shards"
        )
    if len(frames) != steps or len(rewards) != steps:
        raise DatasetError(
            f"{place}: there are {len(frames)} observations and {len(rewards)} rewards, but "
            f"{steps} actions"
        )
    images = np.empty((steps, *FRAME.shape), np.uint8)
    for step, png in enumerate(frames):
        images[step] = _decode(png, f"{place}, step {step}")
    over = _is_over(features)
    return Episode(images, actions, np.clip(rewards, -1, 1), terminated=over, truncated=not over)


def _find(features: dict[str, Feature], names: tuple[str, ...], place: str) -> Feature:
    for name in names:
        if name in features:
            return features[name]
    raise DatasetError(
        f"{place}: not RL Unplugged's Atari data, as there is no {' or '.join(names)}; the record "
        f"has {', '.join(sorted(features)[:12])}. Other data of TensorFlow Datasets are read where "
        "their features.json is beside the shards"
    )


def _numbers(found: dict[str, Feature], name: str, place: str) -> Array:
    values = found[name]
    if isinstance(values, np.ndarray):
        return values
    raise DatasetError(f"{place}: the {name} are bytes, not numbers")


def _is_over(features: dict[str, Feature]) -> bool:
    """Whether the game was over, not only the time."""
    for name in _ENDS:
        values = features.get(name)
        if isinstance(values, np.ndarray) and len(values):
            return bool(values[-1]) == (name == "steps/is_terminal")
    return True


def _decode(png: Any, place: str) -> Array:
    """Decodes the PNG of a frame, `(84, 84)` uint8."""
    frame = decode_image(png, f"{place}: the frame", ("PNG",))
    frame = frame[..., 0] if frame.shape[-1] == 1 else frame
    if frame.shape != FRAME.shape:
        raise DatasetError(f"{place}: the frame is {frame.dtype} {frame.shape}, not {FRAME.shape}")
    return frame
