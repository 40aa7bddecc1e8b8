"""Checks a data set before training: damage, invalid values, and what looks wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from datamodules.compatibility import unsupported_spaces
from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.readers.hdf5 import broken_chains
from datamodules.source import Source, ValidEpisodes

_MOST_WARNINGS = 1000


@dataclass
class Report:
    """The result of a check.

    Attributes:
        format: The format of the data set, empty if it could not be opened.
        episodes: The number of valid episodes.
        steps: The number of their steps.
        returns: Their least and greatest return.
        problems: What makes the data unusable, each with file, episode and step.
        warnings: What looks wrong, likewise; a conversion keeps it.
    """

    format: str = ""
    episodes: int = 0
    steps: int = 0
    returns: tuple[float, float] = (np.inf, -np.inf)
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def check(
    path: Path | str,
    options: Options | None = None,
    on_episode: Callable[[int, int | None], None] | None = None,
) -> Report:
    """Reads a data set of any format from end to end.

    Args:
        path: The file or folder.
        options: What a person has to say of it.
        on_episode: Called with the number of episodes that were read, and of all if that is known.
    """
    report = Report()
    try:
        source = open_source(path, options)
        report.format = source.format
        report.warnings += source.notes
        report.problems += [
            f"{source.path}: {reason}" for reason in unsupported_spaces(source.spec)
        ]
        _check_episodes(source, report, on_episode or (lambda done, total: None))
        if source.format == "d4rl":
            report.warnings += islice(broken_chains(source.path), _MOST_WARNINGS)
    except (DatasetError, OSError) as error:
        report.problems.append(str(error))
    return report


def _check_episodes(
    source: Source, report: Report, tell: Callable[[int, int | None], None]
) -> None:
    episodes = ValidEpisodes(source, on_bad=lambda error: report.problems.append(str(error)))
    open_ends = 0
    for episode in episodes:
        earned = float(np.sum(episode.rewards, dtype=np.float64))
        low, high = report.returns
        report.returns = min(low, earned), max(high, earned)
        report.episodes += 1
        report.steps += len(episode)
        open_ends += not (episode.terminated or episode.truncated)
        tell(episodes.position, source.num_episodes)
    if episodes.clipped.note is not None:
        report.warnings.append(f"{source.path}: {episodes.clipped.note}")
    if open_ends:
        report.warnings.append(
            f"{source.path}: {open_ends} episodes end with neither a terminal nor a time-out: "
            "their returns may be cut short"
        )
    if not report.episodes and not episodes.skipped:
        report.problems.append(f"{source.path}: there are no episodes")
