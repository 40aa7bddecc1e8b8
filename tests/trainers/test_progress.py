"""What is told of a collection."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from trainers.callbacks import collecting


def collect(episodes: int, shown: bool, terminal: bool) -> tuple[str, list[tuple[str, int, int]]]:
    """What was printed and reported of a collection."""
    text, told = io.StringIO(), []
    console = Console(file=text, force_terminal=terminal, width=80)
    with collecting(shown, lambda *news: told.append(news), console) as tell:
        for done in range(1, episodes + 1):
            tell(done, episodes)
    return text.getvalue(), told


@pytest.mark.parametrize("shown", [True, False])
@pytest.mark.parametrize("terminal", [True, False])
def test_every_episode_is_reported(shown: bool, terminal: bool) -> None:
    text, told = collect(25, shown, terminal)
    assert told == [("collecting", done, 25) for done in range(1, 26)]
    assert bool(text.strip()) == shown


@pytest.mark.parametrize(("episodes", "lines"), [(1, 1), (7, 7), (1000, 10), (1009, 11)])
def test_a_log_has_a_few_lines_with_the_last_episode(episodes: int, lines: int) -> None:
    text, _ = collect(episodes, shown=True, terminal=False)
    printed = [line for line in text.splitlines() if line]
    assert len(printed) == lines
    assert printed[-1] == f"collecting: {episodes}/{episodes} episodes"


def test_a_terminal_has_a_bar() -> None:
    text, _ = collect(40, shown=True, terminal=True)
    assert "40/40" in text


def test_nothing_is_shown_of_nothing() -> None:
    with collecting(True, None, Console(file=(text := io.StringIO()), width=80)):
        pass
    assert not text.getvalue().strip()
