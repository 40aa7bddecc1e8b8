"""Say what of the trainer runs on this machine, what is missing, and how to install it.

    rate doctor                       # everything
    rate doctor vizdoom memory_maze   # these environments
    rate doctor --json doctor.json    # also for programs

Every part is tried in a process of its own, so that what crashes or hangs is a line in the table.
Ends with 0 if everything that was asked for works, else with 1.
"""

from __future__ import annotations

import difflib
import faulthandler
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from datamodules.disk_errors import explain_write_errors
from rate.advice import install
from rate.errors import UserError
from rate.files import write_json
from rate.workers.tasks import TaskFailure, run_tasks
from trainers.commands.console import count, fail, make_parser, user_errors
from trainers.commands.outputs import read_own_json
from trainers.commands.probe import TRAINER, Finding, probe
from trainers.environments import NAMES
from trainers.meter import Meter

SECONDS = 180  # time limit of a part; a cold disk and a slow simulator take half a minute
ALL = (TRAINER, *NAMES)  # the memory tasks need no package


def examine(name: str, seconds: float = SECONDS) -> Finding:
    """Test a part of the trainer in a worker process.

    A crash, an error or a timeout of the process is a finding, not an exception.

    Args:
        name: `trainer`, or an environment.
        seconds: Time limit.
    """
    with tempfile.TemporaryDirectory() as folder:  # some simulators write to the working directory
        stderr = Path(folder, "stderr.txt")
        attempt = partial(_PartTest, probe, folder if name != TRAINER else None, stderr)
        try:
            with closing(run_tasks(attempt, [name], 1, seconds, attempts=1)) as findings:
                finding: Finding = next(findings)
                return finding
        except TaskFailure as failure:
            return Finding(name, problem=failure.reason + last_error(stderr))
        except UserError as error:
            return Finding(name, problem=str(error))


class _PartTest:
    """Tests a part in a worker process, whose standard error is kept for the report of a crash.

    Args:
        try_part: Tests a part.
        folder: The working directory; None keeps the current one.
        stderr: The file for standard error.
    """

    def __init__(
        self, try_part: Callable[[str], Finding], folder: str | None, stderr: Path
    ) -> None:
        self._try = try_part
        if folder is not None:
            os.chdir(folder)
        with stderr.open("wb") as file, open(os.devnull, "wb") as null:  # noqa: PTH123
            os.dup2(file.fileno(), 2)
            os.dup2(null.fileno(), 1)
        faulthandler.enable(all_threads=False)

    def __call__(self, name: str, beat: Callable[[], None]) -> Finding:
        return self._try(name)


def last_error(stderr: Path) -> str:
    """Returns the end of a process's standard error: the place of a crash, or the last line.

    Args:
        stderr: The file with standard error.
    """
    try:
        text = stderr.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    # The report of faulthandler ends with the stack, the innermost call first.
    calls = [line for line in lines if line.startswith("File ")]
    crashed = any(line.startswith("Fatal Python error") for line in lines)
    place = calls[:1] if crashed and calls else lines[-1:]
    return "".join(f", {line}" for line in place)


def command_for(fix: str) -> str:
    """Returns the command that fixes a finding, for this Python environment."""
    return install(fix.removeprefix("extra:")) if fix.startswith("extra:") else fix


def show(findings: Sequence[Finding], console: Console) -> None:
    """Print findings: the trainer, the environments, problems and the commands that fix them."""
    for finding in findings:
        if finding.name == TRAINER:
            show_trainer(finding, console)
    environments = [finding for finding in findings if finding.name != TRAINER]
    if environments:
        console.print(environment_table(environments))
    for finding in findings:
        if not finding.works:
            # One line each, whatever the width, so that commands can be copied.
            problem = escape(" ".join(finding.problem.split()))
            text = f"[bold red]{finding.name}[/]: {problem}"
            console.print(text, soft_wrap=True, highlight=False)
        if finding.fix:
            fix = escape(command_for(finding.fix))
            console.print(f"  [green]{fix}[/]", soft_wrap=True, highlight=False)


def show_trainer(finding: Finding, console: Console) -> None:
    """Print the facts about training on this machine."""
    table = Table(show_header=False, box=None, pad_edge=False)
    for title, fact in finding.facts.items():
        table.add_row(title, escape(fact))
    table.add_row("trains here", _yes_no(finding.works))
    console.print(table)


def environment_table(findings: Iterable[Finding]) -> Table:
    """Returns a table with a row for each environment."""
    titles = ("packages", "draws with", "steps/s")
    table = Table(caption="steps/s: one row, random actions", caption_justify="left")
    for title in ("environment", "runs here", *titles):
        table.add_column(title, justify="right" if title == "steps/s" else "left")
    for finding in findings:
        facts = (escape(finding.facts.get(title, "–")) for title in titles)
        table.add_row(finding.name, _yes_no(finding.works), *facts)
    return table


def _yes_no(works: bool) -> str:
    return "[green]yes[/]" if works else "[bold red]no[/]"


def part(text: str) -> str:
    """Returns the name of a part; `-` may be used for `_`. Exits if there is no such part."""
    name = text.replace("-", "_")
    if name in ALL:
        return name
    close = difflib.get_close_matches(name, ALL, n=1)
    fail(
        f"there is no '{text}'; there are: {', '.join(ALL)}"
        + "".join(f"; did you mean '{name}'?" for name in close)
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("doctor", __doc__)
    parser.add_argument("parts", nargs="*", metavar="ENVIRONMENT", help=f"of {', '.join(ALL)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write what was found")
    parser.add_argument("--timeout", type=count, default=SECONDS, help="seconds for each part")
    options = parser.parse_args(arguments)
    names = list(dict.fromkeys(map(part, options.parts))) or list(ALL)
    console, findings = Console(), []
    with user_errors():
        if options.json:
            read_own_json(options.json, "file of the command doctor", {"name", "works", "fix"})
        with Meter() as meter:
            for number, name in enumerate(names):
                meter.show("trying", number, len(names), name)
                findings.append(examine(name, options.timeout))
            meter.show("trying", len(names), len(names))
    show(findings, console)
    if options.json:
        content = [{**asdict(found), "fix": command_for(found.fix)} for found in findings]
        with user_errors(), explain_write_errors(UserError, str(options.json), "Make room."):
            write_json(options.json, content)
    raise SystemExit(0 if all(finding.works for finding in findings) else 1)


if __name__ == "__main__":
    main()
