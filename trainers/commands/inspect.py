"""Look inside the memory of trained models: distance between episodes, rank, robustness to noise.

rate inspect runs/tmaze-rate-1 runs/tmaze-rmt-1 -o memory.png
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rate.analysis.memory import MemoryReport, inspect_memory, record
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
from trainers.commands.plot import pyplot, save
from trainers.commands.styles import styles
from trainers.environment_errors import environment_errors
from trainers.meter import Meter
from trainers.registry import check_lengths, environment_of

NOISE = (0.2, 0.5, 1.0, 2.0, 5.0)


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
            reports = {run.name: look(run, *how) for run in options.runs}
        draw(reports, options.output)
    table = Table(
        title=f"Memory over episodes of {options.length} steps. ±s: share of episodes that keep "
        "their actions when noise of standard deviation s hits memory once"
    )
    for name in ("run", "spread", "drift", "rank", *(f"±{strength}" for strength in NOISE)):
        is_name = name == "run"
        table.add_column(name, justify="left" if is_name else "right", no_wrap=is_name)
    for name, report in reports.items():
        late = statistics.mean(report.drift[len(report.drift) // 2 :])
        survival = [f"{report.survival[strength]:.2f}" for strength in NOISE]
        numbers = (f"{report.spread[-1]:.2f}", f"{late:.3f}", f"{report.rank[-1]:.2f}")
        table.add_row(name, *numbers, *survival)
    console.print(table)
    console.print(f"The figure {options.output}", highlight=False, markup=False)


def look(
    run: Path,
    length: int,
    episodes: int,
    meter: Meter,
    env_name: str | None = None,
    settings: dict[str, Any] | None = None,
) -> MemoryReport:
    """Roll out a run's last weights and analyse their memory.

    Args:
        run: The folder of a run or of a model.
        length: The length of the episodes.
        episodes: The number of episodes.
        meter: Shows the progress.
        env_name: The value of `--env`; None is the model's own environment.
        settings: The settings of the environment, from `--env.NAME`.

    Raises:
        ConfigError: If the model has no memory tokens, or the episodes have less than 8 segments.
    """
    saved = load_model(next(iter(find_models(run).values())))
    config = saved.model.config
    if not getattr(config, "num_memory_tokens", 0):
        raise ConfigError(f"{run} has no memory tokens to look at (model.num_memory_tokens is 0).")
    environment = environment_of(playing_in(saved.spec, env_name, settings or {}))
    longest = check_lengths(environment, [length], "--length")
    if longest < 8 * config.context_length:
        raise ConfigError(
            f"--length {length} is less than 8 segments of {run} (K is {config.context_length}); "
            f"give at least {8 * config.context_length}."
        )
    env = environment.make_vector(episodes, length)
    policy = Policy(saved.model, num_envs=episodes, target_return=saved.spec.target_return)
    try:
        with environment_errors(saved.spec.name):
            batch = record(policy, env, 30_000, lambda step: meter.show("playing", step, longest))
    finally:
        env.close()
    return inspect_memory(saved.model, batch, NOISE, tell=meter.show)


def draw(reports: dict[str, MemoryReport], path: Path) -> None:
    """Draw three panels: spread and rank by segment, survival by noise.

    Args:
        reports: The reports by name of the run.
        path: The PNG to write.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    plt = pyplot()
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained")
    looks = styles(reports)
    for name, report in reports.items():
        look: dict[str, Any] = {"color": looks[name].colour, "linestyle": looks[name].dash}
        panels[0].plot(range(1, len(report.spread) + 1), report.spread, **look)
        panels[1].plot(range(1, len(report.rank) + 1), report.rank, **look)
        strengths = list(report.survival)
        values = [report.survival[strength] for strength in strengths]
        panels[2].plot(
            strengths, values, marker=looks[name].marker, markersize=4, label=name, **look
        )
    panels[0].set(xscale="log", xlabel="segment", ylabel="distance, relative to size")
    panels[0].set(ylim=(0, None))
    panels[0].set_title("Distance between memories of episodes")
    panels[1].set(xscale="log", xlabel="segment", ylabel="effective rank", ylim=(0.9, None))
    panels[1].set_title("Directions in use")
    panels[2].set(xscale="log", ylim=(0, 1.05), xlabel="noise on memory, once (standard deviation)")
    panels[2].set_xticks(NOISE, [str(strength) for strength in NOISE])
    panels[2].minorticks_off()
    panels[2].set_ylabel("episodes that keep their actions")
    panels[2].set_title("Basin")
    panels[2].legend(frameon=False, fontsize=8)
    save(figure, path)


if __name__ == "__main__":
    main()
