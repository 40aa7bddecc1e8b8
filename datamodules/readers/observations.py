"""Converts observations to their environment's space, or to the one that they show."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Array
from datamodules.readers.actions import is_one_hot
from datamodules.readers.values import load


def is_scaled_image(values: Any) -> bool:
    """Whether `(T, H, W, C)` floats are images that were divided by 255."""
    if len(values.shape) != 4 or np.dtype(values.dtype).kind != "f" or 0 in values.shape:
        return False
    pixels = load(values) * 255
    whole = np.round(pixels)
    return bool(np.abs(pixels - whole).max() < 1e-2 and whole.min() >= 0 and whole.max() <= 255)


def to_space(array: Array, space: gymnasium.Space[Any] | None, picture: bool) -> Array:
    """Returns rows of observations in the form of a space.

    Args:
        array: `(T, *shape)`.
        space: The environment's space, where it is known.
        picture: Whether the data are images that were divided by 255.

    Returns:
        The same rows where they have this form already, or cannot take it. Booleans become numbers,
        and images of floats bytes. For discrete spaces, one-hot rows (concatenated, for several
        components) and whole numbers become indices; for vectors, single numbers become vectors
        of length 1.
    """
    if array.dtype.kind == "b":
        array = array.astype(np.float32)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        return _symbols(array, space)
    if picture and is_scaled_image(array):
        return np.round(array * 255).astype(np.uint8)
    if isinstance(space, spaces.Box) and array.size == len(array) * int(np.prod(space.shape)):
        return array.reshape(len(array), *space.shape)
    return array[:, None] if array.ndim == 1 else array


def _symbols(array: Array, space: spaces.Discrete | spaces.MultiDiscrete) -> Array:
    steps, shape = len(array), tuple(space.shape or ())
    single = isinstance(space, spaces.Discrete)
    sizes = [int(space.n)] if isinstance(space, spaces.Discrete) else space.nvec.ravel().tolist()
    start = np.asarray(space.start).ravel()
    rows = array.reshape(steps, -1) if steps else array
    if rows.ndim == 2 and rows.shape[1] == sum(sizes) != len(sizes):
        parts = np.split(rows, np.cumsum(sizes)[:-1], axis=1)
        if all(is_one_hot(part) for part in parts):
            indices = np.stack([part.argmax(axis=1) for part in parts], axis=1) + start
            return indices[:, 0] if single else indices.reshape(steps, *shape)
    finite = array.dtype.kind in "iu" or bool(np.isfinite(array).all())
    if finite and array.size == steps * len(sizes) and (array == np.floor(array)).all():
        return array.astype(np.int64).reshape(steps, *shape)
    return array
