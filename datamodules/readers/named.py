"""One front for data in named columns, whatever the file: flat, or episode by episode.

A reader of a file gives its columns under the names that it has; here they are found by a table of
names (`datamodules.readers.roles`), cut into episodes (`datamodules.readers.ends`), and brought to
one form (`datamodules.readers.front`). What is assumed is a note of the source; what cannot be
known is asked for, with the option that says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError, Episode
from datamodules.options import Options
from datamodules.readers.flat import Flat
from datamodules.readers.front import Front, find_episode
from datamodules.source import OnBad, Source
from rate.envs.spec import EnvironmentSpec

# Episodes from a number on. An error in the place of one tells why that one cannot be read.
Episodes = Callable[[int], Iterator[Mapping[str, Any] | DatasetError]]
# Flat columns, or what opens their file and gives them.
Columns = Mapping[str, Any] | Callable[[], AbstractContextManager[Mapping[str, Any]]]

_DAMAGED = (OSError, RuntimeError, ValueError, KeyError)


def open_episodes(
    format_name: str,
    path: Path,
    files: tuple[Path, ...],
    episodes: Episodes,
    options: Options | None = None,
    num_episodes: int | None = None,
    notes: tuple[str, ...] = (),
    *,
    spec: EnvironmentSpec | None = None,
    led: bool = False,
    place: Callable[[int], str] | None = None,
) -> Source:
    """Data that come episode by episode, as a source. They are gone through once, to know them.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: The files that are read.
        episodes: Yields the columns of each episode from a number on, one in memory at a time.
            Columns that are not loaded, like those of an HDF5 file, are read when they are needed.
        options: What a person says of the data.
        num_episodes: How many there are, where that is known.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.
        led: Whether a row's action and reward are those that led to its observation; the first
            row, of the reset, then has neither.
        place: Where an episode is, for messages.

    Raises:
        DatasetError: If no episode can be read, or something has to be said; says what.
    """
    where = place or (lambda number: f"{path}, episode {number}")
    front = Front(format_name, path, options or Options(), spec, led)
    bad: list[DatasetError] = []
    count = 0
    for number, item in enumerate(episodes(0)):
        count += 1
        try:
            front.see(find_episode(item, front, where(number)))
        except DatasetError as error:
            bad.append(error)
    if not front.lengths and bad:
        raise bad[0]
    front.learn()

    def read(start: int, on_bad: OnBad) -> Iterator[Episode]:
        for number, item in enumerate(episodes(start), start=start):
            try:
                episode = front.episode(find_episode(item, front, where(number)))
            except DatasetError as error:
                on_bad(error)
            else:
                yield episode

    return Source(
        format=format_name,
        path=path,
        files=files,
        spec=front.spec,
        read=read,
        num_episodes=count if num_episodes is None else num_episodes,
        num_steps=sum(front.lengths),
        place=place,
        notes=(*notes, *front.notes),
    )


def open_flat(
    format_name: str,
    path: Path,
    files: tuple[Path, ...],
    columns: Columns,
    options: Options | None = None,
    notes: tuple[str, ...] = (),
    *,
    spec: EnvironmentSpec | None = None,
) -> Source:
    """Flat columns over all episodes, as a source; they are cut where the data say it.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: The files that are read.
        columns: Arrays, or what has a shape, a type and rows that can be sliced; or what opens
            a file and gives these.
        options: What a person says of the data.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.

    Raises:
        DatasetError: If columns disagree, or something has to be said; says what.
    """
    options = options or Options()
    front = Front(format_name, path, options, spec)

    def opened() -> AbstractContextManager[Mapping[str, Any]]:
        return columns() if callable(columns) else nullcontext(columns)

    with opened() as found:
        flat = Flat(found, front)
        for number in range(len(flat)):
            front.see(flat.episode(number))
        front.learn()
    layout = flat.layout

    def read(start: int, on_bad: OnBad) -> Iterator[Episode]:
        with opened() as found:
            flat = Flat(found, front, layout)
            for number in range(start, len(flat)):
                try:
                    episode = front.episode(flat.episode(number))
                except DatasetError as error:
                    on_bad(error)
                except _DAMAGED as error:
                    on_bad(DatasetError(f"{path}, episode {number}: cannot be read ({error})"))
                else:
                    yield episode

    return Source(
        format=format_name,
        path=path,
        files=files,
        spec=front.spec,
        read=read,
        num_episodes=len(flat),
        num_steps=sum(front.lengths),
        notes=(*notes, *layout.notes, *front.notes),
    )
