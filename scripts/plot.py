"""Draw scores against episode length, or learning curves.

python scripts/plot.py data/results/tmaze.csv                 # -> data/results/tmaze.png
python scripts/plot.py data/results/tmaze.csv --markdown      # the README's table
python scripts/plot.py runs/tmaze-rate-1 runs/tmaze-dt-1      # -> learning.png
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import draft_of
from scripts.console import count, make_parser, user_errors
from scripts.outputs import check_picture
from scripts.scores import by_length, main_metric, markdown, read_scores, read_table
from trainers.entries import BASELINES
from trainers.registry import length_name

_NAMES = {"success": "success rate", "return": "return"}
_LABELS = ("environment", "model", "which", "seed", "length", "episodes", "step")
# Okabe and Ito's colours, told apart by all eyes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def plot_scores(rows: Sequence[dict[str, Any]], path: Path, trained_length: int) -> None:
    """Success (or return) of the last weights against length: a line per model, seeds as dots.

    Args:
        rows: Scores as `read_scores` gives them.
        path: The PNG to write.
        trained_length: The greatest length seen in training, drawn as a dotted line.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    metric = main_metric(rows)
    for index, (model, colour) in enumerate(zip(models, COLOURS * len(models), strict=False)):
        scores = by_length(rows, metric, model)
        is_baseline = model in BASELINES
        # Equal scores show one around the other, and baselines on top of them all.
        width = 1.5 if is_baseline else 1.5 + 1.2 * (len(models) - 1 - index)
        style = "--" if is_baseline else "-o"
        lengths = sorted(scores)
        means = [statistics.mean(scores[length]) for length in lengths]
        (line,) = axes.plot(lengths, means, style, color=colour, label=model, linewidth=width)
        line.set(markersize=width + 2.5, zorder=3 if is_baseline else 2)
        for length in lengths:
            axes.plot([length] * len(scores[length]), scores[length], ".", color=colour, alpha=0.35)
    axes.axvline(trained_length, color="black", linestyle=":", linewidth=1)
    place = ("data", "axes fraction")
    axes.annotate("in training", (trained_length, 0.04), xycoords=place, rotation=90, fontsize=8)
    if metric == "success":
        axes.axhline(0.5, color="black", linewidth=0.5)
        place = ("axes fraction", "data")
        axes.annotate("guessing", (1, 0.505), xycoords=place, fontsize=8, ha="right")
        axes.set(ylim=(0, 1.05))
    environment = str(rows[0].get("environment") or "tmaze")
    axes.set(xscale="log", xlabel=length_name(environment), ylabel=_NAMES[metric])
    axes.set_title(f"{_NAMES[metric].capitalize()} on held-out seeds, in rollouts")
    axes.legend(loc="lower left", bbox_to_anchor=(1, 0), frameon=False)
    save(figure, path)


def plot_learning(folders: Sequence[Path], path: Path) -> None:
    """Loss and accuracy at episode ends against optimiser steps, a line per run.

    Raises:
        ConfigError: If a folder holds no run, or the figure cannot be written.
    """
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for folder, colour in zip(folders, COLOURS * len(folders), strict=False):
        rows = read_table(folder / "metrics.csv")
        for axes, name in zip(panels, ("loss", "decisive_accuracy"), strict=True):
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            steps, values = [step for step, _ in points], [value for _, value in points]
            axes.plot(steps, values, color=colour, label=folder.name)
            axes.set(xlabel="optimiser step", ylabel=name.replace("_", " "))
    panels[0].set_yscale("log")
    panels[1].legend(frameon=False)
    save(figure, path)


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, whole or not at all, and let go of it.

    Raises:
        ConfigError: If it cannot be written.
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(draft, dpi=150, format="png")
        draft.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        draft.unlink(missing_ok=True)
        pyplot().close(figure)


def _check_metrics(metrics: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Refuse columns that no row has.

    Raises:
        ConfigError: If there is one; names those that there are.
    """
    known = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in _LABELS]
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"--metrics has {metric}; the tables have: {', '.join(known)}.")


def pyplot() -> Any:
    """Matplotlib, set up to draw into files."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    import matplotlib.pyplot as plt

    return plt


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = make_parser(__doc__)
    parser.add_argument("sources", type=Path, nargs="+", help="tables of scores, or runs")
    parser.add_argument("-o", "--output", type=Path, help="the PNG to write")
    parser.add_argument("--markdown", action="store_true", help="print a table instead")
    parser.add_argument(
        "--metrics", nargs="+", default=[], help="columns of the table (default: success or return)"
    )
    parser.add_argument(
        "--trained-length",
        type=count,
        default=90,
        help="longest episode of the training data, a dotted line (default: 90)",
    )
    options = parser.parse_args(arguments)
    with user_errors():
        if all(source.is_dir() for source in options.sources):
            if options.markdown:
                raise ConfigError("--markdown is for tables of scores, not for runs.")
            output = options.output or Path("learning.png")
            check_picture(output, ".png")
            plot_learning(options.sources, output)
        else:
            rows = [row for source in options.sources for row in read_scores(source)]
            if options.markdown:
                _check_metrics(options.metrics, rows)
                print(markdown(rows, options.metrics))
                return
            output = options.output or options.sources[0].with_suffix(".png")
            check_picture(output, ".png")
            plot_scores(rows, output, options.trained_length)
        print(output)


if __name__ == "__main__":
    main()
