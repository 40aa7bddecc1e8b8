"""Figures from tables and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from trainers.commands import evaluate
from trainers.commands.plot import main
from trainers.commands.plot_lengths import _shifts, plot_scores, trained_lengths
from trainers.commands.scores import (
    COLUMNS,
    add_scores,
    by_length,
    by_value,
    other_metrics,
    read_scores,
)
from trainers.commands.styles import styles

PNG = b"\x89PNG"


def row(model: str, seed: int, length: int, success: float | None, **others: Any) -> dict[str, Any]:
    known = {"episodes": 100, "which": "last", "sem": 0.01, "step": 400, "seconds": 9.5}
    return {**known, "model": model, "seed": seed, "length": length, "success": success, **others}


ROWS = [
    row("rate", 1, 90, 1.0),
    row("rate", 1, 9600, 0.98, **{"return": 0.98}),
    row("rate", 2, 90, 1.0),
    row("rate", 2, 9600, 1.0),
    row("rate", 2, 9600, 0.2, which="best"),
    row("a, b", 1, 90, 0.5),
]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "scores" / "study.csv"
    add_scores(path, ROWS)
    return path


def test_a_table_is_read_as_written(table: Path) -> None:
    rows = read_scores(table)
    assert [(r["model"], r["seed"], r["length"], r["success"], r["which"]) for r in rows] == [
        (r["model"], r["seed"], r["length"], r["success"], r["which"]) for r in ROWS
    ]


def test_scores_are_of_the_requested_weights() -> None:
    assert by_length(ROWS, "success", "rate") == {90: [1.0, 1.0], 9600: [0.98, 1.0]}
    assert by_length(ROWS, "success", "rate", "best") == {9600: [0.2]}
    assert by_length(ROWS, "return", "rate") == {9600: [0.98]}
    assert by_length([row("x", 1, 9, None)], "success", "x") == {}
    assert by_length(ROWS, "success", "y") == {}


def test_counts_stay_integers(table: Path) -> None:
    for written, read in zip(ROWS, read_scores(table), strict=True):
        for name in ("seed", "length", "episodes", "step"):
            assert (type(read[name]), read[name]) == (int, written[name])
        assert type(read["success"]) is float


def test_metrics_of_one_environment_are_the_last_columns(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    rows = [
        row("rate", 1, 9, 0.5, environment="retrieval", success_0=0.25, imbalance=None),
        row("random", 0, 9, None, step=None, lifetime=12.5),
    ]
    add_scores(path, rows)
    header = path.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == [*COLUMNS, "success_0", "imbalance", "lifetime"]
    first, second = read_scores(path)
    assert (first["success_0"], first["imbalance"], first["lifetime"]) == (0.25, None, None)
    assert (second["success"], second["step"], second["lifetime"]) == (None, None, 12.5)
    assert other_metrics([first, second]) == ["success_0", "imbalance", "lifetime"]


def test_interquartile_means_are_drawn(table: Path, tmp_path: Path) -> None:
    main([str(table), "-o", str(tmp_path / "mean.png")])
    main([str(table), "-o", str(tmp_path / "iqm.png"), "--statistic", "iqm"])
    assert (tmp_path / "iqm.png").read_bytes() != (tmp_path / "mean.png").read_bytes()


def test_a_figure_of_returns_is_drawn_with_baselines(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    others = {"environment": "minigrid", "step": None}
    add_scores(
        path,
        [
            row(model, 1, length, None, **others, **{"return": 12.0 * length})
            for model in ("rate", "expert", "random")
            for length in (9, 21)
        ],
    )
    main([str(path)])
    assert path.with_suffix(".png").read_bytes().startswith(PNG)


@pytest.mark.parametrize(
    ("environment", "lengths", "trained"),
    [
        ("tmaze", (90, 900), [90]),
        ("minigrid", (11, 31, 501), [31]),
        ("retrieval", (90, 900), [90]),
        ("retrieval", (30, 60), []),  # longer than all evaluated lengths
    ],
)
def test_the_trained_length_defaults_to_that_of_the_preset(
    environment: str, lengths: tuple[int, ...], trained: list[int]
) -> None:
    if environment == "minigrid":
        pytest.importorskip("minigrid")
    rows = [row("rate", 1, length, 1.0, environment=environment) for length in lengths]
    assert trained_lengths(rows) == trained
    with_lengths = [{**each, "trained_length": 12} for each in rows]
    assert trained_lengths(with_lengths) == [12]
    assert trained_lengths([*with_lengths, {**rows[0], "trained_length": 20}]) == [12, 20]


def test_a_run_records_its_trained_length(trained: Callable[[str], Path], tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    evaluate.main([str(trained("rate")), "--lengths", "9", "--episodes", "2", f"--results={path}"])
    assert {scored["trained_length"] for scored in read_scores(path)} == {90}


def test_a_model_has_one_colour_in_all_figures() -> None:
    first = styles(["rate", "dt", "oracle_dt", "expert", "mine"])
    second = styles(["random", "mine", "tmaze-dt-2", "pong-rate", "tmaze-rate-1"])
    assert first["rate"].colour == second["pong-rate"].colour == second["tmaze-rate-1"].colour
    assert first["dt"].colour == second["tmaze-dt-2"].colour
    assert first["mine"].colour == second["mine"].colour
    for looks in (first, second, styles(f"model {i}" for i in range(6))):
        assert len({(look.colour, str(look.dash), look.marker) for look in looks.values()}) == len(
            looks
        )
    known = styles(["rate", "dt", "rmt", "trxl", "dtxl", "dt_relative", "oracle_dt", "expert"])
    assert len({look.colour for look in known.values()}) == len(known)


def test_overlapping_lines_are_separated_and_others_stay() -> None:
    means = {
        "a": {9: 1.0, 90: 1.0},
        "b": {9: 1.0, 90: 0.5},
        "c": {9: 0.99, 900: 0.0},
        "alone": {9: 0.2, 90: 0.1},
    }
    shifts = _shifts(means)
    assert set(shifts) == {"a", "b", "c"}
    assert sorted(shifts.values()) == [-2.0, 0.0, 2.0]
    assert _shifts({"a": {9: 1.0}, "b": {90: 1.0}}) == {}


def test_a_figure_is_drawn_beside_the_table(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main([str(table)])
    figure = table.with_suffix(".png")
    assert figure.read_bytes().startswith(PNG)
    assert capsys.readouterr().out.strip() == str(figure)


def test_several_tables_make_one_figure(table: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    add_scores(other, [row("dt", 1, 90, None), row("dt", 1, 900, 0.4)])
    figure = tmp_path / "deeper" / "both.png"
    main([str(table), str(other), "-o", str(figure), "--trained-length", "30"])
    assert figure.read_bytes().startswith(PNG)
    assert not table.with_suffix(".png").exists()


def test_learning_curves_of_runs_are_drawn(trained: Callable[[str], Path], tmp_path: Path) -> None:
    figure = tmp_path / "deeper" / "learning.png"
    main([str(trained("rate")), str(trained("dt")), "--output", str(figure)])
    assert figure.read_bytes().startswith(PNG)


def test_held_out_metrics_are_drawn_below_if_there_are_any(
    trained: Callable[[str], Path], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    folder = tmp_path / "tmaze-rate-1"
    folder.mkdir()
    (folder / "metrics.csv").write_bytes((trained("rate") / "metrics.csv").read_bytes())
    figures = [tmp_path / name for name in ("without.png", "with.png")]
    bins = [{"from": 0, "to": 3, "steps": 9, "action_loss": 0.5, "accuracy": 0.75}]
    bins.append({"from": 4, "to": 4, "steps": 1, "action_loss": None, "accuracy": 0.0})  # type: ignore[dict-item]
    held_out = [{"which": "last", "by_position": bins, "by_distance": bins}]
    sizes = []
    for rows, figure in zip(([], held_out), figures, strict=True):
        (folder / "evaluation.json").write_text(json.dumps({"held_out": rows}))
        main([str(folder), "-o", str(figure)])
        sizes.append(
            int.from_bytes(figure.read_bytes()[20:24], "big")
        )  # the height in a PNG header
    assert sizes[1] == 2 * sizes[0]
    (folder / "evaluation.json").write_text("[]")
    assert "evaluation.json is damaged" in error_of(main, [str(folder), "-o", str(figures[0])])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is no table of scores"),
        (b"model,seed\nrate,1\n", "is no table of scores: it needs rows under model, seed, length"),
        (
            b"model,seed,length,success,which\nrate,one,90,1,last\n",
            "in line 2, seed is 'one', not a number",
        ),
        (b"model,seed,length,success,which\nrate,1,90,1,last\nrate,1\n", "line 3"),
        (b"\xff\xfe\x00", "is no CSV file"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_table_is_refused(
    content: bytes | None, message: str, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    path = tmp_path / "table.csv"
    if content is not None:
        path.write_bytes(content)
    error = error_of(main, [str(path)])
    assert str(path) in error
    assert message in error
    assert not path.with_suffix(".png").exists()


def test_a_folder_that_is_no_run_is_refused(
    table: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    figure = tmp_path / "learning.png"
    error = error_of(main, [str(tmp_path), "-o", str(figure)])
    assert f"{tmp_path / 'metrics.csv'} cannot be read" in error
    assert not figure.exists()
    assert "for tables of scores" in error_of(main, [str(tmp_path), "--markdown"])
    assert f"{tmp_path} cannot be read" in error_of(main, [str(table), str(tmp_path)])
    error = error_of(main, [str(table), "-o", str(table / "below.png")])
    assert "below.png cannot be written" in error


def test_environments_have_a_panel_each(tmp_path: Path) -> None:
    near = row("a", 1, 10, 1.0)
    far = row("a", 1, 10, 0.25, environment="tmaze far")
    plot_scores([near], tmp_path / "one.png")
    plot_scores([near, far], tmp_path / "two.png")
    width = [int.from_bytes((tmp_path / f).read_bytes()[16:20]) for f in ("one.png", "two.png")]
    assert width[1] > width[0]  # of the PNGs, from their headers


def test_models_of_several_values_are_drawn_against_the_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A panel per length; what is no MODEL-N is left out."""
    rows = [
        row(f"{model}-{bits}", 1, length, success, environment="bits")
        for model, bits, length, success in [
            ("lstm", 1, 40, 1.0), ("lstm", 8, 40, 0.5), ("lstm", 8, 400, 0.25),
            ("rate_bistable-3", 8, 40, 0.75),
        ]
    ]  # fmt: skip
    other = row("rate-latch", 1, 40, 1.0, environment="bits")
    found = [
        (r["environment"], r["model"], r["length"], r["success"]) for r in by_value([*rows, other])
    ]
    assert found == [
        ("bits 40", "lstm", 1, 1.0),
        ("bits 40", "lstm", 8, 0.5),
        ("bits 400", "lstm", 8, 0.25),
        ("bits 40", "rate_bistable-3", 8, 0.75),
    ]
    add_scores(tmp_path / "bits.csv", [*rows, other])
    main([str(tmp_path / "bits.csv"), "--against", "bits"])
    assert (tmp_path / "bits.png").read_bytes().startswith(PNG)
    add_scores(tmp_path / "none.csv", [other])
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none.csv"), "--against", "bits"])
    assert "models named MODEL-N" in capsys.readouterr().err
