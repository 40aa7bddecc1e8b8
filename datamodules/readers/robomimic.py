"""Demonstrations of robomimic, and of robosuite, LIBERO and MimicGen: HDF5 groups `data/demo_N`.

Each has `actions (T, A)`, the sensors `obs/NAME (T, *)`, and perhaps `next_obs/NAME`,
`rewards (T,)` and `dones (T,)`. Where there are no `obs`, the simulator's `states (T, D)` are the
observations. A group is an episode: `dones` may be set at every step at which the task is solved,
and only the last one says whether the environment ended it.
"""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.options import Options
from datamodules.readers.end_kinds import NO_END_FLAGS
from datamodules.readers.hdf5 import hdf5_episodes, hdf5_file, hdf5_tree, is_hdf5_with
from datamodules.readers.named import open_episodes
from datamodules.source import Source

if TYPE_CHECKING:
    import h5py

_DEMO = re.compile(r"demo_(\d+)")
_ENVIRONMENT = ("env_args", "env_info", "problem_info")  # attributes that name the environment


def is_robomimic(path: Path) -> bool:
    """Whether a path is a file of demonstrations."""
    return is_hdf5_with(path, lambda file: bool(_demos(file)))


def open_robomimic(path: Path, options: Options | None = None) -> Source:
    """Opens a file as a source.

    Raises:
        DatasetError: If it is damaged, or has no episode that can be read.
    """
    with hdf5_file(path) as file:
        demos = _demos(file)
        notes = _notes(file, demos)
    return open_episodes(
        "robomimic",
        path,
        (path,),
        partial(hdf5_episodes, path, demos, lambda file, number: _columns(file[demos[number]])),
        options,
        len(demos),
        notes,
        place=lambda number: f"{path}, {demos[number]}",
    )


def _demos(file: h5py.File) -> list[str]:
    """Returns the names of the demonstrations, in the order of their numbers."""
    group = file.get("data")
    names = [name for name in group if _DEMO.fullmatch(name)] if hasattr(group, "keys") else []
    return [f"data/{name}" for name in sorted(names, key=lambda name: int(name[len("demo_") :]))]


def _notes(file: h5py.File, demos: list[str]) -> tuple[str, ...]:
    """Returns notes on what is left out or assumed, by the first demonstration."""
    first, notes = file[demos[0]], []
    name = _environment(file["data"])
    if name:
        notes.append(f"the environment is {name}")
    if "obs" not in first and "states" in first:
        notes.append(
            "there are no sensors (obs); the simulator's states, whose first number is the time, "
            "are taken as the observations"
        )
    elif "obs" in first and "states" in first:
        notes.append("the simulator's states are left out")
    if "dones" not in first:
        notes.append(NO_END_FLAGS)
    elif np.any(first["dones"][:-1]):
        notes.append("dones inside of an episode, where the task is solved already, do not end it")
    if "mask" in file:
        lists = ", ".join(sorted(file["mask"]))
        notes.append(f"all demonstrations are read, whatever the lists of the file say ({lists})")
    return tuple(notes)


def _environment(group: h5py.Group) -> str:
    """Returns the environment's name, where the attributes say it; else an empty text."""
    for key in ("env", "env_name"):
        if key in group.attrs:
            return str(group.attrs[key])
    for key in _ENVIRONMENT:
        try:
            return str(json.loads(group.attrs[key])["env_name"])
        except (KeyError, ValueError, TypeError):
            continue
    return ""


def _columns(demo: h5py.Group) -> dict[str, Any]:
    found = hdf5_tree(demo)
    if "dones" in found:
        dones = np.atleast_1d(np.array(found["dones"]))
        dones[:-1] = 0
        found["dones"] = dones
    if "obs" in found:
        found.pop("states", None)
    return found
