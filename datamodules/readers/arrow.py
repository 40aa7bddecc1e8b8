"""Rows of Arrow and Parquet files as arrays, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.readers.images import decode_images
from datamodules.readers.lazy_array import LazyArray
from rate.advice import install

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 1024  # that are read at once
_IMAGE_ROWS = 64


@contextmanager
def arrow_errors(place: str) -> Iterator[None]:
    """Turns errors of pyarrow, and its absence, into a `DatasetError`.

    Raises:
        DatasetError: In place of what pyarrow raises; says what to install, or names `place`.
    """
    try:
        import pyarrow as pa
    except ImportError as error:
        raise DatasetError(
            f"{place}: Arrow and Parquet files need pyarrow: {install('arrow')} "
            "(or pip install pyarrow)"
        ) from error
    try:
        yield
    except (pa.ArrowException, OSError, KeyError) as error:
        raise DatasetError(f"{place}: damaged or truncated ({error}); get it again") from error


class RowReader:
    """Reads rows of a series of record batches, of which one or two are in memory at a time.

    Args:
        batches: The batches, from the first row on.
    """

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches, self._held = batches, list[Any]()
        self._first = self._end = 0

    @property
    def position(self) -> int:
        """The first row that can still be read."""
        return self._first

    def rest(self) -> pa.Table:
        """Returns all rows that are left."""
        import pyarrow as pa

        return pa.Table.from_batches([*self._held, *self._batches])

    def rows(self, first: int, last: int) -> pa.Table | None:
        """Returns the rows from `first` up to `last`, or None if there are fewer."""
        import pyarrow as pa

        while self._end < last:
            batch = next(self._batches, None)
            if batch is None:
                return None
            self._held.append(batch)
            self._end += batch.num_rows
            while self._held and self._first + self._held[0].num_rows <= first:
                self._first += self._held.pop(0).num_rows
        if not self._held:
            return None
        return pa.Table.from_batches(self._held).slice(first - self._first, last - first)


def parquet_rows(file: Path, columns: list[str], images: bool = False) -> RowReader:
    """Returns the rows of a Parquet file. The caller handles errors with `arrow_errors`.

    Args:
        file: The file.
        columns: The columns to read.
        images: Whether there are images among them, so that few rows fill the memory.
    """
    import pyarrow.parquet as pq

    opened = pq.ParquetFile(file)
    missing = sorted(set(columns) - set(opened.schema_arrow.names))
    if missing:
        raise DatasetError(
            f"{file}: there is no column {' and no '.join(missing)}; it has "
            f"{', '.join(opened.schema_arrow.names)}"
        )
    size = _IMAGE_ROWS if images else _ROWS
    return RowReader(opened.iter_batches(batch_size=size, columns=columns))


def numbers(column: pa.ChunkedArray | pa.Array, place: str) -> Array:
    """Returns a column of numbers, or of lists of equal length, as `(rows, *shape)`.

    Raises:
        DatasetError: If it holds something else, a missing value, or lists of unlike lengths.
    """
    import pyarrow as pa

    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    kind, rows = column.type, len(column)
    if column.null_count:
        raise DatasetError(f"{place}: {column.null_count} of {rows} values are missing (null)")
    if pa.types.is_fixed_size_list(kind):
        inner = numbers(column.flatten(), place)
        return inner.reshape(rows, kind.list_size, *inner.shape[1:])
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = np.diff(np.asarray(column.offsets))
        if rows and (lengths != lengths[0]).any():
            raise DatasetError(
                f"{place}: the rows have from {lengths.min()} to {lengths.max()} numbers; they "
                "should have as many each"
            )
        inner = numbers(column.flatten(), place)
        return inner.reshape(rows, int(lengths[0]) if rows else 0, *inner.shape[1:])
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DatasetError(f"{place} holds {kind}, not numbers")
    return np.asarray(column.to_numpy(zero_copy_only=False))


def is_images(kind: pa.DataType) -> bool:
    """Whether a column holds encoded images: bytes, or bytes with a path."""
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return bool(kind.get_field_index("bytes") >= 0)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def images(column: pa.ChunkedArray | pa.Array, place: str, channels: int | None = None) -> Array:
    """Returns a column of encoded images as `(rows, H, W, C)` uint8.

    Raises:
        DatasetError: If one is not stored in the file, damaged, or of another size.
    """
    frames = [item["bytes"] if isinstance(item, dict) else item for item in column.to_pylist()]
    if None in frames:
        raise DatasetError(
            f"{place}: the image of step {frames.index(None)} is not in the file itself"
        )
    return decode_images(frames, place, channels=channels)


def lazy_images(
    column: pa.ChunkedArray | pa.Array, place: str, shape: tuple[int, ...] | None = None
) -> LazyArray | Array:
    """Returns a column of encoded images that are decoded when they are used.

    Args:
        column: The column.
        place: Its name, for messages.
        shape: The shape of an image, `(H, W, C)`; by default that of the first one.

    Raises:
        DatasetError: As `images`, and when rows are used whose images have another shape.
    """
    if shape is None and not len(column):
        return np.zeros((0, 1, 1, 1), np.uint8)
    known = images(column.slice(0, 1), place).shape[1:] if shape is None else shape

    def make(first: int, last: int) -> Array:
        found = images(column.slice(first, last - first), place, channels=known[-1])
        if found.shape[1:] != known:
            raise DatasetError(f"{place}: the images are {found.shape[1:]}, not {known}")
        return found

    return LazyArray((len(column), *known), np.uint8, make)
