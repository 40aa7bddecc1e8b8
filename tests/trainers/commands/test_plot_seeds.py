"""Figures over seeds and tasks: what is drawn, and where it is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.trainers.commands.test_plot import PNG, row
from trainers.commands import plot_learning, plot_lengths, plot_seeds
from trainers.commands.plot import main
from trainers.commands.scores import add_scores


def seeds(model: str, values: list[float], length: int = 9, **others: Any) -> list[dict[str, Any]]:
    return [row(model, seed, length, value, **others) for seed, value in enumerate(values, start=1)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    rate, best = seeds("rate", [0.25, 1.0, 0.5]), seeds("rate", [1.0, 1.0, 1.0], which="best")
    both = [*rate, *best, *seeds("rate", [1.0, 1.0, 1.0], 90)]
    add_scores(path, [*both, *seeds("dt", [0.5, 0.5, 0.25]), *seeds("dt", [0.0] * 3, 90)])
    return path


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The axes of the figure that was written last, by title, while it is still open."""
    found: dict[str, Any] = {}

    def keep(module: Any) -> None:
        write = module.save

        def save(figure: Any, path: Path) -> None:
            found.clear()
            found.update({axes.get_title() or axes.get_ylabel(): axes for axes in figure.axes})
            write(figure, path)

        monkeypatch.setattr(module, "save", save)

    for module in (plot_seeds, plot_lengths, plot_learning):
        keep(module)
    return found


def lines(axes: Any) -> dict[str, list[float]]:
    """The values of the labelled lines of axes."""
    return {
        line.get_label(): list(line.get_ydata())
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def test_profiles_are_shares_of_seeds_and_tasks(table: Path, drawn: dict[str, Any]) -> None:
    main([str(table), "--profile"])
    assert (table.parent / "scores_profile.png").read_bytes().startswith(PNG)
    (axes,) = drawn.values()
    assert axes.get_ylabel() == "share of seeds above τ, 2 tasks"
    shares = lines(axes)
    assert set(shares) == {"rate (3 seeds)", "dt (3 seeds)"}
    for name, share in shares.items():
        assert len(share) == 101, name
    assert shares["rate (3 seeds)"][0] == 1.0  # above 0
    assert shares["dt (3 seeds)"][0] == 0.5
    assert shares["rate (3 seeds)"][50] == pytest.approx(4 / 6)  # above 0.5: two of three are not
    assert shares["rate (3 seeds)"][-1] == 0.0


def test_ranks_are_the_seeds_from_the_best_to_the_worst(table: Path, drawn: dict[str, Any]) -> None:
    add_scores(table, [row("expert", 0, 9, 0.75)])
    main([str(table), "--ranks"])
    assert (table.parent / "scores_ranks.png").read_bytes().startswith(PNG)
    assert lines(drawn["tmaze 9"]) == {
        "expert": [0.75, 0.75],
        "rate": [1.0, 0.5, 0.25],
        "dt": [0.5, 0.5, 0.25],
    }
    assert lines(drawn["tmaze 90"])["dt"] == [0.0, 0.0, 0.0]
    main([str(table), "--ranks", "--weights", "best"])
    assert lines(drawn["tmaze 9"]) == {"expert": [0.75, 0.75], "rate": [1.0, 1.0, 1.0]}


def test_aggregates_are_drawn_with_their_intervals(table: Path, drawn: dict[str, Any]) -> None:
    main([str(table), "--aggregate"])
    assert (table.parent / "scores_aggregate.png").read_bytes().startswith(PNG)
    interval, value = drawn["mean"].lines[:2]  # of rate: the mean of 1.75 / 3 and 1
    assert value.get_xdata()[0] == pytest.approx((1.75 / 3 + 1) / 2)
    assert interval.get_xdata()[0] < value.get_xdata()[0] < interval.get_xdata()[1]
    assert [text.get_text() for text in drawn["IQM"].get_yticklabels()] == ["rate", "dt"]


def test_bars_are_the_differences_from_one_model(table: Path, drawn: dict[str, Any]) -> None:
    main([str(table), "--relative-to", "dt"])
    assert (table.parent / "scores_relative.png").read_bytes().startswith(PNG)
    (axes,) = drawn.values()
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([0.5 / 3, 1.0])
    assert axes.get_ylabel() == "success rate, less that of dt"
    low, high = axes.lines[0].get_ydata()
    assert (low, high) == pytest.approx((-0.25, 0.5))  # of the pairs -0.25, 0.5 and 0.25


def test_bars_of_one_colour_differ_in_their_hatches(table: Path, drawn: dict[str, Any]) -> None:
    add_scores(table, [*seeds("rate-wide", [1.0]), *seeds("rate-deep", [1.0])])
    main([str(table), "--relative-to", "dt"])
    (axes,) = drawn.values()
    hatches = {tuple(bar.get_facecolor()): set() for bar in axes.patches}  # by colour
    for bar in axes.patches:
        hatches[tuple(bar.get_facecolor())].add(bar.get_hatch())
    assert [len(found) for found in hatches.values()] == [3]


def test_what_has_no_memory_is_a_line_where_it_is_known(
    tmp_path: Path, drawn: dict[str, Any]
) -> None:
    for environment, known in (("visual_match", 1 / 3), ("tmaze", 0.5), ("key_to_door", None)):
        path = tmp_path / f"{environment}.csv"
        rows = [row("rate", 1, length, 1.0, environment=environment) for length in (9, 90)]
        add_scores(path, rows)
        main([str(path), "--trained-length", "9"])
        (axes,) = drawn.values()
        assert [text.get_text() for text in axes.texts if "memory" in text.get_text()] == (
            [] if known is None else ["best without memory"]
        )
        assert known is None or any(set(line.get_ydata()) == {known} for line in axes.lines)


def test_a_figure_may_show_another_column_or_the_best_weights(
    table: Path, drawn: dict[str, Any]
) -> None:
    main([str(table), "--metrics", "sem"])
    (axes,) = drawn.values()
    assert (axes.get_ylabel(), lines(axes)["rate"]) == ("sem", [0.01, 0.01])
    main([str(table), "--weights", "best"])
    (axes,) = drawn.values()
    assert lines(axes) == {"rate": [1.0]}


def write_run(folder: Path, text: str) -> None:
    folder.mkdir()
    (folder / "metrics.csv").write_text(text, encoding="utf-8")


def test_learning_curves_of_seeds_have_a_band(
    tmp_path: Path, drawn: dict[str, Any], error_of: Callable[..., str]
) -> None:
    """Between logged steps a curve is a straight line; a band is over the steps of all seeds."""
    header = "step,loss,online/steps,online/return\n"
    write_run(tmp_path / "maze-lstm-1", f"{header}1,4.0,100,0\n2,2.0,200,1\n3,1.0,300,1\n")
    write_run(tmp_path / "maze-lstm-2", f"{header}1,2.0,150,0\n3,1.0,250,0.5\n")
    write_run(tmp_path / "maze-gru-1", f"{header}1,3.0,100,0\n")
    output = tmp_path / "learning.png"
    runs = sorted(str(path) for path in tmp_path.iterdir())
    given = [*runs, "-o", str(output), "--statistic", "mean"]
    main([*given, "--metrics", "loss", "online/return"])
    assert output.read_bytes().startswith(PNG)
    loss, returns = drawn["loss"], drawn["online/return"]
    assert lines(loss) == {"maze-gru (1)": [3.0], "maze-lstm (2)": [3.0, 1.75, 1.0]}
    assert (loss.get_xlabel(), returns.get_xlabel()) == ("optimiser step", "environment step")
    line = next(line for line in returns.lines if line.get_label() == "maze-lstm (2)")
    np.testing.assert_allclose(line.get_xydata(), [[150, 0.25], [200, 0.625], [250, 0.75]])
    assert "--metrics has rewards; the runs have: step, loss," in error_of(
        main, [*given, "--metrics", "rewards"]
    )
