"""Functions shared by the commands: parsers, error messages, tables of scores."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console
from rich.table import Table

from rate.advice import command
from rate.errors import UserError
from rate.messages import did_you_mean
from rate.stopping import exit_on_signal, ignore_stop_signals, name_of, number_of, stop_signals
from trainers.commands.cells import mean_and_spread
from trainers.commands.scores import by_environment, by_length, main_metric, other_metrics
from trainers.commands.streams import prepare_streams
from trainers.config import EvaluationConfig
from trainers.environment_errors import DEBUG
from trainers.errors import Interrupted, TrainingError
from trainers.registry import length_name
from trainers.scores import remarks

USER_ERROR = 2  # exit code of errors of the user, as of argparse
UNREAD = 141  # exit code if the reader of the output, like `head`, closes the pipe: 128 + SIGPIPE


def program(name: str) -> str:
    """Returns the name that a command was called by: `rate NAME`, or the name of a script."""
    called = Path(sys.argv[0])
    return called.name if called.suffix == ".py" else f"rate {name}"


def typed(arguments: Sequence[str]) -> str:
    """Returns the command line, quoted for a shell, of a command with these arguments."""
    called = Path(sys.argv[0])
    words = sys.argv[:1] if called.suffix == ".py" else sys.argv[:2]
    return shlex.join([*words, *arguments])


def make_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Returns the parser of a command.

    Args:
        name: The command.
        description: The docstring of its module, which is the help text.
    """
    prepare_streams()
    return _Parser(
        prog=program(name),
        description=as_typed_here(description or ""),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


class _Parser(argparse.ArgumentParser):
    """A parser that suggests the closest option for an unknown one."""

    def error(self, message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            word = unknown.partition("=")[0].split()[0]
            known = [option for option in self._option_string_actions if option.startswith("--")]
            message += did_you_mean(word, known)
        super().error(message)


def as_typed_here(text: str) -> str:
    """Returns a text whose lines `rate NAME ...` have the form that works in this installation."""
    return re.sub(
        r"^(\s*)rate ([a-z]+)(?: (\w+))?",
        lambda found: found[1] + command(found[2], *filter(None, [found[3]])),
        text,
        flags=re.MULTILINE,
    )


def count(text: str) -> int:
    """Returns a positive integer; the `type` of options for argparse.

    Raises:
        ArgumentTypeError: If the text is not an integer of at least 1.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 1")
    return int(text)


def fail(message: str, code: int = USER_ERROR) -> NoReturn:
    """End the program with a message on standard error and an exit code."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(code)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Print a warning without the file and line that issued it."""
    print(f"warning: {message}", file=sys.stderr)


@contextmanager
def user_errors() -> Iterator[None]:
    """Run the block; report its errors as messages with an exit code, and warnings as lines.

    An error of standard output, such as a closed pipe, is reported at the end of the block, so that
    the command finishes its work.

    Raises:
        SystemExit: With code 2 for a `UserError`, 1 for a `TrainingError` or a failed write to
            standard output, 128 + n if signal n stopped the block, 141 for a closed pipe.
    """
    prepare_streams()
    try:
        with stop_signals(), warnings.catch_warnings():
            warnings.showwarning = _show_warning
            yield
    except UserError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        fail(str(error))
    except TrainingError as error:
        fail(str(error), code=1)
    except (Interrupted, KeyboardInterrupt) as interrupt:
        number = interrupt.number if isinstance(interrupt, Interrupted) else number_of(interrupt)
        not_saved = f"Stopped by {name_of(number)}; the same command begins again."
        print(_message_of(interrupt) or not_saved, file=sys.stderr)
        if signal.getsignal(signal.SIGINT) is exit_on_signal:  # not called from another program
            ignore_stop_signals()  # another signal must not change the exit code
        raise SystemExit(128 + number) from None
    sys.stdout.flush()
    if unwritten := getattr(sys.stdout, "error", None):
        if isinstance(unwritten, BrokenPipeError):
            raise SystemExit(UNREAD)
        fail(f"what this printed could not be written ({unwritten.strerror})", code=1)


def _message_of(interrupt: BaseException | None) -> str:
    """Returns the message of an interrupt, or of its context: a second Ctrl+C has no message."""
    while interrupt is not None:
        if isinstance(interrupt, Interrupted | KeyboardInterrupt) and str(interrupt):
            return str(interrupt)
        interrupt = interrupt.__context__
    return ""


def show_scores(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print scores by environment, model and length: mean and standard deviation over seeds."""
    parts = by_environment(rows)
    for name, part in parts.items():
        _show_table(part, console, f"{name}: " if len(parts) > 1 else "")
    _show_others(rows, console)
    for line in remarks(rows):
        console.print(
            f"warning: {line}", style="yellow", highlight=False, markup=False, soft_wrap=True
        )


def _show_table(rows: Sequence[dict[str, Any]], console: Console, prefix: str) -> None:
    lengths = sorted({row["length"] for row in rows})
    seeds = sorted({row["seed"] for row in rows if row.get("step")})
    episodes = sorted({row["episodes"] for row in rows})
    metric, environment = main_metric(rows), str(rows[0].get("environment") or "tmaze")
    name = "Success rate" if metric == "success" else "Return"
    table = Table(
        title=f"{prefix}{name} by {length_name(environment)} "
        f"({'/'.join(map(str, episodes))} held-out episodes each; "
        f"training {'seed' if len(seeds) == 1 else 'seeds'}: "
        f"{', '.join(map(str, seeds)) or 'none'}{_modes(rows)})"
    )
    table.add_column("model")
    table.add_column("weights")
    for length in lengths:
        table.add_column(str(length), justify="right")
    for model, which in dict.fromkeys((row["model"], row["which"]) for row in rows):
        scores = by_length(rows, metric, model, which)
        cells = (mean_and_spread(scores.get(length, [])) for length in lengths)
        table.add_row(str(model), which, *cells)
    console.print(table)


def _modes(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the modes of the return-to-go of rows; empty if all have the default."""
    modes = dict.fromkeys(row.get("return_to_go") or EvaluationConfig.return_to_go for row in rows)
    is_default = list(modes) == [EvaluationConfig.return_to_go]
    return "" if is_default else f"; return-to-go: {', '.join(modes)}"


def _show_others(rows: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the environment's own metrics of the last weights."""
    metrics = [
        name for name in other_metrics(rows) if any(row.get(name) is not None for row in rows)
    ]
    if not metrics:
        return
    table = Table(title="The last weights in detail")
    for name in ("model", "length", *metrics):
        table.add_column(name, justify="left" if name == "model" else "right")
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        columns = [by_length(rows, metric, model) for metric in metrics]
        for length in sorted({length for column in columns for length in column}):
            cells = (mean_and_spread(column.get(length, [])) for column in columns)
            table.add_row(model, str(length), *cells)
    console.print(table)
