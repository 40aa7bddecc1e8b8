"""Tables of scores: cells, notes, aggregates, comparisons, and the published ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.commands.test_plot import ROWS, row
from trainers.commands.cells import mean_and_spread
from trainers.commands.plot import main
from trainers.commands.scores import add_scores, by_task_name, main_metric, read_scores
from trainers.commands.tables import (
    aggregate_table,
    as_latex,
    as_markdown,
    comparison_tables,
    length_tables,
    provenance,
)

RESULTS = Path(__file__).resolve().parents[3] / "data" / "results"
LAST = "Weights: last, 100 held-out episodes at each length; no evaluation in the environment"


def markdown(rows: list[dict[str, Any]]) -> str:
    return as_markdown(length_tables(rows))


def seeds(model: str, values: list[float], length: int = 9, **others: Any) -> list[dict[str, Any]]:
    return [row(model, seed, length, value, **others) for seed, value in enumerate(values, start=1)]


def test_rows_are_compared_by_success_or_else_by_return() -> None:
    without = [row("x", 1, 9, None, **{"return": 3.5})]
    assert main_metric(ROWS) == "success"
    assert main_metric(without) == "return"
    assert "| x | 1 | 3.50 |" in markdown(without)


def test_one_seed_has_no_spread() -> None:
    assert mean_and_spread([0.98, 1.0]) == "0.99 ± 0.01"
    assert mean_and_spread([0.5]) == "0.50"
    assert mean_and_spread([]) == "–"


def test_the_spread_is_the_sample_standard_deviation() -> None:
    """Seeds are a sample: the sum of squares is divided by their number minus one."""
    assert mean_and_spread([1.0, 2.0, 6.0]) == "3.00 ± 2.65"  # of a population: 2.16
    assert mean_and_spread([0.0, 1.0]) == "0.50 ± 0.71"  # of a population: 0.50
    assert "| x | 3 | 3.00 ± 2.65 |" in markdown(seeds("x", [1.0, 2.0, 6.0]))


def test_the_published_tables_are_what_the_command_prints() -> None:
    """To the digit: another spread, other weights or another table would change a cell."""
    readme = (RESULTS / "README.md").read_text(encoding="utf-8")

    def printed(name: str) -> list[list[str]]:
        (table,) = length_tables(read_scores(RESULTS / f"{name}.csv"))
        return table.rows

    for cells in printed("tmaze"):
        assert f"| {' | '.join(cells)} |" in readme
    named = [(*model.split("-"), *cells) for model, *cells in printed("bits")]
    for cells in (each for each in named if each[1].isdecimal() and each[2].isdecimal()):
        assert f"| {' | '.join(cells)} |" in readme
    for model, _, cell in printed("popgym"):
        minus = cell.replace("-", "−")
        assert f"| {model.removesuffix('-rate')} | {minus} |" in readme


def test_markdown_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "study.csv"
    add_scores(path, [*ROWS, row("rate", 3, 90, 0.4), row("expert", 0, 90, 1.0)])
    main([str(path), "--markdown"])
    assert capsys.readouterr().out == (
        "| model | seeds | 90 | 9,600 |\n"
        "|---|---|---|---|\n"
        "| rate | 3 | 0.80 ± 0.35 | 0.99 ± 0.01 (n = 2) |\n"
        "| a, b | 1 | 0.50 | – |\n"
        "| expert | – | 1.00 | – |\n"
        "\n"
        "success: mean ± sample standard deviation over training seeds. "
        f"{LAST} chose them.\n"
    )
    main([str(path), "--markdown", "--statistic", "iqm"])
    assert "| rate | 3 | 0.80 [0.40, 1.00] | 0.99 [0.98, 1.00] (n = 2) |" in capsys.readouterr().out


def test_a_table_may_have_columns_of_several_metrics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., str]
) -> None:
    path = tmp_path / "scores.csv"
    groups = {"success_ball": 0.5, "success_key": 1.0}
    rows = [row("rate", 1, 9, 0.75, **groups), row("rate", 1, 1100, 0.5, success_ball=0.25)]
    add_scores(path, [*rows, row("random", 0, 9, 0.25)])
    metrics = ["success", "success_ball", "success_key"]
    main([str(path), "--markdown", "--metrics", *metrics])
    names = [f"{name} at {length}" for name in metrics for length in ("9", "1,100")]
    assert capsys.readouterr().out.splitlines()[:4] == [
        f"| model | seeds | {' | '.join(names)} |",
        "|---|---|---|---|---|---|---|---|",
        "| rate | 1 | 0.75 | 0.50 | 0.50 | 0.25 | 1.00 | – |",
        "| random | – | 0.25 | – | – | – | – | – |",
    ]
    path.unlink()
    add_scores(path, [rows[0]])
    main([str(path), "--markdown", "--metrics", *metrics])  # a single length is not shown
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| model | seeds | success | success_ball | success_key |"
    assert lines[2] == "| rate | 1 | 0.75 | 0.50 | 1.00 |"
    error = error_of(main, [str(path), "--markdown", "--metrics", "success", "succes_key"])
    assert "--metrics has succes_key; the tables have: success, sem," in error
    error = error_of(main, [str(path), "--aggregate", "--metrics", "success", "return"])
    assert "--metrics names 2 columns" in error
    for figure in (["--profile"], ["--ranks"], ["--against", "bits"]):
        error = error_of(main, [str(path), "--latex", *figure])
        assert f"{figure[0]} is a figure; there is no table of it" in error


def test_environments_have_a_table_each() -> None:
    near, far = row("a", 1, 10, 1.0), row("a", 1, 10, 0.25, environment="tmaze far")
    tables = markdown([near, far])
    assert tables.startswith("tmaze:\n\n| model |")
    assert "tmaze far:\n\n| model | seeds | 10 |\n|---|---|---|\n| a | 1 | 0.25 |\n\n" in tables


def test_the_best_weights_say_how_many_evaluations_chose_them() -> None:
    best = [row("x", 1, 9, 0.25, which="best", online_evaluations=4)]
    rows = [*best, row("x", 1, 9, 0.75), row("expert", 0, 9, 1.0)]
    table = as_markdown(length_tables(rows, which="best"))
    assert "| x | 1 | 0.25 |\n| expert | – | 1.00 |" in table
    assert "Weights: best, 100 held-out episodes" in table
    assert table.endswith("chosen by 4 evaluations in the environment.")
    more = [*best, row("x", 2, 9, 0.5, which="best", online_evaluations=7)]
    assert "chosen by 4 to 7 evaluations" in provenance(more, "best")
    unknown = [*best, row("x", 3, 9, 0.5, which="best")]
    assert "chosen by an unrecorded number of evaluations" in provenance(unknown, "best")
    held_out = [row("x", 1, 9, 0.5, which="best", online_evaluations=0)]
    assert "by held-out loss, by no evaluation" in provenance(held_out, "best")


def test_several_rows_of_a_seed_are_one_seed() -> None:
    """Episodes are added by `evaluate --seed`: 50 of 0.4 and 100 of 1.0 are 150 of 0.8."""
    first = row("x", 1, 9, 0.4, first_seed=0, episodes=50)
    rows = [first, row("x", 1, 9, 1.0, first_seed=50), row("x", 2, 9, 0.8)]
    assert "| x | 2 | 0.80 ± 0.00 |" in markdown(rows)


def test_latex_escapes_names_and_shows_the_note() -> None:
    rows = seeds("rate_bistable-8", [0.5, 0.7]) + seeds("a & b", [1.0], length=90)
    lines = as_latex(length_tables(rows)).splitlines()
    assert lines[:2] == [r"\begin{table}", r"\centering"]
    assert lines[2].startswith(r"\caption{tmaze. success: mean $\pm$ sample standard deviation")
    assert lines[3:] == [
        r"\begin{tabular}{lrrr}",
        r"\toprule",
        r"model & seeds & 9 & 90 \\",
        r"\midrule",
        r"rate\_bistable-8 & 2 & 0.60 $\pm$ 0.14 & -- \\",
        r"a \& b & 1 & -- & 1.00 \\",
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]


def test_aggregates_are_over_the_tasks_that_all_models_have(
    error_of: Callable[..., str], tmp_path: Path
) -> None:
    rows = [
        *(each for length in (9, 90) for each in seeds("rate", [0.5, 1.0], length)),
        *(each for length in (9, 90, 900) for each in seeds("dt", [0.25, 0.25], length)),
        row("expert", 0, 9, 1.0),
        row("expert", 0, 90, 1.0),
    ]
    table = aggregate_table(rows, "success")
    assert table.header == ["model", "seeds", "tasks", "IQM", "median", "mean"]
    assert table.rows == [
        ["rate", "2", "2", *["0.75 [0.50, 1.00]"] * 3],  # a run's lengths are resampled together
        ["dt", "2", "2", *["0.25 [0.25, 0.25]"] * 3],
        ["expert", "–", "2", "1.00", "1.00", "1.00"],
    ]
    assert LAST in table.note
    add_scores(tmp_path / "scores.csv", [row("a", 1, 9, 1.0), row("b", 1, 90, 1.0)])
    error = error_of(main, [str(tmp_path / "scores.csv"), "--aggregate"])
    assert "No task, an environment at one length, has success of all models: a, b." in error


def test_models_are_compared_with_one(error_of: Callable[..., str], tmp_path: Path) -> None:
    rows = [
        *seeds("lstm", [1.0, 2.0, 3.0]),
        *seeds("rate", [2.0, 4.0, 6.0]),
        *seeds("lstm", [0.0, 0.0, 0.0], 90),
        *seeds("rate", [0.0, 1.0], 90),
        row("random", 0, 9, 0.5),
    ]
    (table,) = comparison_tables(rows, "success", "lstm")
    assert table.header[5] == "P(above lstm)"
    at_9, at_90, over_both = table.rows
    # Differences 1, 2 and 3; of nine pairs 7 above and one equal; see tests of the Welch test.
    assert at_9[:5] == ["rate", "9", "3 and 3", "+2.00 [+1.00, +3.00]", "3"]
    assert at_9[5].startswith("0.83 [")
    assert at_9[6:] == ["1.55 (2.9)", "0.221"]
    assert at_90[:5] == ["rate", "90", "2 and 3", "+0.50 [+0.00, +1.00]", "2"]
    # (2 + 0.5) / 2. Of the resamples (1 + 0) / 2 has 1 %, the next, (4/3 + 0) / 2, 3 %.
    assert over_both[1:5:2] == ["all", "+1.25 [+0.67, +1.83]"]
    assert over_both[4:] == ["5", over_both[5], "–", "–"]
    add_scores(tmp_path / "scores.csv", rows)
    error = error_of(main, [str(tmp_path / "scores.csv"), "--relative-to", "gru"])
    assert "--relative-to gru: no task has success of it and of another model." in error
    assert "The models are: lstm, rate, random." in error


def test_a_single_pair_has_no_interval_and_no_test() -> None:
    rows = [*seeds("lstm", [1.0]), *seeds("rate", [0.5, 0.25])]
    (table,) = comparison_tables(rows, "success", "lstm")
    assert table.rows == [
        ["rate", "9", "2 and 1", "-0.50", "1", "0.00 [0.00, 0.00]", "–", "–"],
    ]


def test_tasks_in_the_names_of_models_are_scored_apart(tmp_path: Path) -> None:
    """They are other runs: their seeds are resampled by themselves."""
    rows = [
        row(f"{task}-{model}", seed, 9, value, environment="popgym")
        for task, model, seed, value in [
            ("Easy", "rate", 1, 0.0), ("Easy", "rate", 2, 1.0),
            ("Hard", "rate", 1, 1.0), ("Hard", "rate", 2, 0.0),
            ("Easy", "dt", 1, 0.5), ("Hard", "dt", 1, 0.5),
        ]
    ]  # fmt: skip
    found = by_task_name(rows)
    assert [(each["environment"], each["model"]) for each in found[1:3]] == [
        ("popgym/Easy", "rate"),
        ("popgym/Hard", "rate"),
    ]
    assert aggregate_table(found, "success").rows[0][-1] == "0.50 [0.00, 1.00]"
    tables = comparison_tables(found, "success", "dt")
    assert [table.title for table in tables] == ["popgym/Easy", "popgym/Hard", "over all of them"]
    again = [{**each, "environment": "popgym again", "model": "Easy-rate"} for each in rows[2:4]]
    same_runs = [*rows[:2], *again]  # in a changed environment
    assert aggregate_table(same_runs, "success").rows[0][-1] == "0.50 [0.50, 0.50]"
