"""Draw success against episode length, or learning curves.

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
from scripts.console import count, make_parser, user_errors
from scripts.scores import markdown, read_scores, read_table, success_by_length

# Okabe and Ito's colours, told apart by all eyes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def plot_success(rows: Sequence[dict[str, Any]], path: Path, trained_length: int = 90) -> None:
    """Success of the last weights against episode length: a line per model, its seeds as dots.

    Args:
        rows: Scores as `read_scores` gives them.
        path: The PNG to write.
        trained_length: Longest episode seen in training, drawn as a dotted line.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    plt = pyplot()
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    models = list(dict.fromkeys(str(row["model"]) for row in rows))
    for model, colour in zip(models, COLOURS * len(models), strict=False):
        scores = success_by_length(rows, model)
        lengths = sorted(scores)
        means = [statistics.mean(scores[length]) for length in lengths]
        axes.plot(lengths, means, "-o", color=colour, label=model, markersize=4)
        for length in lengths:
            axes.plot([length] * len(scores[length]), scores[length], ".", color=colour, alpha=0.35)
    axes.axvline(trained_length, color="black", linestyle=":", linewidth=1)
    axes.annotate(
        "longest in training", (trained_length, 0.04), rotation=90, fontsize=8, ha="right"
    )
    axes.axhline(0.5, color="black", linewidth=0.5)
    place = ("axes fraction", "data")
    axes.annotate("guessing", (1, 0.505), xycoords=place, fontsize=8, ha="right")
    axes.set(xscale="log", ylim=(0, 1.05), xlabel="episode length (steps)", ylabel="success rate")
    axes.set_title("Success on held-out seeds, in rollouts")
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
    """Write a figure as a PNG and let go of it.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150, format="png")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror}.") from error
    finally:
        pyplot().close(figure)


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
            plot_learning(options.sources, output)
        else:
            rows = [row for source in options.sources for row in read_scores(source)]
            if options.markdown:
                print(markdown(rows))
                return
            output = options.output or options.sources[0].with_suffix(".png")
            plot_success(rows, output, options.trained_length)
        print(output)


if __name__ == "__main__":
    main()
