"""Train and score several models over several seeds, side by side, from one file.

    python scripts/study.py scripts/studies/quickstart.yaml
    python scripts/study.py scripts/studies/tmaze.yaml --jobs 4 --results data/results/tmaze.csv

A study file names an environment, the seeds, and for every run the options of the environment's
train script. Runs that have finished are not repeated, and interrupted ones continue.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import shlex
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from rate.errors import ConfigError, UserError
from scripts.console import show_scores, user_errors
from scripts.plot import plot_success
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.errors import Interrupted, TrainingError
from trainers.files import write_atomic

COLUMNS = ("model", "seed", "length", "success", "episodes", "which", "sem", "step", "seconds")


@dataclass(frozen=True)
class Study:
    """A study file, with every run's whole configuration.

    Attributes:
        name: The file's stem.
        runs: Configurations in the order of the file, seed by seed.
    """

    name: str
    runs: list[RunConfig]


def load_study(
    path: Path, seeds: list[int] | None, only: list[str] | None, extra: list[str]
) -> Study:
    """Read a study.

    Args:
        path: The YAML file.
        seeds: Instead of the file's own.
        only: Labels of the runs to take; None takes all.
        extra: Options added to every run.

    Raises:
        ConfigError: If the file cannot be used.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        environment, runs = content["environment"], dict(content["runs"])
        seeds = seeds or list(content["seeds"])
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} is no study: it needs the keys environment, seeds and runs ({error})."
        ) from error
    unknown = set(only or []) - set(runs)
    if unknown:
        raise ConfigError(
            f"{path} has no run {', '.join(sorted(unknown))}; it has: {', '.join(runs)}."
        )
    common = content.get("options", "")
    configs = [
        parse(
            environment,
            [
                *shlex.split(f"{common} {options}"),
                *extra,
                f"--training.seed={seed}",
                f"--logging.name={label}",
                "--logging.progress=false",
            ],
        ).config
        for label, options in runs.items()
        if only is None or label in only
        for seed in seeds
    ]
    return Study(path.stem, configs)


def run_study(study: Study, jobs: int, console: Console) -> list[dict[str, Any]]:
    """Run everything that has not finished; returns a row per run, length and checkpoint."""
    waiting = [config for config in study.runs if not _is_finished(config)]
    done = len(study.runs) - len(waiting)
    if done:
        console.print(f"{done} of {len(study.runs)} runs have finished before; they are reused.")
    context = multiprocessing.get_context("spawn")
    with (
        context.Manager() as manager,
        ProcessPoolExecutor(max_workers=jobs, mp_context=context) as pool,
        Board(console) as board,
    ):
        queue = manager.Queue()
        futures: dict[str, Future[str | None]] = {}
        for config in waiting:
            board.add(config)
            futures[config.run_name] = pool.submit(_work, config, queue)
        while not all(future.done() for future in futures.values()):
            board.drain(queue)
        board.drain(queue)
    _check(futures)
    return [row for config in study.runs for row in _rows(config)]


def _check(futures: dict[str, Future[str | None]]) -> None:
    """Tell of the runs that did not finish; the others keep their scores."""
    failures = {name: future.exception() or future.result() for name, future in futures.items()}
    failures = {name: failure for name, failure in failures.items() if failure}
    for failure in failures.values():
        if isinstance(failure, BaseException) and not isinstance(failure, UserError):
            raise failure
    if failures:
        reasons = "\n".join(f"  {name}: {failure}" for name, failure in failures.items())
        raise TrainingError(f"{len(failures)} of {len(futures)} runs did not finish:\n{reasons}")


def _work(config: RunConfig, queue: Any) -> str | None:
    """One run, in a process of its own; returns why it stopped early, or None."""
    from trainers.train import train

    told = {"at": 0.0}

    def report(phase: str, step: int, total: int) -> None:
        if step <= 1 or step == total or time.monotonic() - told["at"] > 0.2:
            told["at"] = time.monotonic()
            queue.put((config.run_name, phase, step, total))

    folder = _folder(config)
    resume = folder if (folder / "config.yaml").is_file() else None
    try:
        train(config, resume=resume, command=shlex.join(sys.argv), report=report)
    except (Interrupted, TrainingError) as stopped:
        return str(stopped)
    return None


class Board:
    """A progress bar per run; on anything but a terminal, a line per phase."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.progress = Progress(
            TextColumn("{task.fields[run]:<24}"),
            TextColumn("{task.description:<18}"),
            BarColumn(),
            TextColumn("{task.completed:>7.0f}/{task.total:<7.0f}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.tasks: dict[str, TaskID] = {}
        self.phases: dict[str, str] = {}

    def __enter__(self) -> Board:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def add(self, config: RunConfig) -> None:
        total = config.training.max_steps
        self.tasks[config.run_name] = self.progress.add_task(
            "waiting", total=total, start=False, run=config.run_name
        )

    def drain(self, queue: Any) -> None:
        """Show what the runs report, for a fifth of a second."""
        until = time.monotonic() + 0.2
        while (left := until - time.monotonic()) > 0:
            try:
                run, phase, step, total = queue.get(timeout=left)
            except Empty:
                return
            task = self.tasks[run]
            if self.phases.get(run) is None:
                self.progress.start_task(task)
            self.progress.update(task, description=phase, completed=step, total=total)
            if self.phases.get(run) != phase and not self.console.is_terminal:
                self.console.print(f"{run}: {phase}")
            self.phases[run] = phase


def _folder(config: RunConfig) -> Path:
    return Path(config.logging.output) / config.run_name


def _is_finished(config: RunConfig) -> bool:
    """Whether a run's scores are there. What they were made with must be what is asked for."""
    folder = _folder(config)
    if not (folder / "evaluation.json").is_file():
        return False
    before = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    now = config.to_dict()
    for table in (before, now):
        table.pop("logging"), table["training"].pop("threads")
    if before != now:
        raise ConfigError(
            f"{folder} holds a run with other settings. Move it away, or give another --output."
        )
    return True


def _rows(config: RunConfig) -> list[dict[str, Any]]:
    evaluation = json.loads((_folder(config) / "evaluation.json").read_text(encoding="utf-8"))
    return [
        {
            **row,
            "model": config.logging.name,
            "seed": config.training.seed,
            "seconds": evaluation["training_seconds"],
        }
        for row in evaluation["rows"]
    ]


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a table of scores, whole or not at all."""
    lines = [",".join(COLUMNS)]
    lines += [",".join(str(row[column]) for column in COLUMNS) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, "\n".join(lines) + "\n")


def read_csv(path: Path) -> list[dict[str, Any]]:
    """Read a table of scores written by `write_csv`."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", type=Path, help="a file like those in scripts/studies")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the study's own")
    parser.add_argument("--only", nargs="+", metavar="RUN", help="take these runs alone")
    parser.add_argument("--jobs", type=int, help="runs side by side (default: one per two cores)")
    parser.add_argument("--output", default="runs", help="folder of the runs (default: runs)")
    parser.add_argument("--results", type=Path, help="table to write (default: OUTPUT/STUDY.csv)")
    parser.epilog = "Any other option goes to the train script of every run."
    options, extra = parser.parse_known_args(arguments)
    console = Console()
    with user_errors():
        cores = os.cpu_count() or 1
        jobs = options.jobs or max(1, cores // 2)
        extra.append(f"--logging.output={options.output}")
        study = load_study(options.study, options.seeds, options.only, extra)
        results = options.results or Path(options.output) / f"{study.name}.csv"
        started = time.monotonic()
        rows = run_study(study, min(jobs, len(study.runs)), console)
        write_csv(results, rows)
        figure = results.with_suffix(".png")
        plot_success(rows, figure)
        show_scores(rows, console)
        console.print(f"Took {time.monotonic() - started:.0f} s.")
        for what, where in (("runs", options.output), ("scores", results), ("figure", figure)):
            console.print(f"The {what:<6} {where}", highlight=False)


if __name__ == "__main__":
    main()
