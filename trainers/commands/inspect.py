"""Look inside the memory of trained models of any backbone.

    rate inspect runs/tmaze-rate-1 runs/tmaze-lstm-1 -o memory.png
    rate inspect runs/minigrid-rmt-1 --episodes 100 --length 51

Over episodes that the last weights play: the distance between the memories of episodes, how much
each segment changes memory (drift: a measure of how open its gates are), its effective
rank, and the share of episodes that keep their actions when noise hits memory once; what a linear
probe reads from each part of the memory, on held-out episodes (the privileged
state, and the first observation); and how much the last prediction depends on each past step (the
norm of its gradient). Transformers get a figure each, FIGURE-RUN.png: attention to past steps and
to memory, how far gates are open, learned spans, and layers until tokens halt.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rate.analysis.inside import Inside, look_inside
from rate.analysis.memory import MemoryReport, inspect_memory, record
from rate.analysis.probes import ProbeReport, labels_of, probe
from rate.analysis.saliency import saliency
from rate.errors import ConfigError
from rate.policy import Policy
from rate.weights import find_models, load_model
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.environment_options import (
    add_environment_option,
    parse_with_settings,
    playing_in,
)
from trainers.commands.outputs import check_picture
from trainers.environment import Environment
from trainers.environment_errors import environment_errors
from trainers.meter import Meter
from trainers.registry import check_lengths, environment_of

NOISE = (0.2, 0.5, 1.0, 2.0, 5.0)
_FIRST_SEED = 30_000
_SALIENT_EPISODES = 8  # for the gradients, which need far more memory than a forward pass


@dataclass(frozen=True)
class Inspection:
    """What is found inside one run.

    Attributes:
        memory: Statistics of its memory; None if it carries no state.
        probes: What linear probes read.
        saliency: The share of each step in what the last prediction depends on, `(T,)`.
        context_length: K.
        inside: What its layers do; None without attention.
    """

    memory: MemoryReport | None
    probes: ProbeReport
    saliency: list[float]
    context_length: int
    inside: Inside | None


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("inspect", __doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="finished runs, or models alone")
    parser.add_argument("-o", "--output", type=Path, default=Path("memory.png"), help="the figure")
    parser.add_argument("--length", type=count, default=2000, help="their length (default: 2000)")
    parser.add_argument("--episodes", type=count, default=20, help="episodes (default: 20)")
    add_environment_option(parser)
    with user_errors():
        options, env = parse_with_settings(parser, arguments)
    console = Console()
    with user_errors():
        check_picture(options.output, ".png")
        with Meter() as meter:
            how = (options.length, options.episodes, meter, options.env, env)
            found = {run.name: look(run, *how) for run in options.runs}
        figures = draw_figures(found, options.output)
    memories = {name: each.memory for name, each in found.items() if each.memory is not None}
    if memories:
        console.print(memory_table(memories, options.length))
    if any(each.probes.accuracy for each in found.values()):
        console.print(probe_table(found))
    for figure in figures:
        console.print(f"The figure {figure}", highlight=False, markup=False)


def draw_figures(found: dict[str, Inspection], path: Path) -> list[Path]:
    """Draws the figure of all runs and one for each transformer; returns their paths."""
    from trainers.commands.inside_figure import draw_inside
    from trainers.commands.inspect_figure import draw

    draw(found, path)
    inside = {
        path.with_name(f"{path.stem}-{name}{path.suffix}"): (name, each.inside)
        for name, each in found.items()
        if each.inside is not None
    }
    for figure, (name, layers) in inside.items():
        draw_inside(name, layers, figure)
    return [path, *inside]


def look(
    run: Path,
    length: int,
    episodes: int,
    meter: Meter,
    env_name: str | None = None,
    settings: dict[str, Any] | None = None,
) -> Inspection:
    """Roll out a run's last weights and analyse their memory.

    Args:
        run: The folder of a run or of a model.
        length: The length of the episodes.
        episodes: The number of episodes.
        meter: Shows the progress.
        env_name: The value of `--env`; None is the model's own environment.
        settings: The settings of the environment, from `--env.NAME`.

    Raises:
        ConfigError: If the episodes have less than 8 segments.
    """
    saved = load_model(next(iter(find_models(run).values())))
    model, context = saved.model, saved.model.config.context_length
    environment = environment_of(playing_in(saved.spec, env_name, settings or {}))
    longest = check_lengths(environment, [length], "--length")
    if longest < 8 * context:
        raise ConfigError(
            f"--length {length} is less than 8 segments of {run} (K is {context}); "
            f"give at least {8 * context}."
        )
    env = _revealing(environment).make_vector(episodes, length)
    policy = Policy(model, num_envs=episodes, target_return=saved.spec.target_return)
    try:
        with environment_errors(saved.spec.name):
            batch = record(policy, env, _FIRST_SEED, lambda n: meter.show("playing", n, longest))
    finally:
        env.close()
    memory = None
    if model.config.carries_state:
        memory = inspect_memory(model, batch, NOISE, tell=meter.show)
    probes = probe(model, batch, labels_of(batch))
    few = batch.take(slice(0, _SALIENT_EPISODES))
    shares = saliency(model, few)
    return Inspection(memory, probes, shares.tolist(), context, look_inside(model, few))


def _revealing(environment: Environment) -> Environment:
    """Returns the environment with the privileged state in its observations, if it has one."""
    settings = environment.settings
    if not hasattr(settings, "privileged") or environment.spec.frame_stack > 1:
        return environment
    return replace(environment, settings=replace(settings, privileged=True))


def memory_table(reports: dict[str, MemoryReport], length: int) -> Table:
    """Returns the table of statistics of the memory of runs, over episodes of a length."""
    table = Table(
        title=f"Memory over episodes of {length} steps. ±s: share of episodes that keep "
        "their actions when noise of standard deviation s hits memory once"
    )
    for name in ("run", "spread", "drift", "rank", *(f"±{strength}" for strength in NOISE)):
        if name == "run":  # wraps in a narrow terminal, so that numbers need not
            table.add_column(name, overflow="fold")
        else:
            table.add_column(name, justify="right", no_wrap=True)
    for name, report in reports.items():
        late = statistics.mean(report.drift[len(report.drift) // 2 :])
        survival = [f"{report.survival[strength]:.2f}" for strength in NOISE]
        numbers = (f"{report.spread[-1]:.2f}", f"{late:.3f}", f"{report.rank[-1]:.2f}")
        table.add_row(name, *numbers, *survival)
    return table


def probe_table(found: dict[str, Inspection]) -> Table:
    """Returns the table of what linear probes read from the memory of runs."""
    table = Table(
        title="What a linear probe reads from the memory: accuracy on held-out episodes after the "
        "first, the middle and the last segment"
    )
    for name in ("run", "label", "part"):
        table.add_column(name, overflow="fold")
    for name in ("majority", "first", "middle", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for run, each in found.items():
        for label, parts in each.probes.accuracy.items():
            for part, values in parts.items():
                shown = (values[0], values[len(values) // 2], values[-1])
                cells = ["–" if math.isnan(value) else f"{value:.2f}" for value in shown]
                table.add_row(run, label, part, f"{each.probes.majority[label]:.2f}", *cells)
    return table


if __name__ == "__main__":
    main()
