"""Draw scores against episode length, or learning curves.

rate plot data/results/tmaze.csv                 # -> data/results/tmaze.png
rate plot data/results/tmaze.csv --markdown      # the README's table
rate plot data/results/tmaze.csv --statistic iqm # interquartile means and their intervals
rate plot data/results/bits.csv --against bits   # models named MODEL-N against N
rate plot runs/tmaze-rate-1 runs/tmaze-dt-1      # -> learning.png
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from trainers.cli import parse
from trainers.commands.console import count, make_parser, user_errors
from trainers.commands.figures import pyplot, save
from trainers.commands.intervals import SUMMARIES, interquartile_interval, interquartile_mean
from trainers.commands.outputs import check_picture
from trainers.commands.plot_learning import plot_learning
from trainers.commands.scores import (
    by_environment,
    by_length,
    by_value,
    main_metric,
    markdown,
    read_scores,
)
from trainers.commands.styles import Style, styles
from trainers.preset_files import has_own_presets
from trainers.registry import length_name

_MIDDLES: dict[str, Callable[[Sequence[float]], float]] = {
    "mean": statistics.mean,
    "iqm": lambda values: float(interquartile_mean(values)),
}
_TWO_WAYS = (None, "tmaze", "minigrid", "passive_tmaze", "active_tmaze")  # one of two is right
_NAMES = {"success": "success rate", "return": "return"}
_ANYTHING = ("--data.random_policy=true",)  # accepted where an environment has no expert
_OTHERS = "changed environments"
_LIKE, _APART = 0.02, 2.0  # distance of similar values, share of the range; shift in points
_LABELS = ("environment", "model", "which", "seed", "length", "episodes", "step")


def plot_scores(
    rows: Sequence[dict[str, Any]],
    path: Path,
    trained_length: int | None = None,
    statistic: str = "mean",
    against: str | None = None,
) -> None:
    """Plot success (or return) of the last weights against length, a panel per environment.

    Environments of a single length share a panel, side by side. A line is a model, and a dot a
    seed.

    Lines of similar values are shifted by a few points, so that none hides another.

    Args:
        rows: Scores, as `read_scores` returns them.
        path: The PNG to write.
        trained_length: The greatest length in training, drawn as a dotted line; None is that of
            the rows, or of the preset of their environment.
        statistic: Of the seeds: `mean`, or `iqm` with its 95 % interval as a band.
        against: The label of the axis if the rows are those of `by_value`; None for lengths.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    parts, places = (by_environment(rows), []) if against else _panels(rows)
    size = (7 + 4.5 * (len(parts) - 1), 4)
    figure, panels = pyplot().subplots(
        1, len(parts), figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    looks = styles(str(row["model"]) for row in rows)
    for axes, (environment, part) in zip(panels[0], parts.items(), strict=True):
        _draw_scores(axes, part, looks, statistic)
        axes.set_title(environment if len(parts) > 1 else "")
        if environment == _OTHERS:
            axes.set(xticks=range(len(places)), xlim=(-0.5, len(places) - 0.5))
            axes.set_xticklabels(places)
            continue
        if against:
            axes.set(xlabel=against)
            continue
        for length in [trained_length] if trained_length else trained_lengths(part):
            axes.axvline(length, color="black", linestyle=":", linewidth=1)
            place = ("data", "axes fraction")
            axes.annotate("in training", (length, 0.04), xycoords=place, rotation=90, fontsize=8)
        axes.set(xscale="log", xlabel=length_name(environment.split(" ")[0]))
    metric = main_metric(rows)
    panels[0, 0].set(ylabel=_NAMES[metric])
    title = f"{_NAMES[metric].capitalize()} on held-out seeds, in rollouts"
    figure.suptitle(title, fontsize="large")
    lines = {
        line.get_label(): line for axes in panels[0] for line in axes.get_legend_handles_labels()[0]
    }
    panels[0, -1].legend(
        lines.values(), lines.keys(), loc="lower left", bbox_to_anchor=(1, 0), frameon=False
    )
    save(figure, path)


def _panels(
    rows: Sequence[dict[str, Any]],
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Returns the rows of each panel by its title, and the environments of the panel `_OTHERS`.

    The rows of that panel have the place of their environment for a length.
    """
    parts = by_environment(rows)
    single = [name for name, part in parts.items() if len({row["length"] for row in part}) == 1]
    if len(single) < 2 or len(single) == len(parts):
        return parts, []
    panels = {name: part for name, part in parts.items() if name not in single}
    panels[_OTHERS] = [
        {**row, "length": place} for place, name in enumerate(single) for row in parts[name]
    ]
    return panels, [name.partition(" ")[2] or name for name in single]


def _draw_scores(
    axes: Any, rows: Sequence[dict[str, Any]], looks: dict[str, Style], statistic: str
) -> None:
    """Draw the scores of one environment: a line per model, and the seeds as dots."""
    metric, middle = main_metric(rows), _MIDDLES[statistic]
    scores = {model: by_length(rows, metric, model) for model in looks}
    means = {
        model: {length: middle(found[length]) for length in sorted(found)}
        for model, found in scores.items()
        if found
    }
    shifts = _shifts(means)
    for model, found in means.items():
        style = looks[model]
        where = axes.transData + _points(axes.figure, shifts.get(model, 0.0))
        look = {"color": style.colour, "transform": where}
        line = {"linestyle": style.dash, "marker": style.marker, "markersize": 4.5}
        axes.plot(list(found), list(found.values()), linewidth=1.6, label=model, **line, **look)
        if statistic == "iqm":
            bands = [interquartile_interval(scores[model][length]) for length in found]
            lower, upper = zip(*bands, strict=True)
            axes.fill_between(list(found), lower, upper, color=style.colour, alpha=0.12, lw=0)
        for length, seeds in scores[model].items():
            axes.plot([length] * len(seeds), seeds, linestyle="", marker=".", alpha=0.3, **look)
    axes.update_datalim([(x, y) for found in means.values() for x, y in found.items()])
    axes.autoscale_view()
    if shifts:
        note = f"lines of like values are moved apart, by at most {max(shifts.values()):.0f} points"
        axes.annotate(note, (0.99, 0.01), xycoords="axes fraction", fontsize=6, ha="right")
    if metric == "success":
        axes.set(ylim=(-0.06, 1.08))
    if metric == "success" and rows[0].get("environment") in _TWO_WAYS:
        axes.axhline(0.5, color="black", linewidth=0.5)
        place = ("axes fraction", "data")
        axes.annotate("guessing", (1, 0.505), xycoords=place, fontsize=8, ha="right")


def trained_lengths(rows: Sequence[dict[str, Any]]) -> list[int]:
    """Returns the distinct `trained_length`s of rows, up to the longest length in them.

    If no row has one, as in tables of earlier versions, the length of the environment's preset is
    used, if it has presets.
    """
    trained = {row["trained_length"] for row in rows if row.get("trained_length")}
    if not trained:
        environment = str(rows[0].get("environment") or "tmaze")
        if not has_own_presets(environment):
            return []
        trained = {parse(environment, ["--model_mode=rate", *_ANYTHING]).config.max_length}
    longest = max(row["length"] for row in rows)
    return sorted(int(length) for length in trained if length <= longest)


def _shifts(means: dict[str, dict[int, float]]) -> dict[str, float]:
    """Returns the shifts in points, by model, of lines with similar values at a common length."""
    all_values = [value for line in means.values() for value in line.values()]
    like = _LIKE * (max(all_values) - min(all_values)) if all_values else 0.0
    hidden = [
        model
        for model, line in means.items()
        if any(
            abs(line[length] - other[length]) <= like
            for name, other in means.items()
            if name != model
            for length in line.keys() & other.keys()
        )
    ]
    return {model: ((len(hidden) - 1) / 2 - index) * _APART for index, model in enumerate(hidden)}


def _points(figure: Any, shift: float) -> Any:
    """Returns the transform that shifts a line up by `shift` points and right by 0.7 of that."""
    from matplotlib.transforms import ScaledTranslation

    return ScaledTranslation(0.7 * shift / 72, shift / 72, figure.dpi_scale_trans)


def _check_metrics(metrics: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """Check that the tables have the columns of `--metrics`.

    Raises:
        ConfigError: If a column is missing; the message lists the known ones.
    """
    known = [name for name in dict.fromkeys(n for row in rows for n in row) if name not in _LABELS]
    for metric in metrics:
        if metric not in known:
            raise ConfigError(f"--metrics has {metric}; the tables have: {', '.join(known)}.")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("plot", __doc__)
    parser.add_argument("sources", type=Path, nargs="+", help="tables of scores, or runs")
    parser.add_argument("-o", "--output", type=Path, help="the PNG to write")
    parser.add_argument("--markdown", action="store_true", help="print a table instead")
    parser.add_argument(
        "--metrics", nargs="+", default=[], help="columns of the table (default: success or return)"
    )
    parser.add_argument(
        "--statistic", choices=SUMMARIES, default="mean",
        help="of the seeds: mean (in tables with the standard deviation), or iqm, the interquartile"
        " mean, with its 95%% bootstrap interval (default: mean)",
    )  # fmt: skip
    parser.add_argument(
        "--against", metavar="NAME",
        help="draw the models named MODEL-N against N, the number of NAME (as a study names the"
        " runs of `vary`)",
    )  # fmt: skip
    parser.add_argument(
        "--trained-length",
        type=count,
        help="longest episode of the training data, a dotted line (default: as in the runs)",
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
                print(markdown(rows, options.metrics, SUMMARIES[options.statistic]))
                return
            output = options.output or options.sources[0].with_suffix(".png")
            check_picture(output, ".png")
            rows = by_value(rows) if options.against else rows
            plot_scores(rows, output, options.trained_length, options.statistic, options.against)
        print(output)


if __name__ == "__main__":
    main()
