"""Time training and acting on this machine, in turns with baselines.

    python scripts/benchmark.py                                    # everything, in minutes
    python scripts/benchmark.py --only step --configurations tmaze --device cuda
    python scripts/benchmark.py --only step --reference-module ../RATE/RATE/RATE_model.py
    python scripts/benchmark.py --scale                            # cost against K, N, cache, ...
    python scripts/benchmark.py --results data/results/speed.csv   # adds rows to that table
    python scripts/benchmark.py --markdown                         # the project's table, for people

The trainer and its baselines are timed in turns, in short blocks, and the speed-up is given round
by round with its quartiles: other processes slow both down alike. Data are synthetic and of the
real shapes, so only the parts `collector` and `simulators` need simulators.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

if __name__ == "__main__":  # an installation has no package `scripts`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rate.errors import UserError
from scripts.benchmarks.acting import time_rollout, time_simulator
from scripts.benchmarks.collecting import time_collector
from scripts.benchmarks.configurations import MODELS
from scripts.benchmarks.figures import draw_figures
from scripts.benchmarks.machine import Machine, measure_machine
from scripts.benchmarks.objectives import time_objectives
from scripts.benchmarks.public import load_class
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.report import (
    RESULTS,
    show_machine,
    show_rows,
    show_skipped,
    with_ratios,
    write_results,
)
from scripts.benchmarks.rows import Row, Skipped, Subject, Task
from scripts.benchmarks.sampling import time_replay, time_sampler
from scripts.benchmarks.scale import SERIES, scale_tasks
from scripts.benchmarks.table import append_table, check_outputs, markdown
from scripts.benchmarks.timing import describe_failure
from scripts.benchmarks.training import check_agreement, time_fit, time_step
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.devices import add_device_option, choose_device
from trainers.errors import TrainingError
from trainers.meter import Meter
from trainers.yaml_files import parse_yaml

PROJECT_TABLE = Path("data/results/speed.csv")
Measure = Callable[[Subject, float], list[Row]]
# What is measured: a function of a subject and a budget, and its share of the time.
_PARTS: dict[str, tuple[Measure, int]] = {
    "agreement": (check_agreement, 1),
    "objectives": (time_objectives, 3),
    "sampler": (time_sampler, 2),
    "replay": (time_replay, 1),
    "fit": (time_fit, 1),
    "rollout": (time_rollout, 2),
    "collector": (time_collector, 2),
    "simulators": (time_simulator, 3),
}
PARTS = ("step", *_PARTS)
_BUDGET = 400.0  # seconds
_STOPPED = "stopped"


def make_tasks(
    options: argparse.Namespace, machine: Machine, folder: Path, reference: type[nn.Module] | None
) -> Iterator[Task]:
    """The measurements that were asked for."""
    subjects = [
        Subject(
            CONFIGURATIONS[name].with_model(model or CONFIGURATIONS[name].own),
            *(machine, folder, options.batch_size, options.num_envs, options.set),
            workers=options.workers,
        )
        for name in options.configurations
        for model in options.models or [None]
    ]
    step: Measure = partial(time_step, reference=reference)
    parts = {"step": (step, 2 if reference is None else 3), **_PARTS}
    for part in options.only:
        measure, shares = parts[part]
        for subject in subjects:
            yield Task(f"{part} {subject.name}", partial(measure, subject), shares)
    if options.scale is not None:
        yield from scale_tasks(subjects[0], options.scale or list(SERIES))


def run_tasks(
    tasks: Sequence[Task], budget: float, console: Console
) -> tuple[list[Row], dict[str, str]]:
    """Takes the measurements one after the other and divides the time that is left.

    Args:
        tasks: The measurements.
        budget: Seconds for all of them. None is begun after that.
        console: For progress.

    Returns:
        The rows, and why the others are missing.
    """
    rows: list[Row] = []
    skipped: dict[str, str] = {}
    deadline = time.monotonic() + budget
    meter = Meter(console)
    for number, task in enumerate(tasks):
        meter.show("measuring", number, len(tasks), task.label)
        began = time.monotonic()
        if began >= deadline and number:
            skipped[task.label] = "for lack of time (--budget-seconds)"
            continue
        share = (deadline - began) * task.shares / sum(later.shares for later in tasks[number:])
        if torch.cuda.is_available():
            torch.cuda.empty_cache()  # data stay on the device if they fit into its free memory
        try:
            found = task.measure(share)
        except (Skipped, UserError, TrainingError, RuntimeError) as error:
            skipped[task.label] = describe_failure(error)
        except KeyboardInterrupt:
            deadline = 0.0
            skipped[task.label] = _STOPPED
        else:
            rows += [row for row in found if row.is_measured]
            failed = [row for row in found if not row.is_measured]
            skipped |= {f"{task.label}, {row.variant}": row.note for row in failed}
        if not meter.moves:  # a log file
            meter.say(f"{time.monotonic() - began:6.1f} s  {task.label}")
    meter.close()
    return rows, skipped


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
        budget, began = options.budget_seconds or _BUDGET, time.monotonic()
        reference = options.reference_module and load_class(options.reference_module)
        console.print("Measuring the limits of this machine ...")
        machine = measure_machine(device, min(6.0, 0.05 * budget))
        show_machine(machine, console)
        if device.type == "cpu" and options.batch_size is None:
            console.print("On a CPU, batches and rollouts are smaller than published: see 'size'.")
        with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
            tasks = list(make_tasks(options, machine, Path(folder), reference))
            rows, skipped = run_tasks(tasks, budget - (time.monotonic() - began), console)
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
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}"
    )
    parser.add_argument(
        "--configurations", nargs="+", choices=list(CONFIGURATIONS), metavar="NAME",
        default=list(CONFIGURATIONS), help=f"of {', '.join(CONFIGURATIONS)}",
    )  # fmt: skip
    parser.add_argument(
        "--models", nargs="+", metavar="NAME",
        help=f"{', '.join(MODELS)} in published size, or a preset of the environment, such as gru "
        "(default: each configuration's own)",
    )  # fmt: skip
    add_device_option(parser, "auto")
    parser.add_argument("--threads", type=count, help="CPU threads (default: PyTorch's own choice)")
    parser.add_argument("--budget-seconds", type=float, help="time for all measurements")
    parser.add_argument("--batch-size", type=count, help="windows in a batch")
    parser.add_argument("--num-envs", type=count, help="episodes rolled out side by side")
    parser.add_argument(
        "--workers", type=count, help="simulator processes (default: as in evaluation)"
    )
    parser.add_argument(
        "--scale", nargs="*", choices=SERIES, metavar="SERIES",
        help=f"measure cost against {', '.join(SERIES)} (all, if none is named)",
    )  # fmt: skip
    parser.add_argument(
        "--reference-module", metavar="PATH[:CLASS]",
        help="a module with the public model's constructor and forward as a second baseline; its "
        "code is run",
    )  # fmt: skip
    parser.add_argument(
        "--set", nargs="+", type=_setting, default=[], metavar="NAME=VALUE",
        help="settings of the run that is timed, for example training.precision=bf16-mixed",
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
    """Parses `NAME=VALUE`; the value is YAML."""
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form NAME=VALUE")
    return name, parse_yaml(value, f"--set {name}")


if __name__ == "__main__":
    main()
