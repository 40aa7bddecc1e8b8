"""Train and evaluate a model on all 48 tasks of POPGym; finished runs are not repeated.

    python scripts/benchmark_popgym.py                          # RATE, one seed: hours on a CPU
    python scripts/benchmark_popgym.py --tasks "Repeat*" "*Easy" --seeds 1 2 3
    python scripts/benchmark_popgym.py --model_mode DT --jobs 4

Prints the returns next to the published ones (Cherepanov et al. 2023; `data` is the mean return of
their data sets), and the sums. Any other option, as --NAME=VALUE, goes to train_popgym.py.
"""

from __future__ import annotations

import os
import statistics
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rate.envs.popgym_tasks import TASKS
from rate.errors import ConfigError
from trainers.cli import parse
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.scores import add_scores, by_length, check_scores, read_scores, read_table
from trainers.commands.study import run_study
from trainers.commands.study_file import Study
from trainers.config import RunConfig

PUBLISHED = Path(__file__).parents[1] / "data" / "results" / "published" / "popgym.csv"
_COLUMNS = ("ours", "expert", "rate", "dt", "data")


def choose_tasks(patterns: Sequence[str]) -> list[str]:
    """Returns the tasks that match a pattern, short ones first.

    Raises:
        ConfigError: If a pattern matches none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in TASKS):
            raise ConfigError(f"--tasks {pattern} is no task of POPGym: {', '.join(TASKS)}.")
    chosen = [name for name in TASKS if any(fnmatchcase(name, pattern) for pattern in patterns)]
    return sorted(chosen, key=lambda name: TASKS[name].steps)


def run_all(runs: list[RunConfig], jobs: int, results: Path, console: Console) -> None:
    """Trains runs that have not finished. Results are written even if a run fails."""
    try:
        run_study(Study("popgym", runs, []), jobs, console)
    finally:
        done = [run for run in runs if _folder(run).joinpath("evaluation.json").is_file()]
        if done:
            rows = run_study(Study("popgym", done, []), jobs, Console(quiet=True))
            add_scores(results, rows)


def compare(rows: Sequence[dict[str, Any]], model: str) -> dict[str, dict[str, float]]:
    """Mean return by task: ours (last weights, all seeds), our expert's, and the published ones."""
    compared = {}
    for published in read_table(PUBLISHED):
        task = published["task"]
        ours = [x for xs in by_length(rows, "return", f"{task}-{model}").values() for x in xs]
        known = {name: float(published[name]) for name in ("rate", "dt", "data")}
        if ours:
            expert = TASKS[task].expert_return
            compared[task] = {"ours": statistics.mean(ours), "expert": expert, **known}
    return compared


def show(compared: dict[str, dict[str, float]], model: str, console: Console) -> None:
    """Prints a row for each task, and the sums."""
    table = Table(title=f"POPGym: mean return in {len(compared)} of {len(TASKS)} tasks")
    titles = (model, "our expert", "published RATE", "published DT", "their data")
    for title in ("task", *titles):
        table.add_column(title, justify="left" if title == "task" else "right")
    for task, scores in compared.items():
        table.add_row(task, *(f"{scores[name]:.2f}" for name in _COLUMNS))
    sums = [sum(scores[name] for scores in compared.values()) for name in _COLUMNS]
    table.add_section()
    table.add_row("sum", *(f"{total:.2f}" for total in sums))
    console.print(table)


def _folder(run: RunConfig) -> Path:
    return Path(run.logging.output) / run.run_name


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = make_parser("benchmark_popgym", __doc__)
    parser.add_argument("--model_mode", default="RATE", help="as in train_popgym.py")
    parser.add_argument("--tasks", nargs="+", default=["*"], help="names, * and ? allowed")
    parser.add_argument("--seeds", type=count, nargs="+", default=[1])
    parser.add_argument("--jobs", type=count, help="parallel runs (default: one per core)")
    parser.add_argument("--output", default="runs/popgym48", help="folder (default: runs/popgym48)")
    parser.add_argument("--results", type=Path, help="table (default: OUTPUT/popgym.csv)")
    options, extra = parser.parse_known_args(arguments)
    results = options.results or Path(options.output) / "popgym.csv"
    common = [f"--model_mode={options.model_mode}", f"--logging.output={options.output}", *extra]
    console = Console()
    with user_errors():
        check_scores(results)
        runs = [
            parse(
                "popgym",
                [*common, f"--env={task}", f"--training.seed={seed}", "--logging.progress=false"],
            ).config
            for seed in options.seeds
            for task in choose_tasks(options.tasks)
        ]
        run_all(runs, options.jobs or os.cpu_count() or 1, results, console)
        show(compare(read_scores(results), runs[0].name), runs[0].name, console)
    console.print(f"The table is {results}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
