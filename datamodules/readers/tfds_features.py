"""The features of TensorFlow Datasets (`features.json`), and their values as arrays.

A record maps the path of each feature, for example `steps/observation/pixels`, to a flat list. The
features inside of a sequence or nested data set have a row for each of its elements.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.readers.images import decode_images
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.tfrecord import Feature
from rate.files import load_json

_SEQUENCES = ("Dataset", "Sequence")
_DEEPEST = 20  # features inside of features


@dataclass(frozen=True)
class StepFeature:
    """A feature with a value at each step.

    Attributes:
        kind: `tensor` or `image`; anything else holds no fixed number of numbers.
        shape: The shape of a step's value; None for sizes that are not declared.
        dtype: The type of its numbers; None if it holds none.
        encoding: The encoding of a tensor's bytes: `none`, `bytes` or `zlib`.
        nested: Whether it is a sequence itself, of length `shape[0]`.
    """

    kind: str
    shape: tuple[int | None, ...] = ()
    dtype: np.dtype[Any] | None = None
    encoding: str = "none"
    nested: bool = False

    @property
    def readable(self) -> bool:
        """Whether it can be an array."""
        if self.kind == "image":
            return self.dtype == np.uint8
        unknown = sum(size is None for size in self.shape)
        return self.dtype is not None and unknown <= (self.encoding == "none" and not self.nested)

    @property
    def single(self) -> bool:
        """Whether it is a number."""
        return self.kind == "tensor" and self.shape == () and self.encoding == "none"


def read_step_features(file: Path) -> dict[str, StepFeature]:
    """Returns the features of `steps`, by their path below it.

    Raises:
        DatasetError: If the file is damaged, or there are no steps in it.
    """
    try:
        top = _children(load_json(file))
        kind, content = _content(top["steps"]) if "steps" in top else ("", {})
        if kind not in _SEQUENCES:
            raise DatasetError(
                f"{file}: there is no series of 'steps', so these are no episodes (RLDS); the "
                f"features are {', '.join(sorted(top)[:12])}"
            )
        return dict(_walk(content["feature"], "", 0))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DatasetError(
            f"{file}: not the features of a data set ({error!r}); get it again"
        ) from error


def _content(node: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the kind of a feature and its description, in the new or the old notation."""
    if "content" in node:
        content = node["content"]
        content = json.loads(content) if isinstance(content, str) and content else content
        return str(node["type"]).rpartition(".")[2], content or {}
    contents = [value for value in node.values() if isinstance(value, dict)]
    return str(node["pythonClassName"]).rpartition(".")[2], contents[0] if contents else {}


def _children(node: dict[str, Any]) -> dict[str, Any]:
    kind, content = _content(node)
    if kind != "FeaturesDict":
        raise ValueError(f"a {kind} where there should be a FeaturesDict")
    found: dict[str, Any] = content.get("features", content)
    return found


def _walk(node: dict[str, Any], path: str, depth: int) -> Iterator[tuple[str, StepFeature]]:
    if depth > _DEEPEST:
        raise ValueError("features are nested too deep")
    kind, content = _content(node)
    if kind == "FeaturesDict":
        for name, child in _children(node).items():
            yield from _walk(child, f"{path}/{name}" if path else name, depth + 1)
    else:
        yield path, _leaf(kind, content)


def _leaf(kind: str, content: dict[str, Any]) -> StepFeature:
    if kind in ("Tensor", "Scalar"):
        if content.get("optional"):
            return StepFeature("optional")
        encoding = str(content.get("encoding") or "none").lower()
        return StepFeature("tensor", _shape(content), _dtype(content), encoding)
    if kind == "ClassLabel":
        return StepFeature("tensor", (), np.dtype(np.int64))
    if kind in ("Image", "LabeledImage"):
        return StepFeature("image", _shape(content), _dtype(content) or np.dtype(np.uint8))
    if kind == "Sequence" and (length := int(content.get("length") or -1)) >= 0:
        inner = _leaf(*_content(content["feature"]))
        if inner.kind == "tensor" and not inner.nested and inner.encoding == "none":
            return StepFeature("tensor", (length, *inner.shape), inner.dtype, nested=True)
    return StepFeature(kind)


def _shape(content: dict[str, Any]) -> tuple[int | None, ...]:
    shape = content.get("shape") or []
    sizes = shape.get("dimensions", []) if isinstance(shape, dict) else shape
    return tuple(None if size is None or int(size) < 0 else int(size) for size in sizes)


def _dtype(content: dict[str, Any]) -> np.dtype[Any] | None:
    """Returns the type of numbers; None for texts and types that NumPy does not know."""
    try:
        dtype = np.dtype(str(content["dtype"]).removeprefix("tf."))
    except TypeError:
        return None
    return dtype if dtype.kind in "biuf" else None


def step_array(
    record: dict[str, Feature], name: str, feature: StepFeature, steps: int, place: str
) -> Array | LazyArray:
    """Returns the values of a feature at all steps, `(steps, *shape)`; images decode when used.

    Args:
        record: A record's features.
        name: The feature's path below `steps`.
        feature: The feature.
        steps: The number of steps.
        place: The episode, for messages.

    Raises:
        DatasetError: If it is not there, damaged, or of another length or shape.
    """
    key, place = f"steps/{name}", f"{place}: {name}"
    if feature.nested:
        key = f"{key}/ragged_flat_values"
    if key not in record:
        raise DatasetError(f"{place} is not in the record, which has {', '.join(sorted(record))}")
    values = record[key]
    if feature.kind == "image":
        return _images(values, feature, steps, place)
    if feature.encoding != "none":
        values = np.concatenate([_unpack(item, feature, place) for item in values])
    if not isinstance(values, np.ndarray):
        raise DatasetError(f"{place} holds bytes, not numbers")
    shape = _known_shape(feature, len(values), steps)
    if len(values) != steps * math.prod(shape):
        raise DatasetError(
            f"{place} has {len(values)} numbers, which are not {steps} steps of the shape "
            f"{feature.shape}"
        )
    wanted = feature.dtype
    if wanted == np.uint64:
        values = values.view(np.uint64)
    return values.astype(wanted, copy=False).reshape(steps, *shape)


def _known_shape(feature: StepFeature, numbers: int, steps: int) -> tuple[int, ...]:
    known = math.prod(size for size in feature.shape if size is not None)
    rest = numbers // max(steps * known, 1)
    return tuple(rest if size is None else size for size in feature.shape)


def _unpack(item: Any, feature: StepFeature, place: str) -> Array:
    """Returns the numbers of a step that are stored as bytes."""
    dtype = feature.dtype or np.dtype(np.uint8)
    size = math.prod(size or 0 for size in feature.shape) * dtype.itemsize
    try:
        if feature.encoding == "zlib":
            item = zlib.decompressobj().decompress(item, size + 1)
        if len(item) != size:
            raise ValueError(f"there are not {size} bytes of it")
        return np.frombuffer(item, dtype)
    except (ValueError, TypeError, zlib.error) as error:
        raise DatasetError(f"{place} cannot be unpacked ({error})") from error


def _images(values: Feature, feature: StepFeature, steps: int, place: str) -> LazyArray:
    """Returns images that are decoded when used; the first gives the sizes that are not declared.

    Raises:
        DatasetError: If there are not as many as steps.
    """
    if len(values) != steps or isinstance(values, np.ndarray):
        raise DatasetError(f"{place} has not an image for each of the {steps} steps")
    channels = (feature.shape or (None,))[-1]
    shape = feature.shape
    if None in shape or len(shape) != 3:
        found = decode_images(values[:1], place, channels=channels).shape[1:]
        if len(shape) != 3 or any(a not in (None, b) for a, b in zip(shape, found, strict=True)):
            raise DatasetError(f"{place} has images {found}, not {shape}")
        shape = found

    def make(first: int, last: int) -> Array:
        images = decode_images(values[first:last], place, channels=channels, first=first)
        if images.shape[1:] != shape:
            raise DatasetError(f"{place} has images {images.shape[1:]}, not {shape}")
        return images

    return LazyArray((steps, *(size or 0 for size in shape)), np.uint8, make)
