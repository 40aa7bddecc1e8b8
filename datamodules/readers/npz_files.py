"""`.npz` files with named columns: one file, or a folder with a file for each episode.

A file has flat columns over all its episodes, as stable-baselines, imitation, OGBench, NeoRL and
others write them, or is one episode. Replay folders of Dreamer, V-D4RL and ExORL have a file for
each episode, whose first row is that of the reset. The RATE paper's robots have `rgb` and `joints`
for observations, and learn from `success`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.named import open_flat, open_parts
from datamodules.readers.npz import npz_files, open_npz
from datamodules.source import Source
from rate.envs.minigrid_memory import minigrid_memory_spec
from rate.envs.spec import EnvironmentSpec
from rate.envs.two_colors import two_colors_spec

_ROBOT = ("rgb", "joints")
_TWO_COLORS, _MINIGRID = (3, 64, 112), (3, 84, 84)


def is_npz(path: Path) -> bool:
    """Whether a path is an `.npz` file, or a folder with some."""
    if path.is_dir():
        return bool(npz_files(path))
    if not path.is_file():
        return False
    if path.suffix == ".npz":
        return True
    try:
        with open_npz(path) as npz:
            return bool(npz.keys)
    except DatasetError:
        return False


def open_npz_files(path: Path, options: Options | None = None) -> Source:
    """Opens a file or a folder as a source. All actions are read, to infer their space.

    Args:
        path: The file, or the folder of files.
        options: The options of reading the data.

    Raises:
        DatasetError: If no file can be read, or something has to be said; says what.
    """
    files = npz_files(path) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path}: there are no .npz files in this folder")
    spec, notes = _known(path, files)
    if path.is_dir():
        openers = {file: partial(npz_columns, file) for file in files}
        return open_parts("npz", path, openers, options, notes, spec=spec, starts_with_reset=None)
    return open_flat(
        "npz",
        path,
        (path,),
        partial(npz_columns, path),
        options,
        notes,
        spec=spec,
        starts_with_reset=None,
    )


@contextmanager
def npz_columns(path: Path) -> Iterator[Mapping[str, Any]]:
    """Opens a file and gives its columns, which are read when they are used.

    Raises:
        DatasetError: If it is damaged.
    """
    with open_npz(path) as npz:
        columns: dict[str, Any] = npz.columns()
        if columns.keys() >= set(_ROBOT):
            columns["observations"] = {key: columns.pop(key) for key in _ROBOT}
            if "success" in columns:
                columns.pop("reward", None)
                columns["rewards"] = columns.pop("success")
        yield columns


def _known(path: Path, files: list[Path]) -> tuple[EnvironmentSpec | None, tuple[str, ...]]:
    """Returns the environment that the shapes and names of public data show, and a note on it."""
    for file in files:
        try:
            with npz_columns(file) as columns:
                shape = columns["obs"].shape[1:] if "obs" in columns else ()
                seen = columns.get("observations")
                is_robot = isinstance(seen, dict) and "joints" in seen
                success = is_robot and "rewards" in columns
        except DatasetError:
            continue
        if shape == _TWO_COLORS:
            note = "64x112 pictures: taken as data of ViZDoom-Two-Colors"
            return two_colors_spec(), (f"{note} (--environment says another)",)
        if shape == _MINIGRID and "minigrid" in str(path.absolute()).lower():
            note = "the name and the 84x84 pictures: taken as data of Minigrid-Memory"
            return minigrid_memory_spec(), (f"{note} (--environment says another)",)
        return None, ("the rewards are the steps' success",) if success else ()
    return None, ()
