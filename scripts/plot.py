"""Draw success against episode length, or learning curves.

python scripts/plot.py data/results/tmaze.csv                 # -> data/results/tmaze.png
python scripts/plot.py data/results/tmaze.csv --markdown      # the README's table
python scripts/plot.py runs/tmaze-rate-1 runs/tmaze-dt-1      # -> learning.png
"""

from __future__ import annotations

import argparse
import csv
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from scripts.console import user_errors

# Okabe and Ito's colours, told apart by all eyes.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")


def plot_success(rows: Sequence[dict[str, Any]], path: Path, trained_length: int = 90) -> None:
    """Success of the last weights against episode length: a line per model, its seeds as dots.

    Args:
        rows: Scores as `scripts/study.py` writes them.
        path: The PNG to write.
        trained_length: Longest episode seen in training, drawn as a dotted line.
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def success_by_length(
    rows: Sequence[dict[str, Any]], model: str, which: str = "last"
) -> dict[int, list[float]]:
    """The seeds' success rates of a model at every length."""
    scores: dict[int, list[float]] = {}
    for row in rows:
        if row["model"] == model and row["which"] == which:
            scores.setdefault(int(row["length"]), []).append(float(row["success"]))
    return scores


def plot_learning(folders: Sequence[Path], path: Path) -> None:
    """Loss and accuracy at episode ends against optimiser steps, a line per run."""
    plt = pyplot()
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for folder, colour in zip(folders, COLOURS * len(folders), strict=False):
        rows = _read(folder / "metrics.csv")
        for axes, name in zip(panels, ("loss", "decisive_accuracy"), strict=True):
            points = [(int(row["step"]), float(row[name])) for row in rows if row.get(name)]
            steps, values = [step for step, _ in points], [value for _, value in points]
            axes.plot(steps, values, color=colour, label=folder.name)
            axes.set(xlabel="optimiser step", ylabel=name.replace("_", " "))
    panels[0].set_yscale("log")
    panels[1].legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The scores of the last weights as a Markdown table: mean and standard deviation."""
    lengths = sorted({int(row["length"]) for row in rows})
    lines = [
        "| model | seeds | " + " | ".join(f"{length:,}" for length in lengths) + " |",
        "|---|---|" + "---|" * len(lengths),
    ]
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        scores = success_by_length(rows, model)
        cells = [_mean_and_spread(scores.get(length, [])) for length in lengths]
        seeds = len({row["seed"] for row in rows if row["model"] == model})
        lines.append(f"| {model} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _mean_and_spread(values: list[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}"


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a table: {error}") from error


def pyplot() -> Any:
    """Matplotlib, set up to draw into files."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    import matplotlib.pyplot as plt

    return plt


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+", help="a table of scores, or runs")
    parser.add_argument("-o", "--output", type=Path, help="the PNG to write")
    parser.add_argument("--markdown", action="store_true", help="print the table instead")
    options = parser.parse_args(arguments)
    with user_errors():
        if all(source.is_dir() for source in options.sources):
            output = options.output or Path("learning.png")
            plot_learning(options.sources, output)
        else:
            rows = [row for source in options.sources for row in _read(source)]
            if not rows or not {"model", "seed", "length", "success", "which"} <= set(rows[0]):
                raise ConfigError(f"{options.sources[0]} is no table of scores of a study.")
            if options.markdown:
                print(markdown(rows))
                return
            output = options.output or options.sources[0].with_suffix(".png")
            plot_success(rows, output)
        print(output)


if __name__ == "__main__":
    main()
