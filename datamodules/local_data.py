"""Public data sets on this computer: below the data root, or where their libraries keep them."""

from __future__ import annotations

import os
from pathlib import Path

from datamodules.episodes import DatasetError
from datamodules.public_data import recognise
from rate.advice import command


def find_named(name: str, root: Path) -> Path:
    """Returns the path of a public data set, by the name that `rate download` knows it by.

    Raises:
        DatasetError: If it is not there, or the name is none; says what to do.
    """
    try:
        known = recognise(name)
    except DatasetError as error:
        raise DatasetError(
            f"{name}: there is no such file or folder, and no public data set of this name. {error}"
        ) from error
    if known.source == "minari":
        return find_minari(root, known.name)
    if known.source == "d4rl":
        return find_d4rl(root, known.name)
    path = root / "dqn" / known.name
    runs = sorted(path.glob("*/replay_logs"))
    if len(runs) != 1:
        found = f"{len(runs)} runs are there; name one" if runs else "it is not there; get it with "
        way = f", {runs[0]}" if runs else f"`{command('download', known.name)}`"
        raise DatasetError(f"{path}: {found}{way}")
    return runs[0]


def find_d4rl(root: Path, name: str) -> Path:
    """Returns D4RL's file of a data set, under any of its names.

    Raises:
        DatasetError: If it is not there; says how to get it.
    """
    stem, _, version = name.rpartition("-")
    names = (f"{name}.hdf5", f"{stem.replace('-', '_')}-{version}.hdf5")  # D4RL's own is the second
    folders = [root / "d4rl", *_in_home(".d4rl/datasets")]
    for path in (folder / file for folder in folders for file in names):
        if path.is_file():
            return path
    raise DatasetError(
        f"{folders[0] / names[0]}: D4RL's {name} is not there; get it with "
        f"`{command('download', name)}`, or have data like it made by an agent, with "
        f"`--dataset {stem}-sac`"
    )


def find_minari(root: Path, name: str) -> Path:
    """Returns the folder of a Minari data set.

    Raises:
        DatasetError: If it is not there; says how to get it.
    """
    configured = os.environ.get("MINARI_DATASETS_PATH")
    others = [Path(configured)] if configured else _in_home(".minari/datasets")
    for path in (folder / name for folder in [root / "minari", *others]):
        if (path / "data").is_dir():
            return path
    raise DatasetError(
        f"{root / 'minari' / name}: Minari's {name} is not there; get it with "
        f"`{command('download', name)}`"
    )


def _in_home(path: str) -> list[Path]:
    """Returns a folder in the home directory; none for a user without one (some containers)."""
    try:
        return [Path.home() / path]
    except RuntimeError:
        return []
