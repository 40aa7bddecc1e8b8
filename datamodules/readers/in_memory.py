"""Data in memory as a source: arrays, and open data sets of other libraries.

Their objects are recognised by their methods, so that none of these libraries is imported: Hugging
Face's `datasets.Dataset`, a pandas DataFrame, a `pyarrow.Table`, and a Minari data set, whole or
filtered.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.readers.trajectories import open_values
from datamodules.source import Source


def open_in_memory(name: str, value: Any, options: Options) -> Source:
    """Returns what a person has in memory as a source.

    Args:
        name: A name for it, for messages.
        value: A dictionary of columns, a list of episodes, or an open data set.
        options: The options of reading the data.

    Raises:
        DatasetError: If it is something else, or something has to be said; says what.
    """
    if hasattr(value, "iterate_episodes"):  # minari.MinariDataset
        return _open_minari(value, options)
    return open_values(Path(name), _columns_of(value), options)


def _open_minari(dataset: Any, options: Options) -> Source:
    from datamodules.readers.minari import read_minari

    source = open_source(Path(dataset.storage.data_path).parent, options)
    return replace(
        source,
        read=partial(read_minari, dataset),  # the episodes that the filter has left
        num_episodes=int(dataset.total_episodes),
        num_steps=int(dataset.total_steps),
    )


def _columns_of(value: Any) -> Any:
    """Returns the columns of a table; `value` itself if it is none."""
    if hasattr(value, "column_names") and hasattr(value, "with_format"):  # datasets.Dataset
        if isinstance(value, dict):
            raise DatasetError(
                f"the data set has the splits {', '.join(value)}; give one of them, as "
                f"data[{next(iter(value))!r}]"
            )
        return _plain(value.with_format("numpy")[:])
    if hasattr(value, "column_names") and hasattr(value, "to_pydict"):  # pyarrow.Table
        return value.to_pydict()
    if hasattr(value, "columns") and hasattr(value, "to_numpy"):  # pandas.DataFrame
        return _plain({str(name): value[name].to_numpy() for name in value.columns})
    return value


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """Returns columns; rows that are arrays of different lengths become a list."""
    return {name: _rows(column) for name, column in columns.items()}


def _rows(column: Any) -> Any:
    if isinstance(column, np.ndarray) and column.dtype == object:
        return [_rows(row) for row in column]
    return column
