"""Reads episodes from the files of a Minari data set.

The type of a column, not the version of Minari, shows whether its images are stored as JPEG: up to
0.5.2 Minari stored pixels as they are; 0.5.3 stored every image as JPEG, small ones in HDF5
included, which Minari itself cannot read; in later versions it is an option.
"""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array
from datamodules.readers.hdf5 import hdf5_error, hdf5_item
from rate.files import load_json

_FLAGS = ("rewards", "terminations", "truncations")


class EpisodeFiles(ABC):
    """Reads episodes by number.

    Args:
        folder: The data set's folder `data`.
        form: `hdf5`, `arrow` or `parquet`.
        observation_space: The environment's.
        action_space: The environment's.

    Attributes:
        jpeg: Whether an image that was read so far was stored as JPEG.
    """

    def __init__(
        self,
        folder: Path,
        form: str,
        observation_space: gymnasium.Space[Any],
        action_space: gymnasium.Space[Any],
    ) -> None:
        self._folder, self._form, self.jpeg = folder, form, False
        self._spaces = {"observations": observation_space, "actions": action_space}

    @abstractmethod
    def read(self, number: int) -> dict[str, Any]:
        """Returns the columns of an episode, and its `seed` in whatever form the file has it.

        They are `observations` `(T + 1, *obs)` and `actions` `(T, *action)`, nested as their spaces
        are, and `rewards`, `terminations` and `truncations` `(T,)`. A part that holds no numbers is
        None. Files that are damaged raise all kinds of errors.
        """

    @abstractmethod
    def close(self) -> None:
        """Closes the files."""


def open_files(
    folder: Path,
    form: str,
    observation_space: gymnasium.Space[Any],
    action_space: gymnasium.Space[Any],
) -> EpisodeFiles:
    """Returns a reader of the folder `data`; see `EpisodeFiles`."""
    kind = Hdf5Files if form == "hdf5" else ArrowFiles
    return kind(folder, form, observation_space, action_space)


class Hdf5Files(EpisodeFiles):
    """Reads one HDF5 file of all episodes, which stays open from the first read on."""

    _file: Any = None

    def read(self, number: int) -> dict[str, Any]:
        if self._file is None:
            import h5py

            path = self._folder / "main_data.hdf5"
            try:
                self._file = h5py.File(path, "r")
            except (BlockingIOError, PermissionError) as error:
                raise hdf5_error(path, error) from error
        group = hdf5_item(self._file, f"episode_{number}")
        columns = {
            name: self._decode(hdf5_item(group, name), space)
            for name, space in self._spaces.items()
        }
        flags = {name: hdf5_item(group, name)[()] for name in _FLAGS}
        return columns | flags | {"seed": group.attrs.get("seed")}

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _decode(self, node: Any, space: gymnasium.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {
                key: self._decode(hdf5_item(node, key), part) for key, part in space.spaces.items()
            }
        if isinstance(space, spaces.Tuple):
            return tuple(
                self._decode(hdf5_item(node, f"_index_{index}"), part)
                for index, part in enumerate(space.spaces)
            )
        if not _has_numbers(space):
            return None
        # JPEG files are lists of bytes, whose lengths are equal only by coincidence.
        if _may_be_jpeg(space) and node.shape[1:] != space.shape:
            self.jpeg = True
            return _images(node[()], space)
        return node[()]


class ArrowFiles(EpisodeFiles):
    """Reads a folder of Arrow or Parquet files for each episode."""

    def read(self, number: int) -> dict[str, Any]:
        from pyarrow import dataset

        folder = self._folder / str(number)
        ignored = ["_", ".", "metadata.json"]
        table = dataset.dataset(folder, format=self._form, ignore_prefixes=ignored).to_table()
        found = {name: table[name].combine_chunks() for name in (*self._spaces, *_FLAGS)}
        columns = {name: self._decode(found[name], space) for name, space in self._spaces.items()}
        flags = {name: found[name].to_numpy(zero_copy_only=False)[:-1] for name in _FLAGS}
        # The row of the last observation has an action, a reward and so on without meaning.
        columns["actions"] = _all_but_last(columns["actions"])
        notes = load_json(folder / "metadata.json")
        return columns | flags | {"seed": notes.get("seed")}

    def close(self) -> None:
        """Nothing: files are open only while they are read."""

    def _decode(self, values: Any, space: gymnasium.Space[Any]) -> Any:
        if isinstance(space, spaces.Dict):
            return {k: self._decode(values.field(k), part) for k, part in space.spaces.items()}
        if isinstance(space, spaces.Tuple):
            return tuple(
                self._decode(values.field(str(index)), part)
                for index, part in enumerate(space.spaces)
            )
        if not _has_numbers(space):
            return None
        if "binary" in str(values.type):
            self.jpeg = True
            return _images((value.as_py() for value in values), space)
        if isinstance(space, spaces.Discrete):
            return values.to_numpy(zero_copy_only=False)
        return values.flatten().to_numpy(zero_copy_only=False).reshape(-1, *(space.shape or ()))


def _has_numbers(space: gymnasium.Space[Any]) -> bool:
    known = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    return isinstance(space, known)


def _may_be_jpeg(space: gymnasium.Space[Any]) -> bool:
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) in (2, 3)


def _images(files: Iterable[Any], space: gymnasium.Space[Any]) -> Array:
    """Decodes JPEG files into `(N, *space.shape)` uint8.

    Raises:
        OSError: If one is no JPEG file.
        ValueError: If one is not of the space's shape; it is not decoded then.
    """
    from PIL import Image

    shape = tuple(space.shape or ())
    decoded = []
    for file in files:
        with Image.open(io.BytesIO(bytes(file)), formats=["JPEG"]) as image:
            if (image.height, image.width) != shape[:2]:
                raise ValueError(
                    f"an image has {image.height} x {image.width} pixels, but the space {shape}"
                )
            decoded.append(np.asarray(image, dtype=np.uint8).reshape(shape))
    return np.stack(decoded)


def _all_but_last(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _all_but_last(value) for key, value in values.items()}
    if isinstance(values, tuple):
        return tuple(_all_but_last(value) for value in values)
    return values[:-1]
