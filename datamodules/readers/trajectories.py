"""The trajectory pickles of the Decision Transformer's code, in all their dialects.

A list with a dictionary an episode: `observations (T, D)`, `actions (T, A)` or `(T,)`,
`rewards (T,)`, `terminals (T,)`, and where they are there `next_observations (T, D)`; under
whatever names (`datamodules.readers.roles`). A dictionary or tuple of episodes, and one dictionary
of flat columns over all episodes, are read as well. Nothing that stands in a file is run; see
`datamodules.readers.pickles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from datamodules.options import Options
from datamodules.readers.named import open_episodes, open_flat
from datamodules.readers.pickles import read_items
from datamodules.source import Source


def is_pickle(path: Path) -> bool:
    """Whether a path is a pickle, by its first byte or, for those of protocol 0, by its name."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(1) == b"\x80" or path.suffix in (".pkl", ".pickle", ".p")


def open_trajectories(path: Path, options: Options | None = None) -> Source:
    """A file as a source. It is read once, to count and to infer the spaces.

    Args:
        path: The file.
        options: What a person says of the data.

    Raises:
        DatasetError: If the file is damaged, asks for anything but data, or has no whole episode.
    """
    first = next(read_items(path), None)
    if isinstance(first, tuple) and len(first) == 2 and not isinstance(first[1], (Mapping, list)):
        columns = {str(key): value for key, value in read_items(path)}
        return open_flat("trajectories", path, (path,), columns, options)
    return open_episodes("trajectories", path, (path,), partial(_episodes, path), options)


def _episodes(path: Path, start: int) -> Iterator[Any]:
    for item in islice(read_items(path), start, None):
        pair = isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], (Mapping, list))
        yield item[1] if pair else item
