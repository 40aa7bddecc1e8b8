"""One front for data in named columns, whatever the file: flat, or episode by episode.

A reader of a file gives its columns under the names that it has; here they are found by a table of
names (`datamodules.readers.roles`), cut into episodes (`datamodules.readers.ends`), and brought to
one form (`datamodules.readers.front`). What is assumed is a note of the source; what cannot be
known is asked for, with the option that says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError, Episode
from datamodules.options import Options
from datamodules.readers.ends import Layout
from datamodules.readers.flat import Flat
from datamodules.readers.front import Front, find_episode
from datamodules.source import OnBad, Source
from rate.envs.spec import EnvironmentSpec

# Episodes from a number on. An error in the place of one tells why that one cannot be read.
Episodes = Callable[[int], Iterator[Mapping[str, Any] | DatasetError]]
# What opens a file and gives its flat columns: arrays, or what has `shape`, `dtype` and rows.
Opener = Callable[[], AbstractContextManager[Mapping[str, Any]]]

_MOST_NOTES = 8  # of unlike files
_DAMAGED = (OSError, RuntimeError, ValueError, KeyError)


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Tell of columns that turn out to be damaged when they are read as of a bad episode."""
    try:
        yield
    except DatasetError:
        raise
    except _DAMAGED as error:
        raise DatasetError(f"{place}: cannot be read ({error})") from error


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
    name: str = "",
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
        name: What the data set is called, where its path does not tell.

    Raises:
        DatasetError: If no episode can be read, or something has to be said; says what.
    """
    where = place or (lambda number: f"{path}, episode {number}")
    front = Front(format_name, path, options or Options(), spec, led, name=name)
    bad: list[DatasetError] = []
    count = 0
    for number, item in enumerate(episodes(0)):
        count += 1
        try:
            with _told(where(number)):
                front.see(find_episode(item, front, where(number)))
        except DatasetError as error:
            bad.append(error)
    if not front.lengths and bad:
        raise bad[0]
    front.learn()

    def read(start: int, on_bad: OnBad) -> Iterator[Episode]:
        for number, item in enumerate(episodes(start), start=start):
            try:
                with _told(where(number)):
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
    columns: Mapping[str, Any] | Opener,
    options: Options | None = None,
    notes: tuple[str, ...] = (),
    *,
    spec: EnvironmentSpec | None = None,
    led: bool | None = False,
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
        led: As for `open_episodes`; None to find it out.

    Raises:
        DatasetError: If columns disagree, or something has to be said; says what.
    """
    opener = columns if callable(columns) else lambda: nullcontext(columns)
    front = Front(format_name, path, options or Options(), spec, led)
    return _Parts(front, files, [_Part(str(path), opener)]).source(notes)


def open_parts(
    format_name: str,
    path: Path,
    parts: Mapping[Path, Opener],
    options: Options | None = None,
    notes: tuple[str, ...] = (),
    *,
    spec: EnvironmentSpec | None = None,
    led: bool | None = False,
) -> Source:
    """Files of flat columns, each of one episode unless its columns tell of several.

    Args:
        format_name: Name of the format.
        path: The folder.
        parts: What opens each file and gives its columns. A file that cannot be read counts as an
            episode that cannot.
        options: What a person says of the data.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.
        led: As for `open_flat`.

    Raises:
        DatasetError: If no file can be read, or something has to be said; says what.
    """
    front = Front(format_name, path, options or Options(), spec, led, one_each=True)
    found = [_Part(str(file), opener) for file, opener in parts.items()]
    return _Parts(front, tuple(parts), found).source(notes)


@dataclass
class _Part:
    """A file of flat columns, and where its episodes are once it was looked at."""

    place: str
    opener: Opener
    layout: Layout | None = None

    def __len__(self) -> int:
        return 1 if self.layout is None else len(self.layout.ends)


class _Parts:
    """The episodes of files of flat columns, one after the other."""

    def __init__(self, front: Front, files: tuple[Path, ...], parts: Sequence[_Part]) -> None:
        self._front, self._files, self._parts = front, files, parts

    def source(self, notes: tuple[str, ...]) -> Source:
        """Look at every file, and make a source of them."""
        front, bad = self._front, []
        for part in self._parts:
            try:
                with part.opener() as found:
                    flat = Flat(found, front, part.place)
                    for number in range(len(flat)):
                        front.see(flat.episode(number))
                part.layout = flat.layout
            except DatasetError as error:
                bad.append(error)
        if not front.lengths and bad:
            raise bad[0]
        front.learn()
        told = dict.fromkeys(n for part in self._parts if part.layout for n in part.layout.notes)
        alone = len(self._parts) == 1
        return Source(
            format=front.format_name,
            path=front.path,
            files=self._files,
            spec=front.spec,
            read=self._read,
            num_episodes=sum(map(len, self._parts)),
            num_steps=sum(front.lengths),
            place=None if alone else self._place,
            notes=(*notes, *list(told)[:_MOST_NOTES], *front.notes),
        )

    def _place(self, number: int) -> str:
        for part in self._parts:
            if number < len(part):
                return part.place if len(part) == 1 else f"{part.place}, its episode {number}"
            number -= len(part)
        return str(self._front.path)

    def _read(self, start: int, on_bad: OnBad) -> Iterator[Episode]:
        for part in self._parts:
            if start >= len(part):
                start -= len(part)
                continue
            with ExitStack() as stack:
                try:
                    found = stack.enter_context(part.opener())
                    flat = Flat(found, self._front, part.place, part.layout)
                except DatasetError as error:
                    on_bad(error)
                else:
                    yield from self._episodes(part, flat, start, on_bad)
            start = 0

    def _episodes(self, part: _Part, flat: Flat, start: int, on_bad: OnBad) -> Iterator[Episode]:
        for number in range(start, len(flat)):
            try:
                with _told(f"{part.place}, episode {number}"):
                    episode = self._front.episode(flat.episode(number))
            except DatasetError as error:
                on_bad(error)
            else:
                yield episode
