"""What the commands share: errors for people, and scores on the screen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from rate.errors import UserError
from scripts.scores import mean_and_spread, success_by_length
from trainers.errors import Interrupted, TrainingError

USER_ERROR = 2  # exit code of what the command line got wrong, as argparse has it
STOPPED = 130  # of what Ctrl+C ended, as shells have it


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser for a command whose module documentation is its help."""
    return argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def count(text: str) -> int:
    """The type of options that count something, for argparse.

    Raises:
        ArgumentTypeError: If it is no whole number of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def fail(message: str, code: int = USER_ERROR) -> NoReturn:
    """End the program with a message instead of a traceback."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


@contextmanager
def user_errors() -> Iterator[None]:
    """Turn errors that the user can mend into one line and an exit code."""
    try:
        yield
    except UserError as error:
        fail(str(error))
    except TrainingError as error:
        fail(str(error), code=1)
    except Interrupted as interrupted:
        print(interrupted, file=sys.stderr)
        raise SystemExit(interrupted.exit_code) from None
    except KeyboardInterrupt as stopped:
        print(stopped if stopped.args else "Stopped.", file=sys.stderr)
        raise SystemExit(STOPPED) from None


def show_scores(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print success by model and episode length: mean over seeds, and the spread."""
    lengths = sorted({row["length"] for row in rows})
    seeds = sorted({row["seed"] for row in rows})
    episodes = sorted({row["episodes"] for row in rows})
    table = Table(
        title=f"Success rate by episode length ({'/'.join(map(str, episodes))} held-out episodes "
        f"each; training {'seed' if len(seeds) == 1 else 'seeds'}: {', '.join(map(str, seeds))})"
    )
    table.add_column("model")
    table.add_column("weights")
    for length in lengths:
        table.add_column(str(length), justify="right")
    for model, which in dict.fromkeys((row["model"], row["which"]) for row in rows):
        scores = success_by_length(rows, model, which)
        cells = (mean_and_spread(scores.get(length, [])) for length in lengths)
        table.add_row(str(model), which, *cells)
    console.print(table)
