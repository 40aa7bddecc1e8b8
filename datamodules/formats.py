"""Every format that data can come in. A new one is one entry here, or in another package.

A package registers a `Format` of its own in the entry-point group `rate.formats`; one that is in no
package is named by its import path (`--format my_package.logs:FORMAT`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from gymnasium import spaces

from datamodules.episodes import DatasetError, Episode
from datamodules.options import Options
from datamodules.readers.d3rlpy import is_d3rlpy, open_d3rlpy
from datamodules.readers.dqn_replay import is_dqn_replay, open_dqn_replay
from datamodules.readers.hdf5 import is_d4rl, is_hdf5, open_hdf5
from datamodules.readers.hf_dataset import is_hf_dataset, open_hf_dataset
from datamodules.readers.lerobot import is_lerobot, open_lerobot
from datamodules.readers.memory_maze import is_memory_maze, open_memory_maze
from datamodules.readers.minari_source import is_minari, open_minari_source
from datamodules.readers.npz_files import is_npz, open_npz_files
from datamodules.readers.own_store import is_store, open_store
from datamodules.readers.rl_unplugged import is_rl_unplugged, open_rl_unplugged
from datamodules.readers.rlds import is_rlds, open_rlds
from datamodules.readers.robomimic import is_robomimic, open_robomimic
from datamodules.readers.table_files import is_table, open_table_files
from datamodules.readers.tianshou import is_tianshou, open_tianshou
from datamodules.readers.tmaze import is_tmaze_pickle, open_tmaze_pickle
from datamodules.readers.torchrl import is_torchrl, open_torchrl
from datamodules.readers.trajectories import is_pickle, open_trajectories
from datamodules.readers.unknown_paths import (
    OWN_ARRAYS,
    above,
    describe,
    find_pipe,
    first_words,
    inside,
    missing_among,
    not_downloaded,
    unreadable,
)
from datamodules.source import OnBad, Source
from datamodules.store import Store
from datamodules.store_manifest import NoStoreError
from rate.envs.recorded import about, differences
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError, parsing, shortened
from rate.registry import Registry

__all__ = ["FORMATS", "Format", "Options", "find_format", "find_store", "open_source"]


_SMALL_BYTES = 2048  # the largest placeholder of a file, such as a Git LFS pointer


@dataclass(frozen=True)
class Format:
    """A format of data sets.

    Attributes:
        name: Its short name.
        what: A description of its files, for messages.
        matches: Whether a path is of the format. It is quick, and True for damaged files as well.
        open: Opens a path as a source.
    """

    name: str
    what: str
    matches: Callable[[Path], bool]
    open: Callable[[Path, Options], Source]


def _plain(open_path: Callable[[Path], Source]) -> Callable[[Path, Options], Source]:
    return lambda path, options: open_path(path)


# The first that matches is taken.
FORMATS: tuple[Format, ...] = (
    Format(
        "store", "a trajectory store (a folder with manifest.json)", is_store, _plain(open_store)
    ),
    Format(
        "minari",
        "a Minari data set (a folder with data/metadata.json)",
        is_minari,
        _plain(open_minari_source),
    ),
    Format(
        "lerobot",
        "a LeRobot data set, v2 or v3 (a folder with meta/info.json)",
        is_lerobot,
        open_lerobot,
    ),
    Format(
        "rlds",
        "episodes of TensorFlow Datasets, RLDS (a folder with features.json and TFRecord shards)",
        is_rlds,
        open_rlds,
    ),
    Format(
        "torchrl",
        "a TensorDict or replay buffer of TorchRL (a folder with meta.json and .memmap files)",
        is_torchrl,
        open_torchrl,
    ),
    Format(
        "huggingface",
        "a Hugging Face data set that was saved to the disk (a folder with state.json)",
        is_hf_dataset,
        open_hf_dataset,
    ),
    Format(
        "table",
        "a Parquet or Arrow file with named columns (a row is a step or an episode), or a folder "
        "of such files",
        is_table,
        open_table_files,
    ),
    Format("d3rlpy", "a replay buffer of d3rlpy 2 (HDF5)", is_d3rlpy, open_d3rlpy),
    Format(
        "robomimic",
        "demonstrations of robomimic, robosuite and LIBERO (HDF5 with data/demo_N)",
        is_robomimic,
        open_robomimic,
    ),
    Format("tianshou", "a replay buffer of tianshou (HDF5)", is_tianshou, open_tianshou),
    Format("d4rl", "a D4RL file (HDF5)", is_d4rl, open_hdf5),
    Format(
        "hdf5",
        "an HDF5 file with named columns, or with a group for each episode",
        is_hdf5,
        open_hdf5,
    ),
    Format(
        "dqn-replay",
        "a run of DQN-replay ($store$_observation_ckpt.N.gz and so on, in a folder or replay_logs)",
        is_dqn_replay,
        _plain(open_dqn_replay),
    ),
    Format(
        "rl-unplugged",
        "episodes of RL Unplugged's Atari data (TFRecord shards: NAME-00000-of-00100)",
        is_rl_unplugged,
        _plain(open_rl_unplugged),
    ),
    Format(
        "rate-tmaze",
        "the RATE paper's T-Maze (a pickled dictionary of episodes)",
        is_tmaze_pickle,
        _plain(open_tmaze_pickle),
    ),
    Format(
        "trajectories",
        "trajectories of the Decision Transformer's code (a pickled list of episodes)",
        is_pickle,
        open_trajectories,
    ),
    Format(
        "memory-maze",
        "Memory Maze data (a folder of .npz files with its 64x64 frames)",
        is_memory_maze,
        open_memory_maze,
    ),
    Format(
        "npz",
        "an .npz file with named columns, or a folder with one for each episode",
        is_npz,
        open_npz_files,
    ),
)


REGISTRY: Registry[Format] = Registry(
    setting="data.reading.format",
    group="rate.formats",
    own={known.name: known for known in FORMATS},
    accepts=lambda found: isinstance(found, Format),
    kind="a datamodules.formats.Format",
)


def find_format(path: Path | str) -> Format | None:
    """Returns the format of a file or folder, if it is known and may be read; others' come first.

    Raises:
        ConfigError: If a format that a package registers cannot be imported.
    """
    path = Path(path)
    try:
        known = () if find_pipe(path) else (*REGISTRY.foreign(), *FORMATS)
        return next((each for each in known if path.exists() and each.matches(path)), None)
    except PermissionError:
        return None


def find_store(path: Path | str, background: bool = False) -> Store:
    """Returns `Store.open`; an error says what else is at the path and what to do with it.

    Raises:
        DatasetError: If there is none, or it is damaged.
    """
    try:
        return Store.open(path, background=background)
    except NoStoreError:
        found, path = find_format(path), Path(path)
        what = None if found is None else found.what
        if found is None and path.exists() and not_downloaded(path):
            what = describe(path)
        raise NoStoreError.at(path, what) from None


def open_source(path: Path | str, options: Options | None = None) -> Source:
    """Opens a data set of any format as a source.

    Raises:
        DatasetError: If there is none, its format is not known, or it is damaged. What was looked
            for is listed.
        ConfigError: If there is no format of the name that the options have.
    """
    path, options = Path(path), options or Options()
    if not path.exists():
        raise DatasetError(f"{path}: there is no such file or folder{_downloaded(path)}")
    if pipe := find_pipe(path):
        raise DatasetError(f"{pipe}: is a pipe or a device, not a file of data")
    try:
        known = find_format(path) if options.format is None else REGISTRY.get(options.format)
        if known is None:
            raise DatasetError(f"{path}: {_describe_unknown(path)}")
        source = known.open(path, options)
        missing = (
            missing_among(source.files, _SMALL_BYTES) if path.is_dir() else not_downloaded(path)
        )
        if missing is not None:
            raise DatasetError(f"{missing[0]}: {missing[1]}")
    except ConfigError:
        raise
    except Exception as error:  # what damaged files make their parsers raise is not enumerated
        raise _explained(path, error) from error
    spec, notes = source.spec, about(source.spec)
    if options.spec is not None:
        spec = replace(options.spec, recorded=source.spec.recorded)
        notes = differences(spec)
    read = partial(_read, source)
    return replace(
        source, spec=_with_bounds(spec, options), notes=(*source.notes, *notes), read=read
    )


def _read(source: Source, start: int, on_bad: OnBad) -> Iterator[Episode]:
    """Reads a source; any error of its parser names the path."""
    with parsing(DatasetError, source.path, "cannot be read to its end; get or make it again"):
        yield from source.read(start, on_bad)


def _downloaded(path: Path) -> str:
    """Returns a hint if a downloaded data set has this name."""
    places = (Path("data") / folder / path for folder in ("d4rl", "minari", "dqn"))
    found = next((place for place in places if not path.is_absolute() and place.exists()), None)
    return "" if found is None else f"; did you mean {found}?"


def _describe_known(path: Path) -> str | None:
    """Returns what the data set at a path is, or None."""
    found = find_format(path)
    return None if found is None else found.what


def _describe_unknown(path: Path) -> str:
    """Returns what a path of no known format is, and what to do."""
    if found := above(path, _describe_known) or describe(path) or inside(path, _describe_known):
        return found
    what = (path.is_file() and first_words(path)) or "not a data set of a known format"
    known_formats = "".join(f"\n  - {item.what}" for item in FORMATS)
    return f"{what}. It is none of:{known_formats}\n{OWN_ARRAYS}"


def _explained(path: Path, error: Exception) -> DatasetError:
    """Returns why a data set cannot be opened, if its files say more than the reader's error."""
    denied = unreadable(path)
    if denied is not None:
        return DatasetError(f"{denied}: you may not read it; ask its owner for permission")
    elsewhere = not_downloaded(path)
    if elsewhere is not None:
        return DatasetError(f"{elsewhere[0]}: {elsewhere[1]}")
    part = above(path, _describe_known)
    if part is not None:
        return DatasetError(f"{path}: {part}")
    if not isinstance(error, DatasetError):
        return DatasetError(f"{path}: cannot be read ({shortened(error)})")
    if path.name in str(error):
        return error
    return DatasetError(f"{path}: {error}")  # of spaces that were inferred


def _with_bounds(spec: EnvironmentSpec, options: Options) -> EnvironmentSpec:
    """Returns the environment with the action bounds that a person wants, if continuous."""
    space = spec.action_space
    if not isinstance(space, spaces.Box):
        return spec
    if options.action_range is not None:
        low, high = options.action_range
        return replace(spec, action_space=spaces.Box(low, high, space.shape, np.float32))
    if options.keep_actions:
        return replace(spec, action_space=spaces.Box(-np.inf, np.inf, space.shape, np.float32))
    return spec
