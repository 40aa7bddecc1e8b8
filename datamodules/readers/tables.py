"""Tables in Arrow and Parquet files with named columns: a row is a step or an episode."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.arrow import (
    RowReader,
    arrow_errors,
    images,
    is_images,
    lazy_images,
    numbers,
)
from datamodules.readers.lazy_array import LazyArray
from datamodules.readers.limits import check_in_memory
from datamodules.readers.named import open_episodes, open_flat
from datamodules.readers.roles import IGNORED, find_roles
from datamodules.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

PARQUET, ARROW = b"PAR1", b"ARROW1"  # how files begin; a stream of batches does otherwise
_ROWS = 1024  # that are read at once, if they are steps
_EPISODES = 8  # and if they are episodes
# A column of one of these has a single number at a step, so that lists of them are episodes.
_SINGLE = ("rewards", "terminals", "terminated", "dones", "truncated", "is_first", "is_last")


def open_table(
    format_name: str,
    path: Path,
    files: tuple[Path, ...],
    options: Options | None = None,
    notes: tuple[str, ...] = (),
    more: tuple[Path, ...] = (),
) -> Source:
    """Opens files, whose rows follow one another, as a source.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: Parquet files, Arrow files or streams, all with the same columns.
        options: The options of reading the data.
        notes: What the reader itself assumed or left out.
        more: Other files that were read.

    Raises:
        DatasetError: If a file is damaged, or its columns are not those of trajectories.
    """
    options = options or Options()
    table = _Table(path, files)
    kinds = table.kinds()
    left = tuple(name for name, kind in kinds.items() if not _is_numbers(kind))
    if left:
        notes = (*notes, f"not numbers, and left out: {', '.join(left)}")
    readable = {name: kind for name, kind in kinds.items() if name not in left}
    given = tuple(pair for pair in options.columns if pair[0] not in left or pair[1] != IGNORED)
    options = replace(options, columns=given)
    found = find_roles(readable, given, str(path))
    if _holds_episodes(found.values):
        episodes = partial(_episodes, table, readable)
        return open_episodes(format_name, path, (*files, *more), episodes, options, notes=notes)
    columns = _columns(table, readable)
    return open_flat(format_name, path, (*files, *more), columns, options, notes)


@dataclass(frozen=True)
class _Table:
    """Files whose rows follow one another."""

    path: Path
    files: tuple[Path, ...]

    def kinds(self) -> dict[str, pa.DataType]:
        """Returns the columns and their types, which must be the same in every file."""
        known: dict[str, pa.DataType] = {}
        for file in self.files:
            with arrow_errors(str(file)):
                schema = _open(file)[0]
            kinds = {name: schema.field(name).type for name in schema.names}
            known = known or kinds
            if kinds != known:
                unlike = sorted({name for name, _ in kinds.items() ^ known.items()})
                raise DatasetError(
                    f"{file}: the columns are not those of {self.files[0].name}: "
                    f"{', '.join(unlike)} are missing in one, or of other types"
                )
        return {name: _plain(kind) for name, kind in known.items()}

    def num_rows(self, column: str) -> int:
        return sum(batch.num_rows for batch in self.batches([column]))

    def batches(self, columns: list[str], rows: int = _ROWS) -> Iterator[pa.RecordBatch]:
        """Yields the rows from the first on, about `rows` at once, of the named columns only."""
        for file in self.files:
            with arrow_errors(str(file)):
                yield from _open(file, columns, rows)[1]


def _open(
    file: Path, columns: list[str] | None = None, rows: int = _ROWS
) -> tuple[pa.Schema, Iterator[Any]]:
    """Returns the schema and the batches of a file, whose kind its first bytes show."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as raw:
        magic = raw.read(len(ARROW))
        if magic.startswith(PARQUET):
            parquet = pq.ParquetFile(file)
            return parquet.schema_arrow, parquet.iter_batches(rows, columns=columns)
        if not magic:
            raise DatasetError(f"{file}: damaged or truncated (it is empty); get it again")
        mapped = mmap.mmap(raw.fileno(), 0, access=mmap.ACCESS_READ)
    data = pa.BufferReader(pa.py_buffer(mapped))
    if magic == ARROW:
        reader = pa.ipc.open_file(data)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        reader = pa.ipc.open_stream(data)
        batches = iter(reader)
    return reader.schema, _released(batches, columns, mapped)


def _released(
    batches: Iterator[Any], columns: list[str] | None, mapped: mmap.mmap
) -> Iterator[Any]:
    """Yields the batches of a memory-mapped file, whose pages are released after each."""
    for batch in batches:
        chosen = batch.select(columns) if columns else batch
        chosen.validate(full=True)  # offsets of damaged files lead anywhere in memory
        yield chosen
        if sys.platform == "linux":
            mapped.madvise(mmap.MADV_DONTNEED)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Returns the storage type of an extension type, such as Hugging Face's arrays."""
    import pyarrow as pa

    return kind.storage_type if isinstance(kind, pa.ExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    types = pa.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_numbers(kind: pa.DataType) -> bool:
    """Whether a column has numbers, encoded images, or lists of them."""
    import pyarrow as pa

    while _is_list(kind):
        kind = _plain(kind.value_type)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return number or is_images(kind)


def _depth(kind: pa.DataType) -> int:
    return 1 + _depth(_plain(kind.value_type)) if _is_list(kind) else 0


def _holds_episodes(found: Mapping[str, Any]) -> bool:
    """Whether a row is an episode, by the types of its columns."""
    import pyarrow as pa

    for role in _SINGLE:
        if role in found:
            kind = found[role]
            return _is_list(kind) and not pa.types.is_fixed_size_list(kind)
    return _depth(found["actions"]) > 1


def _episodes(
    table: _Table, kinds: dict[str, Any], start: int
) -> Iterator[Mapping[str, Any] | DatasetError]:
    first = 0
    for batch in table.batches(list(kinds), _EPISODES):
        for row in range(max(start - first, 0), batch.num_rows):
            place = f"{table.path}, episode {first + row}"
            try:
                yield {name: _cell(batch.column(name)[row], f"{place}: {name}") for name in kinds}
            except DatasetError as error:
                yield error
        first += batch.num_rows


def _cell(value: Any, place: str) -> Any:
    """Returns an episode's values in a column: a number, or an array with a row per step."""
    values = getattr(value, "values", None)
    if values is None:
        return value.as_py()
    return lazy_images(values, place) if is_images(values.type) else numbers(values, place)


def _columns(table: _Table, kinds: dict[str, Any]) -> dict[str, Any]:
    """Returns the columns of steps, whose rows are read when they are used."""
    smallest = min(kinds, key=lambda name: _depth(kinds[name]) + is_images(kinds[name]))
    rows = table.num_rows(smallest)
    check_in_memory(f"{table.path}: {smallest}", 8 * rows)
    return {name: _column(table, name, kind, rows) for name, kind in kinds.items()}


def _column(table: _Table, name: str, kind: Any, rows: int) -> LazyArray:
    opened: list[RowReader] = []

    def piece(first: int, last: int) -> Array:
        if not opened or opened[0].position > first:
            opened[:] = [RowReader(table.batches([name]))]
        place = f"{table.path}: {name}, from row {first}"
        part = opened[0].rows(first, last)
        if part is None:
            raise DatasetError(f"{place}: there are fewer than {last} rows")
        return images(part[name], place) if is_images(kind) else numbers(part[name], place)

    if not rows:
        return LazyArray((0,), np.float32, piece)
    example = piece(0, 1)

    def make(first: int, last: int) -> Array:
        made = np.empty((last - first, *example.shape[1:]), example.dtype)
        for start in range(first, last, _ROWS):
            found = piece(start, min(start + _ROWS, last))
            if found.shape[1:] != example.shape[1:]:
                raise DatasetError(
                    f"{table.path}: {name} has the shape {found.shape[1:]} from row {start} on, "
                    f"but {example.shape[1:]} before"
                )
            made[start - first : start - first + len(found)] = found
        return made

    return LazyArray((rows, *example.shape[1:]), example.dtype, make)
