"""Decodes the encoded images of data sets."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.readers.limits import check_at_once, check_in_memory
from rate.errors import parsing

# Pillow's modes by the number of channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
FORMATS = ("PNG", "JPEG")


def decode_image(
    data: Any, place: str, formats: tuple[str, ...] = FORMATS, channels: int | None = None
) -> Array:
    """Returns an image, `(H, W, C)` uint8.

    Args:
        data: Its bytes.
        place: Its name, for messages.
        formats: The allowed formats, by Pillow's names.
        channels: The number of channels to convert it to; None keeps its own.

    Raises:
        DatasetError: If it is damaged, of another format, too large, or its pixels are not bytes.
    """
    from PIL import Image  # comes with Matplotlib

    with (
        parsing(DatasetError, place, f"is no {' or '.join(formats)}, or damaged"),
        Image.open(io.BytesIO(data), formats=formats) as image,
    ):
        check_at_once(place, image.width * image.height * len(image.getbands()))
        mode = None if channels is None else _MODES.get(channels)
        pixels = np.asarray(image if mode in (None, image.mode) else image.convert(mode))
    if pixels.dtype != np.uint8:
        raise DatasetError(f"{place} has pixels of {pixels.dtype}, not of uint8")
    return pixels[..., None] if pixels.ndim == 2 else pixels


def decode_images(
    frames: list[Any],
    place: str,
    formats: tuple[str, ...] = FORMATS,
    channels: int | None = None,
    first: int = 0,
) -> Array:
    """Returns images of one size, `(T, H, W, C)` uint8.

    Raises:
        DatasetError: As `decode_image`, and if their sizes differ or they fill the memory.
    """
    images = np.empty((0, 0, 0, 0), np.uint8)
    for index, data in enumerate(frames):
        step = first + index
        image = decode_image(data, f"{place}: the image of step {step}", formats, channels)
        if not index:
            check_in_memory(place, len(frames) * image.size)
            images = np.empty((len(frames), *image.shape), np.uint8)
        if image.shape != images.shape[1:]:
            raise DatasetError(
                f"{place}: the image of step {step} is {image.shape}, but that of step {first} is "
                f"{images.shape[1:]}"
            )
        images[index] = image
    return images
