"""Sources of data in named columns, whatever the file: flat columns, or episode by episode.

A reader of a file yields its columns under the names that they have there. Here they are found by
their names (`datamodules.readers.roles`), cut into episodes (`datamodules.readers.ends`), and
converted (`datamodules.readers.profile`). Assumptions become notes of the source. What cannot be
inferred is asked for, with the option that says it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError, Episode
from datamodules.options import Options
from datamodules.readers.ends import EpisodeBounds
from datamodules.readers.episode_columns import EpisodeColumns, find_episode_columns
from datamodules.readers.flat import FlatColumns
from datamodules.readers.profile import DatasetProfile
from datamodules.source import OnBad, Source
from rate.envs.spec import EnvironmentSpec
from rate.errors import parsing

# Episodes from a number on. An error in the place of an episode says why it cannot be read.
Episodes = Callable[[int], Iterator[Mapping[str, Any] | DatasetError]]
# Opens a file and gives its flat columns: arrays, or what has `shape`, `dtype` and rows.
Opener = Callable[[], AbstractContextManager[Mapping[str, Any]]]

_MOST_NOTES = 8  # of files that differ


def _as_dataset_error(place: str) -> AbstractContextManager[None]:
    """Turns what damaged columns raise when they are read into a `DatasetError` of the episode."""
    return parsing(DatasetError, f"{place}:", "cannot be read")


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
    starts_with_reset: bool = False,
    place: Callable[[int], str] | None = None,
    name: str = "",
) -> Source:
    """Returns data that come episode by episode as a source. One pass infers what they are.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: The files that are read.
        episodes: Yields the columns of each episode from a number on, one in memory at a time.
            Columns that are not loaded, like those of an HDF5 file, are read when they are used.
        options: The options of reading the data.
        num_episodes: The number of episodes, where it is known.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.
        starts_with_reset: Whether a row's action and reward are those that led to its observation,
            so that the first row, that of the reset, has neither.
        place: Names an episode, for messages.
        name: The name of the data set, where its path does not tell it.

    Raises:
        DatasetError: If no episode can be read, or something has to be said; says what.
    """
    where = place or (lambda number: f"{path}, episode {number}")
    profile = DatasetProfile(
        format_name, path, options or Options(), spec, starts_with_reset, name=name
    )

    def find(number: int, item: Any) -> EpisodeColumns:
        return find_episode_columns(item, profile.options, where(number), starts_with_reset)

    bad: list[DatasetError] = []
    count = 0
    for number, item in enumerate(episodes(0)):
        count += 1
        try:
            with _as_dataset_error(where(number)):
                profile.see(find(number, item))
        except DatasetError as error:
            bad.append(error)
    if not profile.lengths and bad:
        raise bad[0]
    profile.learn()

    def read(start: int, on_bad: OnBad) -> Iterator[Episode]:
        for number, item in enumerate(episodes(start), start=start):
            try:
                with _as_dataset_error(where(number)):
                    episode = profile.episode(find(number, item))
            except DatasetError as error:
                on_bad(error)
            else:
                yield episode

    return Source(
        format=format_name,
        path=path,
        files=files,
        spec=profile.spec,
        read=read,
        num_episodes=count if num_episodes is None else num_episodes,
        num_steps=sum(profile.lengths),
        place=place,
        notes=(*notes, *profile.notes),
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
    starts_with_reset: bool | None = False,
) -> Source:
    """Returns flat columns over all episodes as a source; they are cut where the data mark ends.

    Args:
        format_name: Name of the format.
        path: The file or folder.
        files: The files that are read.
        columns: Arrays, or what has a shape, a type and rows that can be sliced; or what opens
            a file and gives these.
        options: The options of reading the data.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.
        starts_with_reset: As for `open_episodes`; None if the data are to show it.

    Raises:
        DatasetError: If columns disagree, or something has to be said; says what.
    """
    opener = columns if callable(columns) else lambda: nullcontext(columns)
    profile = DatasetProfile(format_name, path, options or Options(), spec, starts_with_reset)
    return _FlatFiles(profile, files, [_FlatFile(str(path), opener)]).source(notes)


def open_parts(
    format_name: str,
    path: Path,
    parts: Mapping[Path, Opener],
    options: Options | None = None,
    notes: tuple[str, ...] = (),
    *,
    spec: EnvironmentSpec | None = None,
    starts_with_reset: bool | None = False,
) -> Source:
    """Returns files of flat columns as a source; each is one episode unless it marks several.

    Args:
        format_name: Name of the format.
        path: The folder.
        parts: What opens each file and gives its columns. A file that cannot be read counts as one
            bad episode.
        options: The options of reading the data.
        notes: What the reader itself assumed or left out.
        spec: The environment, where the source says it.
        starts_with_reset: As for `open_flat`.

    Raises:
        DatasetError: If no file can be read, or something has to be said; says what.
    """
    profile = DatasetProfile(
        format_name, path, options or Options(), spec, starts_with_reset, one_per_file=True
    )
    found = [_FlatFile(str(file), opener) for file, opener in parts.items()]
    return _FlatFiles(profile, tuple(parts), found).source(notes)


@dataclass
class _FlatFile:
    """A file of flat columns, and the bounds of its episodes once they are known."""

    place: str
    opener: Opener
    bounds: EpisodeBounds | None = None

    def __len__(self) -> int:
        return 1 if self.bounds is None else len(self.bounds.ends)


class _FlatFiles:
    """The episodes of files of flat columns, one file after the other."""

    def __init__(
        self, profile: DatasetProfile, paths: tuple[Path, ...], files: Sequence[_FlatFile]
    ) -> None:
        self._profile, self._paths, self._files = profile, paths, files

    def source(self, notes: tuple[str, ...]) -> Source:
        """Returns the files as a source; every file is opened once."""
        profile, bad = self._profile, []
        for file in self._files:
            try:
                with file.opener() as columns:
                    flat = FlatColumns(columns, profile, file.place)
                    for number in range(len(flat)):
                        profile.see(flat.episode(number))
                file.bounds = flat.bounds
            except DatasetError as error:
                bad.append(error)
        if not profile.lengths and bad:
            raise bad[0]
        profile.learn()
        assumed = dict.fromkeys(n for file in self._files if file.bounds for n in file.bounds.notes)
        return Source(
            format=profile.format_name,
            path=profile.path,
            files=self._paths,
            spec=profile.spec,
            read=self._read,
            num_episodes=sum(map(len, self._files)),
            num_steps=sum(profile.lengths),
            place=None if len(self._files) == 1 else self._place,
            notes=(*notes, *list(assumed)[:_MOST_NOTES], *profile.notes),
        )

    def _place(self, number: int) -> str:
        for file in self._files:
            if number < len(file):
                return file.place if len(file) == 1 else f"{file.place}, its episode {number}"
            number -= len(file)
        return str(self._profile.path)

    def _read(self, start: int, on_bad: OnBad) -> Iterator[Episode]:
        for file in self._files:
            if start >= len(file):
                start -= len(file)
                continue
            with ExitStack() as stack:
                try:
                    columns = stack.enter_context(file.opener())
                    flat = FlatColumns(columns, self._profile, file.place, file.bounds)
                except DatasetError as error:
                    on_bad(error)
                else:
                    yield from self._episodes(file, flat, start, on_bad)
            start = 0

    def _episodes(
        self, file: _FlatFile, flat: FlatColumns, start: int, on_bad: OnBad
    ) -> Iterator[Episode]:
        for number in range(start, len(flat)):
            try:
                with _as_dataset_error(f"{file.place}, episode {number}"):
                    episode = self._profile.episode(flat.episode(number))
            except DatasetError as error:
                on_bad(error)
            else:
                yield episode
