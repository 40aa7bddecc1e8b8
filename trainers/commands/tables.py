"""Tables of scores, as Markdown or LaTeX: by length, over tasks, and against one model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rate.errors import ConfigError
from trainers.commands.cells import SUMMARIES, shown, summary
from trainers.commands.scores import Task, by_environment, main_metric, scores_of, seed_scores
from trainers.environment import BASELINES
from trainers.statistics import (
    Estimate,
    Scores,
    iqm,
    mean,
    median,
    paired_difference,
    probability_of_improvement,
    welch,
)

_INTERVAL = "[]: 95 % percentile bootstrap interval, the seeds of each task resampled"
_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "–": "--",
}  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Above it; may be empty.
        header: The names of the columns, of which the first is that of the rows' names.
        rows: The cells.
        note: What the cells are, below it; the same for the tables of a command.
    """

    title: str
    header: list[str]
    rows: list[list[str]]
    note: str


def as_markdown(tables: Sequence[Table]) -> str:
    """Returns tables as Markdown, with their notes below the last one."""
    parts = []
    for table in tables:
        lines = [table.header, ["---"] * len(table.header), *table.rows]
        title = f"{table.title}:\n\n" if table.title and len(tables) > 1 else ""
        rules = ["| " + " | ".join(cells) + " |" for cells in lines]
        rules[1] = "|" + "---|" * len(table.header)
        parts.append(title + "\n".join(rules))
    return "\n\n".join([*parts, *dict.fromkeys(table.note for table in tables)])


def as_latex(tables: Sequence[Table]) -> str:
    """Returns tables as LaTeX for the package booktabs; the note and the title are the caption."""
    parts = []
    for table in tables:
        lines = [" & ".join(map(_latex, cells)) + r" \\" for cells in (table.header, *table.rows)]
        caption = ". ".join(filter(None, (table.title, table.note)))
        parts.append(
            "\n".join(
                [
                    r"\begin{table}",
                    r"\centering",
                    rf"\caption{{{_latex(caption)}}}",
                    rf"\begin{{tabular}}{{l{'r' * (len(table.header) - 1)}}}",
                    *(r"\toprule", lines[0], r"\midrule", *lines[1:], r"\bottomrule"),
                    r"\end{tabular}",
                    r"\end{table}",
                ]
            )
        )
    return "\n\n".join(parts)


def _latex(text: str) -> str:
    return "".join(_LATEX.get(sign, sign) for sign in text)


def length_tables(
    rows: Sequence[dict[str, Any]],
    metrics: Sequence[str] = (),
    statistic: str = "mean",
    which: str = "last",
) -> list[Table]:
    """Returns a table for each environment: a row per model, a column per metric and length.

    Args:
        rows: The scores.
        metrics: The metrics to show at each length; the main metric if empty.
        statistic: Of the seeds, of `SUMMARIES`.
        which: The weights, `last` or `best`.
    """
    metrics = metrics or [main_metric(rows)]
    note = f"{SUMMARIES[statistic][1]}. {provenance(rows, which)}"
    parts = by_environment(rows)
    return [
        Table(name, *_by_length(part, metrics, statistic, which), f"{', '.join(metrics)}: {note}")
        for name, part in parts.items()
    ]


def _by_length(
    rows: Sequence[dict[str, Any]], metrics: Sequence[str], statistic: str, which: str
) -> tuple[list[str], list[list[str]]]:
    """Returns header and cells of one environment; a cell of fewer seeds than its row says so."""
    cell_of = SUMMARIES[statistic][0]
    lengths = sorted({row["length"] for row in rows})
    names = [name if len(lengths) == 1 else f"{name} at {n:,}" for name in metrics for n in lengths]
    if len(metrics) == 1:
        names = [f"{length:,}" for length in lengths]
    lines = []
    for model in dict.fromkeys(str(row["model"]) for row in rows):
        found = [
            {length: models.get(model, {}) for (_, length), models in scores.items()}
            for scores in (seed_scores(rows, metric, which) for metric in metrics)
        ]
        cells = [list(column.get(n, {}).values()) for column in found for n in lengths]
        seeds = len({seed for column in found for each in column.values() for seed in each})
        if seeds:
            text = [
                cell_of(cell) + (f" (n = {len(cell)})" if 0 < len(cell) < seeds else "")
                for cell in cells
            ]
            lines.append([model, "–" if model in BASELINES else str(seeds), *text])
    return ["model", "seeds", *names], lines


def provenance(rows: Sequence[dict[str, Any]], which: str) -> str:
    """Returns which weights and episodes scores are of, and how many evaluations chose anything."""
    own = [row for row in rows if row["which"] == which and row["model"] not in BASELINES]
    episodes = _range({row["episodes"] for row in own if row.get("episodes")})
    played = f", {episodes} held-out episodes at each length" if episodes else ""
    if which == "last":
        return f"Weights: last{played}; no evaluation in the environment chose them."
    numbers = {row.get("online_evaluations") for row in own}
    known = _range({int(number) for number in numbers if number is not None})
    if known == "0" and None not in numbers:
        return (
            f"Weights: best{played}; chosen by held-out loss, by no evaluation in the environment."
        )
    by = "an unrecorded number of" if None in numbers or not known else known
    return f"Weights: best{played}; chosen by {by} evaluations in the environment."


def _range(numbers: set[int]) -> str:
    """Returns the least and the greatest number, `3 to 5`; empty without numbers."""
    ends = sorted(numbers)
    return "" if not ends else " to ".join(map(str, dict.fromkeys((ends[0], ends[-1]))))


def common_scores(rows: Sequence[dict[str, Any]], metric: str, which: str) -> dict[str, Scores]:
    """Returns the scores of each model on the tasks that all of them have.

    Raises:
        ConfigError: If there is no such task.
    """
    found = seed_scores(rows, metric, which)
    models = list(dict.fromkeys(model for seeds in found.values() for model in seeds))
    tasks = {task: seeds for task, seeds in found.items() if len(seeds) == len(models)}
    if not tasks:
        raise ConfigError(
            f"No task, an environment at one length, has {metric} of all models: "
            f"{', '.join(models) or 'there are none'}. Leave out tables or models."
        )
    return {model: scores_of({t: seeds[model] for t, seeds in tasks.items()}) for model in models}


def aggregate_table(rows: Sequence[dict[str, Any]], metric: str, which: str = "last") -> Table:
    """Returns the table of interquartile mean, median and mean over the tasks of all models.

    Raises:
        ConfigError: If no task is scored for all models.
    """
    lines = []
    for model, scores in common_scores(rows, metric, which).items():
        seeds = "–" if model in BASELINES else _range(scores.seeds)
        cells = (summary(scores, statistic) for statistic in (iqm, median, mean))
        lines.append([model, seeds, str(len(scores.tasks)), *cells])
    note = (
        f"{metric}: interquartile mean over all tasks and seeds; median and mean over tasks of the "
        f"mean over seeds. {_INTERVAL}. {provenance(rows, which)}"
    )
    return Table("", ["model", "seeds", "tasks", "IQM", "median", "mean"], lines, note)


Pair = tuple[dict[int, float], dict[int, float]]
"""The scores of a model and of the baseline on a task, by seed."""


def compared(
    rows: Sequence[dict[str, Any]], metric: str, baseline: str, which: str
) -> dict[str, dict[Task, Pair]]:
    """Returns the scores of each model and of the baseline, by model and task.

    Raises:
        ConfigError: If no task has both.
    """
    found: dict[str, dict[Task, Pair]] = {}
    for task, models in seed_scores(rows, metric, which).items():
        for model, seeds in models.items():
            if model != baseline and model not in BASELINES and baseline in models:
                found.setdefault(model, {})[task] = (seeds, models[baseline])
    if not found:
        known = ", ".join(dict.fromkeys(str(row["model"]) for row in rows))
        raise ConfigError(
            f"--relative-to {baseline}: no task has {metric} of it and of another model. The models"
            f" are: {known}."
        )
    return found


def difference(pairs: Mapping[Task, Pair]) -> tuple[Estimate, list[int]] | None:
    """Returns the difference over pairs of one seed and task, and their number by task, if any."""
    common = {task: a.keys() & b.keys() for task, (a, b) in pairs.items()}
    common = {task: seeds for task, seeds in common.items() if seeds}
    if not common:
        return None
    own, others = (
        scores_of(
            {task: {s: pairs[task][side][s] for s in seeds} for task, seeds in common.items()}
        )
        for side in (0, 1)
    )
    return paired_difference(own, others), [len(seeds) for seeds in common.values()]


def comparison_tables(
    rows: Sequence[dict[str, Any]], metric: str, baseline: str, which: str = "last"
) -> list[Table]:
    """Returns a table for each environment: every model against one, at each length and over all.

    Raises:
        ConfigError: If no task has scores of the baseline and of another model.
    """
    scores = compared(rows, metric, baseline, which)
    note = (
        f"{metric}. Difference: mean over the n pairs of one seed and task. P: the chance that a "
        f"seed of the model is above one of {baseline}, ties half. t, p: Welch test of all "
        f"seeds, two-sided (degrees of freedom), not corrected for the number of tests; – where no "
        f"seeds vary. {_INTERVAL}. {provenance(rows, which)}"
    )
    above = f"P(above {baseline})"
    header = ["model", "length", "seeds", "difference", "n", above, "t", "p"]
    places = list(dict.fromkeys(place for tasks in scores.values() for place, _ in tasks))
    tables = []
    for place in places:
        lines = []
        for model, tasks in scores.items():
            here = {task: pair for task, pair in tasks.items() if task[0] == place}
            lines += [_line(model, f"{task[1]:,}", {task: pair}) for task, pair in here.items()]
            lines += [_line(model, "all", here)] if len(here) > 1 else []
        tables.append(Table(place, header, lines, note))
    if len(places) > 1:
        lines = [_line(model, "all", tasks) for model, tasks in scores.items()]
        tables.append(Table("over all of them", header, lines, note))
    return tables


def _line(model: str, length: str, pairs: Mapping[Task, Pair]) -> list[str]:
    """Returns the row of a model, of one task or of several; Welch's test is of one."""
    first, second = (scores_of({t: pair[side] for t, pair in pairs.items()}) for side in (0, 1))
    most = max(first.seeds | second.seeds)
    found = difference(pairs)
    cells = (
        ["–", "0"] if found is None else [shown(found[0], max(found[1]), "+"), str(sum(found[1]))]
    )
    cells.append(shown(probability_of_improvement(first, second), most))
    test = welch(first.tasks[0], second.tasks[0]) if len(pairs) == 1 else None
    t = "–" if test is None else f"{test.t:.2f} ({test.freedom:.1f})"
    p = "–" if test is None else "< 0.001" if test.p < 0.001 else f"{test.p:.3f}"
    return [model, length, f"{_range(first.seeds)} and {_range(second.seeds)}", *cells, t, p]
