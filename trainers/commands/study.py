"""Train and score several models over several seeds, side by side, from one file.

    rate study quickstart                    # the project's own: tmaze, minigrid, ...
    rate study my_study.yaml --jobs 4 --results scores.csv
    rate study my_study.yaml --on ray --output /shared/runs

A study file names an environment, the seeds, and for every run the options of the environment's
train script. Runs that have finished are not repeated, and interrupted ones continue.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from rich.console import Console

from rate.errors import UserError
from rate.stopping import with_message
from rate.workers.engine import engine_elsewhere
from rate.workers.pool import available_cores
from trainers.commands.console import count, make_parser, show_scores, user_errors
from trainers.commands.engine_options import add_engine_options, engine_of
from trainers.commands.plot_lengths import plot_scores
from trainers.commands.scores import add_scores, training_seconds
from trainers.commands.study_evaluations import Evaluation
from trainers.commands.study_file import STUDIES, Study, find_study, load_study
from trainers.commands.study_results import (
    check_outputs,
    is_finished,
    run_rows,
    score_baselines,
)
from trainers.commands.study_run import StudyRun
from trainers.config import RunConfig
from trainers.errors import TrainingError
from trainers.meter import Meter

_MOST_THREADS = 4  # more do not make small models faster


def run_study(
    study: Study, jobs: int, console: Console, at_once: int | None = None
) -> list[dict[str, Any]]:
    """Train and score the unfinished runs and baselines of a study.

    Args:
        study: The study.
        jobs: The number of concurrent processes, which decides the threads of a run.
        console: Shows the progress.
        at_once: The number of concurrent processes of a cluster; None is `jobs`.

    Returns:
        A row of scores for each baseline and length, and for each run, length and checkpoint.

    Raises:
        ConfigError: If the folder of a run holds another run.
        TrainingError: If a run did not finish. The others have finished and are kept.
    """
    evaluations, at_once = study.evaluations, at_once or jobs
    waiting = [config for config in study.runs if not is_finished(config, evaluations)]
    baselines = score_baselines(study, at_once, console)
    done = len(study.runs) - len(waiting)
    if done:
        console.print(f"{done} of {len(study.runs)} runs have finished before; they are reused.")
    if waiting:
        console.print(
            f"{len(waiting)} runs to train, {min(at_once, len(waiting))} side by side ..."
        )
        threads = threads_of_a_run(jobs, len(study.runs))
        _check(_run_all(waiting, evaluations, at_once, threads, console))
    return [*baselines, *(row for config in study.runs for row in run_rows(config, evaluations))]


def threads_of_a_run(jobs: int, runs: int) -> int | None:
    """Returns the number of threads of a run: its share of the cores, at most 4.

    The number depends on all runs of the study and not on the unfinished ones, so that a resumed
    run has the same number. None, if `OMP_NUM_THREADS` is set, leaves the number to the run.

    Args:
        jobs: The number of concurrent processes.
        runs: The number of runs of the study.
    """
    if "OMP_NUM_THREADS" in os.environ:
        return None
    return min(max(1, available_cores() // min(jobs, runs)), _MOST_THREADS)


def _run_all(
    configs: list[RunConfig],
    evaluations: dict[str, Evaluation],
    jobs: int,
    threads: int | None,
    console: Console,
) -> dict[str, Future[str | None]]:
    """Train in `jobs` processes. Returns the future of each run (see `StudyRun`) by its name."""
    reports: SimpleQueue[Any] = SimpleQueue()
    runs = [StudyRun(config, evaluations, threads, reports.put) for config in configs]
    with ThreadPoolExecutor(min(jobs, len(runs))) as waiting, Meter(console) as meter:
        futures = {run.config.run_name: waiting.submit(run.result) for run in runs}
        try:
            while not all(future.done() for future in futures.values()):
                _show_reports(reports, meter)
            _show_reports(reports, meter)
        except KeyboardInterrupt as interrupt:
            for run in runs:
                run.stop()
            waiting.shutdown()  # waits until the runs have saved their states
            raise with_message(
                interrupt, "Stopped; the same command continues the study."
            ) from None
    return futures


def _show_reports(queue: SimpleQueue[Any], meter: Meter) -> None:
    """Show the reports of runs in a queue, for 0.2 seconds.

    Args:
        queue: Has tuples of the run's name, its phase, the completed steps and the total steps.
        meter: Shows the progress.
    """
    until = time.monotonic() + 0.2
    while (left := until - time.monotonic()) > 0:
        try:
            run, phase, done, total = queue.get(timeout=left)
        except Empty:
            return
        meter.show(phase, done, total, name=run)


def _check(futures: dict[str, Future[str | None]]) -> None:
    """Check that all runs have finished.

    Raises:
        TrainingError: If some have not; the message has the reason of each.
        Exception: If a run raised an unexpected error.
    """
    failures = {name: future.exception() or future.result() for name, future in futures.items()}
    failures = {name: failure for name, failure in failures.items() if failure}
    for failure in failures.values():
        if isinstance(failure, BaseException) and not isinstance(failure, UserError):
            raise failure
    if failures:
        reasons = "\n".join(f"  {name}: {failure}" for name, failure in failures.items())
        raise TrainingError(
            f"{len(failures)} of {len(futures)} runs did not finish. The same command continues "
            f"with them.\n{reasons}"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("study", __doc__)
    parser.add_argument(
        "study", type=find_study, help=f"a file, or one of the project's: {', '.join(STUDIES)}"
    )
    parser.add_argument("--env", metavar="ENVIRONMENT", help="instead of the study's own")
    parser.add_argument("--seeds", type=int, nargs="+", help="instead of the study's own")
    only = (
        "take these runs alone (RUN-VALUE, or RUN with all values, if the study varies an option)"
    )
    parser.add_argument("--only", nargs="+", metavar="RUN", help=only)
    parser.add_argument("--jobs", type=count, help="runs side by side (default: one per core)")
    parser.add_argument("--output", type=Path, help="folder of the runs (default: runs/STUDY)")
    add_engine_options(parser)
    parser.add_argument("--results", type=Path, help="table to add to (default: OUTPUT/STUDY.csv)")
    parser.epilog = "Any other option, as --NAME=VALUE, goes to the train script of every run."
    options, extra = parser.parse_known_args(arguments)
    jobs = options.jobs or available_cores()
    # A folder for each study: runs of other studies and of the train scripts have the same names.
    output = options.output or Path("runs") / options.study.stem
    extra.append(f"--logging.output={output}")
    console = Console()
    started = time.monotonic()
    with user_errors():
        study = load_study(options.study, options.seeds, options.only, extra, options.env)
        results = options.results or output / f"{study.name}.csv"
        figure = results.with_suffix(".png")
        check_outputs(results, figure)
        with engine_of(options, console, shared=output):
            engine = engine_elsewhere()
            at_once = options.jobs or (jobs if engine is None else engine.capacity)
            rows = run_study(study, jobs, console, at_once)
        show_scores(rows, console)
        add_scores(results, rows)
        plot_scores(rows, figure)
    seconds = ", ".join(f"{model} {mean:.0f} s" for model, mean in training_seconds(rows).items())
    console.print(f"Training took {seconds}; everything {time.monotonic() - started:.0f} s.")
    for what, where in (("runs", output), ("scores", results), ("figure", figure)):
        console.print(f"The {what:<6} {where}", highlight=False, markup=False)


if __name__ == "__main__":
    main()
