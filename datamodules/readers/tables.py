"""Tables in Arrow and Parquet files with named columns: a row is a step, or a whole episode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.episodes import Array, DatasetError
from datamodules.options import Options
from datamodules.readers.arrow import RowReader, arrow_errors, images, is_images, numbers
from datamodules.readers.deferred import Deferred
from datamodules.readers.named import open_episodes, open_flat
from datamodules.readers.roles import find_roles
from datamodules.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS = 256  # that are read at once
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
    """The rows of some files, one after the other, as a source.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: Parquet files, Arrow files or streams, all with the same columns.
        options: What a person says of the data.
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
    found = find_roles(readable, options.columns, str(path))
    if _holds_episodes(found.values):
        episodes = partial(_episodes, table, readable)
        return open_episodes(format_name, path, (*files, *more), episodes, options, notes=notes)
    columns = _columns(table, readable)
    return open_flat(format_name, path, (*files, *more), columns, options, notes)


@dataclass(frozen=True)
class _Table:
    """Files whose rows follow each other."""

    path: Path
    files: tuple[Path, ...]

    def kinds(self) -> dict[str, pa.DataType]:
        """The columns and the type of each."""
        with arrow_errors(str(self.files[0])):
            schema = _open(self.files[0])[0]
        return {name: _plain(schema.field(name).type) for name in schema.names}

    def num_rows(self, column: str) -> int:
        return sum(batch.num_rows for batch in self.batches([column]))

    def batches(self, columns: list[str]) -> Iterator[pa.RecordBatch]:
        """The rows from the first on; only the named columns."""
        for file in self.files:
            with arrow_errors(str(file)):
                yield from _open(file, columns)[1]


def _open(file: Path, columns: list[str] | None = None) -> tuple[pa.Schema, Iterator[Any]]:
    """The schema and the batches of a file, by its first bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    with file.open("rb") as raw:
        magic = raw.read(6)
    if magic.startswith(b"PAR1"):
        parquet = pq.ParquetFile(file)
        return parquet.schema_arrow, parquet.iter_batches(_ROWS, columns=columns)
    mapped = pa.memory_map(str(file))
    if magic == b"ARROW1":
        reader = pa.ipc.open_file(mapped)
        batches = (reader.get_batch(number) for number in range(reader.num_record_batches))
    else:
        reader = pa.ipc.open_stream(mapped)
        batches = iter(reader)
    return reader.schema, (batch.select(columns) if columns else batch for batch in batches)


def _plain(kind: pa.DataType) -> pa.DataType:
    """The type that an extension, like the arrays of Hugging Face's, stands for."""
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
    for batch in table.batches(list(kinds)):
        for row in range(max(start - first, 0), batch.num_rows):
            place = f"{table.path}, episode {first + row}"
            try:
                yield {name: _cell(batch.column(name)[row], f"{place}: {name}") for name in kinds}
            except DatasetError as error:
                yield error
        first += batch.num_rows


def _cell(value: Any, place: str) -> Any:
    """What a row has of an episode in a column: a number, or something with a row a step."""
    values = getattr(value, "values", None)
    if values is None:
        return value.as_py()
    return _pictures(values, place) if is_images(values.type) else numbers(values, place)


def _pictures(column: Any, place: str) -> Any:
    """Encoded images, of which the first tells the shape of all."""
    if not len(column):
        return np.zeros((0, 1, 1, 1), np.uint8)
    shape = images(column.slice(0, 1), place).shape[1:]
    return Deferred(
        (len(column), *shape),
        np.uint8,
        lambda first, last: images(column.slice(first, last - first), place, shape[-1]),
    )


def _columns(table: _Table, kinds: dict[str, Any]) -> dict[str, Any]:
    """The columns of steps; rows are read when they are asked for."""
    smallest = min(kinds, key=lambda name: _depth(kinds[name]) + is_images(kinds[name]))
    rows = table.num_rows(smallest)
    return {name: _column(table, name, kind, rows) for name, kind in kinds.items()}


def _column(table: _Table, name: str, kind: Any, rows: int) -> Deferred:
    opened: list[RowReader] = []

    def make(first: int, last: int) -> Array:
        if not opened or opened[0].position > first:
            opened[:] = [RowReader(table.batches([name]))]
        part = opened[0].rows(first, last)
        if part is None:
            raise DatasetError(f"{table.path}: {name} has fewer than {last} rows")
        place = f"{table.path}: {name}, from row {first}"
        return images(part[name], place) if is_images(kind) else numbers(part[name], place)

    if not rows:
        return Deferred((0,), np.float32, make)
    example = make(0, 1)
    return Deferred((rows, *example.shape[1:]), example.dtype, make)
