"""Write one page about runs: scores, curves, what memory does, and episodes.

    rate report runs/tmaze-rate-1 runs/tmaze-dt-1 -o report.html
    rate report runs/tmaze/* --files-only           # only what their files say; no model acts

The page is one HTML file that needs no network. It has the scores of the last and the best weights
with their intervals, learning and held-out curves, scores against the length of episodes, and the
memory and an episode of each model (of its first seed), as `rate inspect` and `rate video` show
them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from rate.errors import UserError
from rate.files import write_atomic
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.evaluate import find_candidates
from trainers.commands.inspect import draw_figures, look, memory_table, probe_table
from trainers.commands.outputs import check_picture, output_errors
from trainers.commands.plot_learning import plot_learning
from trainers.commands.plot_lengths import plot_scores
from trainers.commands.report_page import Page
from trainers.commands.report_runs import (
    ReportedRun,
    read_runs,
    run_table,
    score_tables,
    settings_table,
)
from trainers.commands.video import film
from trainers.meter import Meter

_FRAMES_PER_SECOND = 5


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("report", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="the folders of runs")
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("report.html"), help="the page to write"
    )
    parser.add_argument(
        "--files-only", action="store_true", help="only what the files say: no model acts"
    )
    parser.add_argument(
        "--length", type=count, help="steps to look at memory (default: 8 segments of every model)"
    )
    parser.add_argument("--episodes", type=count, default=20, help="for memory (default: 20)")
    parser.add_argument("--steps", type=count, default=60, help="of an episode (default: 60)")
    options = parser.parse_args(arguments)
    console = Console()
    with user_errors():
        check_picture(options.output, ".html")
        runs = read_runs(options.runs)
        page = Page(f"Report on {len(runs)} run{'s' if len(runs) > 1 else ''}")
        with TemporaryDirectory() as folder:
            _from_files(page, runs, Path(folder))
            if not options.files_only:
                _memory(page, runs, options, Path(folder), console)
                _episodes(page, runs, options.steps, Path(folder), console)
        with output_errors(options.output):
            write_atomic(options.output, page.html())
        size = options.output.stat().st_size / 1e6
        console.print(f"The report {options.output} ({size:.1f} MB)", highlight=False, markup=False)


def _from_files(page: Page, runs: Sequence[ReportedRun], folder: Path) -> None:
    """Add what is in the folders of the runs: scores, curves and settings."""
    page.heading("Runs")
    page.table(run_table(runs))
    rows = [row for run in runs for row in run.rows]
    page.heading("Scores")
    if rows:
        tables = score_tables(runs)
        for table in tables:
            page.table(replace(table, note=""))
        page.note(tables[0].note)  # that of all of them
        # A name may hold what Matplotlib reads as a formula.
        drawn = [{**row, "model": str(row["model"]).replace("$", r"\$")} for row in rows]
        plot_scores(drawn, folder / "scores.png")
        page.heading("Scores against the length of episodes")
        page.picture(folder / "scores.png", "scores of the last weights against episode length")
    else:
        page.note("No run has been scored in rollouts.")
    page.heading("Learning and held-out curves")
    plot_learning([run.folder for run in runs], folder / "learning.png")
    page.picture(folder / "learning.png", "loss and accuracy against optimiser steps")
    if (settings := settings_table(runs)).rows:
        page.heading("Settings that differ")
        page.table(settings)


def _memory(
    page: Page,
    runs: Sequence[ReportedRun],
    options: argparse.Namespace,
    folder: Path,
    console: Console,
) -> None:
    """Add tables and figures of the memory of each model's first seed."""
    page.heading("Memory")
    firsts = _first_seeds(runs)
    contexts = (run.config.model.context_length for run in firsts)
    length = options.length or 8 * max(contexts)
    found = {}
    for run in firsts:
        with _said_on(page, console, f"The memory of {run.folder.name}"), Meter() as meter:
            found[run.folder.name] = look(run.folder, length, options.episodes, meter)
    memories = {name: each.memory for name, each in found.items() if each.memory is not None}
    if memories:
        page.printed(memory_table(memories, length))
    if any(each.probes.accuracy for each in found.values()):
        page.printed(probe_table(found))
    for figure in draw_figures(found, folder / "memory.png") if found else []:
        name = figure.stem.removeprefix("memory").removeprefix("-")
        page.picture(figure, f"the layers of {name}" if name else "the memory of the models")


def _episodes(
    page: Page, runs: Sequence[ReportedRun], steps: int, folder: Path, console: Console
) -> None:
    """Add an animated picture of an episode of each model's first seed."""
    page.heading("Episodes")
    page.note(f"At most {steps} steps of the first held-out episode, by the last weights.")
    for number, run in enumerate(_first_seeds(runs)):
        path, name = folder / f"{number}.gif", run.folder.name
        with _said_on(page, console, f"The episode of {name}"):
            candidate = find_candidates(run.folder)[0]
            settings = candidate.settings
            length, seed = settings.selection_lengths[0], settings.test_seed
            film(candidate, length, seed, steps, _FRAMES_PER_SECOND, path)
            page.picture(path, f"an episode of {name}, and its memory beside it")


def _first_seeds(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Returns the first run of each model in each environment."""
    found: dict[tuple[str, str], ReportedRun] = {}
    for run in runs:
        found.setdefault((run.config.environment, run.label), run)
    return list(found.values())


@contextmanager
def _said_on(page: Page, console: Console, what: str) -> Iterator[None]:
    """Context of a part of the page that needs an environment; the page says why it is missing."""
    try:
        yield
    except UserError as error:
        page.note(f"{what} is not shown: {error}")
        console.print(
            f"note: {what} is not shown: {error}", highlight=False, markup=False, soft_wrap=True
        )


if __name__ == "__main__":
    main()
