"""Make the page and the figure of results from the tables in data/results.

    python scripts/results.py     # -> docs/results.md and docs/images/success_by_gap.png

Run it after a table has changed; a test compares the page with the tables. The table of memory by
backbone also stands in the README.
"""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from rate.files import write_atomic
from trainers.commands.cells import mean_and_spread
from trainers.commands.console import make_parser, user_errors
from trainers.commands.figures import pyplot, save
from trainers.commands.plot_lengths import trained_lengths
from trainers.commands.scores import by_length, main_metric, read_scores
from trainers.commands.tables import Table, as_markdown, length_tables
from trainers.environment import BASELINES
from trainers.registry import success_without_memory

ROOT = Path(__file__).resolve().parent.parent
RESULTS, PAGE = ROOT / "data" / "results", ROOT / "docs" / "results.md"
FIGURE = PAGE.parent / "images" / "success_by_gap.png"
TITLES = {
    "tmaze": "T-Maze",
    "tmaze_ablation": "T-Maze: one change to RATE's preset",
    "tmaze_million": "T-Maze: a million steps",
    "recipe": "T-Maze: the recipe and the architecture of the public code",
    "bits": "Bits",
    "endless_tmaze": "Endless T-Maze",
    "passive_tmaze": "Passive T-Maze",
    "active_tmaze": "Active T-Maze",
    "visual_match": "Visual Match",
    "arshot": "ARShot",
    "retrieval": "Associative Retrieval",
    "minigrid": "Minigrid-Memory",
    "vizdoom": "ViZDoom-Two-Colors",
    "vizdoom_2100": "ViZDoom-Two-Colors: 2,100 steps",
    "memory_maze": "Memory Maze",
    "popgym": "POPGym",
    "mujoco": "MuJoCo",
    "atari": "Atari Pong",
}
# No table of scores, or one whose runs each have a setting of their own (in `studies.md`).
_OTHERS = ("soak", "speed", "memory_length", "distributed_memory", "memory_size")
_CHANGED = ("tmaze_ablation", "tmaze_million")  # no backbone of its own


@dataclass(frozen=True)
class Question:
    """A column of `memory_map`.

    Attributes:
        title: Its head.
        table: The file in the folder of results that has its scores, without `.csv`.
        length: Of the episodes that are scored.
        environment: The scored environment, if it is not the table's own.
        suffix: Of the models' names in the table.
    """

    title: str
    table: str
    length: int
    environment: str = ""
    suffix: str = ""


# Episodes far longer than those of training, in which one bit, one bit that is rewritten, eight
# bits and what a picture shows have to be kept.
MAP = (
    Question("T-Maze at 9,600 (trained on 90)", "tmaze", 9600),
    Question("Endless T-Maze, corridors of 90 (9)", "endless_tmaze", 10, "endless_tmaze gap-90"),
    Question("8 bits at 400 (40)", "bits", 400, suffix="-8"),
    Question("8 bits at 4,000 (40)", "bits", 4000, suffix="-8"),
    Question("Minigrid, 501 cells (31)", "minigrid", 501),
)
_HEAD = """# Results

<!-- Made by scripts/results.py from data/results/*.csv; figure {digest}. Do not edit. -->

![Success in T-Maze against the gap, for every backbone](images/success_by_gap.png)

*T-Maze: a cue at the first step says which way to turn at the last one. All train on episodes of at
most 90 steps, with the same data, batch size, optimiser and number of updates. Means over training
seeds, whose number is in brackets.*

## Memory, backbone by backbone

Success rate far beyond the trained length, mean ± standard deviation over the training seeds, whose
number is in brackets. In Minigrid `rate_binary` alone was also asked for the object in training
(`loss.auxiliary_state_weight`); in Bits and the Endless T-Maze all were asked for what is hidden.

{map}

All tables have the last weights, on seeds that chose nothing. How each study is run, its ablations
and what they show: [the studies](studies.md).
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    make_parser("results", __doc__).parse_args(arguments)
    with user_errors():
        draw(gap_rows(RESULTS), FIGURE)
        write_atomic(PAGE, page(RESULTS))
        print(f"{PAGE.relative_to(ROOT)}, {FIGURE.relative_to(ROOT)}")


def page(folder: Path) -> str:
    """Returns the page of the tables in a folder.

    Raises:
        ConfigError: If a file is no table of scores.
    """
    memory = as_markdown([memory_map(folder)]).strip()
    parts = [_HEAD.format(digest=_digest(gap_rows(folder)), map=memory)]
    found = {path.stem: path for path in sorted(folder.glob("*.csv")) if path.stem not in _OTHERS}
    for name in [*(n for n in TITLES if n in found), *(n for n in found if n not in TITLES)]:
        rows = read_scores(found[name])
        tables = as_markdown(length_tables(rows, statistic="iqm"))
        parts.append(f"## {TITLES.get(name, name)}\n\n{tables}\n\n`data/results/{name}.csv`\n")
    return "\n".join(parts)


def memory_map(folder: Path) -> Table:
    """Returns success far beyond the trained length: a row per backbone, a column per question.

    It has the backbones that are scored on two questions or more.

    Raises:
        ConfigError: If a file is no table of scores.
    """
    found: list[dict[str, list[float]]] = []
    for question in MAP:
        path = folder / f"{question.table}.csv"
        scores: dict[str, list[float]] = {}
        for row in read_scores(path) if path.is_file() else ():
            model = str(row["model"]).removesuffix(question.suffix)
            asked = (row["length"], row["which"]) == (question.length, "last")
            there = row["environment"] == (question.environment or question.table)
            if (
                asked
                and there
                and model not in BASELINES
                and row["model"] == model + question.suffix
            ):
                scores.setdefault(model, []).append(float(row["success"]))
        found.append(scores)
    models = [model for model in dict.fromkeys(chain(*found)) if sum(model in s for s in found) > 1]

    def mean(model: str) -> float:
        return statistics.mean(
            statistics.mean(scores[model]) for scores in found if model in scores
        )

    rows = []
    for model in sorted(models, key=mean, reverse=True):
        values = [scores.get(model, []) for scores in found]
        cells = [f"{mean_and_spread(each)} ({len(each)})" if each else "–" for each in values]
        rows.append([model, *cells])
    return Table("", ["backbone", *(question.title for question in MAP)], rows, note="")


def gap_rows(folder: Path) -> list[dict[str, Any]]:
    """Returns the scores of all backbones in T-Maze: those of the tables `tmaze*.csv`."""
    paths = [path for path in sorted(folder.glob("tmaze*.csv")) if path.stem not in _CHANGED]
    rows = [row for path in paths for row in read_scores(path)]
    return [row for row in rows if row["model"] not in BASELINES and row["which"] == "last"]


def draw(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw success against length as a grid, a row per model, the longest memory on top.

    Args:
        rows: Of one environment.
        path: The PNG to write.

    Raises:
        ConfigError: If it cannot be written.
    """
    scores = {str(row["model"]): by_length(rows, main_metric(rows), row["model"]) for row in rows}
    counts = [length for found in scores.values() for length in found]
    lengths = sorted(n for n in set(counts) if 2 * counts.count(n) >= len(scores))
    means = {
        model: [statistics.mean(found[n]) if n in found else np.nan for n in lengths]
        for model, found in scores.items()
    }
    models = sorted(means, key=lambda model: (-np.nansum(means[model]), model))
    values = np.array([means[model] for model in models])
    size = (1.6 + 0.85 * len(lengths), 1.3 + 0.27 * len(models))
    figure, axes = pyplot().subplots(figsize=size, layout="constrained")
    guess = success_without_memory("tmaze") or 0.0
    axes.imshow(values, cmap="Blues", vmin=guess - 0.1, vmax=1.15, aspect="auto")
    for (y, x), value in np.ndenumerate(values):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        axes.text(x, y, text, ha="center", va="center", color="white" if value > 0.8 else "black")
    seeds = {model: max(map(len, scores[model].values())) for model in models}
    axes.set_yticks(range(len(models)), [f"{model} ({seeds[model]})" for model in models])
    axes.set_xticks(range(len(lengths)), [f"{length:,}" for length in lengths])
    for length in trained_lengths(rows):
        axes.axvline(sum(n <= length for n in lengths) - 0.5, color="black", linestyle=":")
    axes.set(xlabel="steps from the cue to the turn (dotted: longest in training)")
    axes.set_title(f"T-Maze, success rate; {guess:.2f} is a guess", fontsize="medium")
    axes.tick_params(length=0)
    save(figure, path)


def _digest(rows: Sequence[dict[str, Any]]) -> str:
    """Returns a digest of what the figure is drawn from."""
    drawn = sorted((row["model"], row["length"], row["seed"], row["success"]) for row in rows)
    return hashlib.sha256(repr(drawn).encode()).hexdigest()[:16]


if __name__ == "__main__":
    main()
