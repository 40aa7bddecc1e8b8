"""Time training and acting on this machine, against baselines and the published figures.

    python scripts/benchmark.py                                    # everything, in minutes
    python scripts/benchmark.py --only step --configurations tmaze --device cuda
    python scripts/benchmark.py --only step --reference-module ../RATE/RATE/RATE_model.py
    python scripts/benchmark.py --scale                            # cost against K, N, cache, ...
    python scripts/benchmark.py --results data/results/speed.csv   # adds rows to that table
    python scripts/benchmark.py --markdown                         # the project's table, for people

Data are synthetic and of the real shapes, so no simulator is needed. Every figure is a median of
many, after a warm-up. Nothing is asserted about time.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

if __name__ == "__main__":  # the folder of the scripts is no part of an installation
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rate.errors import UserError
from scripts.benchmarks.acting import rollout_tasks, simulator_tasks
from scripts.benchmarks.configurations import MODELS
from scripts.benchmarks.machine import Machine, measure_machine
from scripts.benchmarks.public import load_class
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.report import (
    RESULTS,
    append_table,
    check_outputs,
    draw_figures,
    show_machine,
    show_rows,
    show_skipped,
    with_ratios,
    write_results,
)
from scripts.benchmarks.rows import Row, Skipped, Subject, Task
from scripts.benchmarks.scale import SERIES, scale_tasks
from scripts.benchmarks.table import markdown
from scripts.benchmarks.training import agreement_tasks, fit_tasks, sampler_tasks, step_tasks
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.devices import add_device_option, choose_device
from trainers.errors import TrainingError
from trainers.meter import Meter
from trainers.yaml_files import parse_yaml

PROJECT_TABLE = Path("data/results/speed.csv")
PARTS = ("step", "agreement", "sampler", "fit", "rollout", "simulators")
_BUDGET = 400.0  # seconds
_SHORTEST, _LONGEST = 0.3, 20.0  # seconds of a measurement
_STOPPED = "stopped"
_OVERTIME = 0.1  # share of the budget; then the rest is left out


def make_tasks(
    options: argparse.Namespace, machine: Machine, folder: Path, reference: type[nn.Module] | None
) -> Iterator[tuple[str, Task]]:
    """Every measurement that was asked for, and what to call it."""
    subjects = [
        Subject(
            CONFIGURATIONS[name].with_model(model or CONFIGURATIONS[name].own),
            *(machine, folder, options.batch_size, options.num_envs, options.set),
            workers=options.workers,
        )
        for name in options.configurations
        for model in options.models or [None]
    ]
    parts = {
        "step": lambda subject: step_tasks(subject, reference),
        "sampler": sampler_tasks,
        "fit": fit_tasks,
        "rollout": rollout_tasks,
        "simulators": simulator_tasks,
        "agreement": agreement_tasks,
    }
    for part in options.only:
        for subject in subjects:
            own = subject.configuration
            for task in parts[part](subject):
                yield f"{part} {own.name} {own.own}, {task.label}", task
    if options.scale is not None:
        for task in scale_tasks(subjects[0], options.scale or list(SERIES)):
            yield f"scale {task.label}", task


def run_tasks(
    tasks: Sequence[tuple[str, Task]], budget: float, console: Console
) -> tuple[list[Row], dict[str, str]]:
    """Take the measurements one after another, sharing out the time that is left.

    Returns:
        The rows, and why the others are missing.
    """
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    deadline = time.monotonic() + budget
    # What getting ready has taken, by part: it comes on top of a measurement's share. Where nobody
    # knows yet, half of the time is set aside for it.
    unknown = 0.5 * budget / max(len(tasks), 1)
    beside: dict[str, list[float]] = {label.split()[0]: [] for label, _ in tasks}
    meter = Meter(console)
    for number, (label, task) in enumerate(tasks):
        meter.show("measuring", number, len(tasks), label)
        began = time.monotonic()
        left = deadline - began
        if left <= -_OVERTIME * budget:
            skipped[label] = "for the time was up (--budget-seconds)"
            continue
        parts = [beside[later.split()[0]] for later, _ in tasks[number:]]
        left -= sum(statistics.mean(part) if part else unknown for part in parts)
        share = left / sum(later.shares for _, later in tasks[number:])
        share = task.shares * min(max(share, _SHORTEST), _LONGEST)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # what is free decides where data go
        with _telling(label, meter):
            try:
                found = task.measure(share)
                rows += found if isinstance(found, list) else [found]
            except (Skipped, UserError, TrainingError) as error:
                skipped[label] = str(error)
            except torch.cuda.OutOfMemoryError:
                skipped[label] = "the device's memory is too small for it"
            except RuntimeError as error:  # of CUDA and its libraries: the others are still of use
                skipped[label] = f"{type(error).__name__}: {error}".splitlines()[0]
            except KeyboardInterrupt:
                deadline = 0.0
                skipped[label] = _STOPPED
        beside[label.split()[0]].append(max(0.0, time.monotonic() - began - share))
    meter.close()
    return rows, skipped


@contextmanager
def _telling(what: str, meter: Meter) -> Iterator[None]:
    """Say in a log file how long something took."""
    started = time.monotonic()
    yield
    if not meter.moves:
        meter.say(f"{time.monotonic() - started:6.1f} s  {what}")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    options = _parse(arguments)
    typed = sys.argv[1:] if arguments is None else list(arguments)
    command = shlex.join(["python", "scripts/benchmark.py", *typed])
    console = Console()
    with user_errors():
        if options.markdown:
            print(markdown(options.results or PROJECT_TABLE, options.only))
            return
        table = options.results or options.output / "speed.csv"
        check_outputs(options.output, table)
        device = choose_device(options.device)
        torch.set_num_threads(options.threads or torch.get_num_threads())
        budget = options.budget_seconds or _BUDGET
        reference = options.reference_module and load_class(options.reference_module)
        console.print("Measuring what this machine can do at best ...")
        machine = measure_machine(device, min(6.0, 0.05 * budget))
        show_machine(machine, console)
        if device.type == "cpu" and options.batch_size is None:
            console.print("On a CPU, batches and rollouts are smaller than published: see 'size'.")
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            tasks = list(make_tasks(options, machine, Path(folder), reference))
            rows, skipped = run_tasks(tasks, budget, console)
        rows = with_ratios(rows)
        show_rows(rows, console)
        show_skipped(skipped, console)
        written = options.output / RESULTS
        write_results(rows, skipped, machine, command, written)
        if _STOPPED in skipped.values():
            raise KeyboardInterrupt(
                f"Stopped; what was measured is in {written}. Nothing was added to {table}."
            )
        append_table(rows, machine, command, table)
        figures = draw_figures(rows, machine, options.output)
    for path in (written, table, *figures):
        console.print(path, highlight=False, markup=False, soft_wrap=True)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = make_parser("benchmark", __doc__)
    names = {"configurations": list(CONFIGURATIONS), "models": list(MODELS)}
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--configurations", nargs="+", choices=names["configurations"], metavar="NAME",
        default=names["configurations"], help=f"of {', '.join(names['configurations'])}",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", choices=names["models"], metavar="NAME",
        help=f"of {', '.join(names['models'])} (default: each configuration's own)",
    )  # fmt: skip
    add_device_option(parser, "auto")
    parser.add_argument("--threads", type=count, help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument("--budget-seconds", type=float, help="time for all of it, about")
    parser.add_argument("--batch-size", type=count, help="windows in a batch")
    parser.add_argument("--num-envs", type=count, help="episodes rolled out side by side")
    parser.add_argument(
        "--workers", type=count, help="processes of simulators (default: as in evaluation)"
    )
    parser.add_argument(
        "--scale", nargs="*", choices=SERIES, metavar="SERIES",
        help=f"measure cost against {', '.join(SERIES)} (all, if none is named)",
    )  # fmt: skip
    parser.add_argument(
        "--reference-module", metavar="PATH[:CLASS]",
        help="also time a module with the public model's constructor and forward; runs its code",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", type=_setting, default=[], metavar="NAME=VALUE",
        help="settings of the run that is timed, for example training.precision=32-true",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, default=Path("runs/benchmark"), help="folder")
    parser.add_argument(
        "--results", type=Path, help="table to add rows to (default: OUTPUT/speed.csv)"
    )
    parser.add_argument(
        "--markdown",
        action="store_true",
        help=f"measure nothing; print the tables of --results (default: {PROJECT_TABLE})",
    )
    options = parser.parse_args(arguments)
    options.set = dict(options.set)
    if options.only is None:  # --scale alone is that alone
        options.only = list(PARTS) if options.scale is None else []
    return options


def _setting(text: str) -> tuple[str, Any]:
    """A setting from `NAME=VALUE`, the value as in YAML."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    return name, parse_yaml(value, f"--set {name}")


if __name__ == "__main__":
    main()
