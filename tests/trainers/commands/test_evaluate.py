"""`rate evaluate` reproduces the scores that runs reported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.digests import renew_model
from trainers.commands.evaluate import main
from trainers.commands.scores import COLUMNS, read_scores

Trained = Callable[[str], Path]
SCORES = ("model", "which", "length", "episodes", "step", "success", "sem")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Returns the rows of a run's report, with all cells as text."""
    evaluation = json.loads((folder / "evaluation.json").read_text(encoding="utf-8"))
    return [{name: str(row[name]) for name in SCORES} for row in evaluation["rows"]]


def read(path: Path) -> list[dict[str, Any]]:
    return [{name: str(row[name]) for name in SCORES} for row in read_scores(path)]


@pytest.mark.parametrize("mode", ["rate", "dt"])
def test_evaluation_reproduces_the_report(mode: str, trained: Trained, tmp_path: Path) -> None:
    folder, table = trained(mode), tmp_path / "deeper" / "scores.csv"
    main([str(folder), "--results", str(table)])
    assert table.read_text(encoding="utf-8").splitlines()[0] == ",".join(COLUMNS)
    assert read(table) == rows_of(folder)
    chosen = {(row["which"], row["online_evaluations"]) for row in read_scores(table)}
    assert chosen == {("last", 0), ("best", 1)}  # the run has two steps, and was evaluated once


@pytest.mark.parametrize("which", ["last", "best"])
def test_one_model_of_a_run_scores_the_same(which: str, trained: Trained, tmp_path: Path) -> None:
    folder, table = trained("rate"), tmp_path / "scores.csv"
    main([str(folder / "checkpoints" / which), "--results", str(table)])
    assert read(table) == [row for row in rows_of(folder) if row["which"] == which]


def test_a_model_folder_without_a_run_is_scored_under_its_own_name(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(trained("rate") / "checkpoints" / "last", tmp_path / "exported")
    table = tmp_path / "scores.csv"
    main([str(model), "--lengths", "9", "40", "--episodes", "4", "--results", str(table)])
    reported = [row for row in rows_of(trained("rate")) if row["which"] == "last"]
    assert read(table) == [{**row, "model": "exported"} for row in reported]
    assert "exported" in capsys.readouterr().out


def test_lengths_episodes_and_seed_are_options(trained: Trained, tmp_path: Path) -> None:
    table = tmp_path / "scores.csv"
    chosen = ["--lengths", "12", "--episodes", "7", "--seed", "3"]
    main([str(trained("rate")), str(trained("dt")), *chosen, "--results", str(table)])
    rows = read(table)
    assert [(row["model"], row["which"]) for row in rows] == [
        ("rate", "last"),
        ("rate", "best"),
        ("dt", "last"),
        ("dt", "best"),
    ]
    assert {(row["length"], row["episodes"]) for row in rows} == {("12", "7")}


def test_a_mode_of_the_return_to_go_has_rows_of_its_own(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "scores.csv"
    how = ["--lengths", "9", "--results", str(table)]
    main([str(trained("rate")), *how])
    for _ in range(2):  # the second time replaces rows
        main([str(trained("rate")), *how, "--return-to-go", "hold"])
    rows = read_scores(table)
    assert [(row["model"], row["which"], row["return_to_go"]) for row in rows] == [
        ("rate", "last", "clamp"),
        ("rate", "best", "clamp"),
        ("rate hold", "last", "hold"),
        ("rate hold", "best", "hold"),
    ]
    assert "return-to-go: hold" in " ".join(capsys.readouterr().out.split())


def test_clamping_needs_weights_that_know_their_range(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = shutil.copytree(trained("rate") / "checkpoints" / "last", tmp_path / "old")
    path = model / "model.json"
    text = path.read_text(encoding="utf-8")
    path.write_text(text.replace('"trained_range"', '"of_old"'), encoding="utf-8")
    renew_model(model)
    with pytest.raises(SystemExit):
        main([str(model), "--lengths", "9", "--return-to-go", "clamp"])
    assert "needs the range of the training data" in capsys.readouterr().err


def _no_weights(model: Path) -> str:
    (model / "model.safetensors").unlink()
    return "model.safetensors is missing"


def _half_the_weights(model: Path) -> str:
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
    return "model.safetensors is damaged"


def _no_weights_at_all(model: Path) -> str:
    (model / "model.safetensors").write_bytes(b"\x80\x04K\x01.")
    return "model.safetensors is damaged"


def _half_a_description(model: Path) -> str:
    description = model / "model.json"
    description.write_bytes(description.read_bytes()[:100])
    return "model.json is damaged"


def _of_another_shape(model: Path) -> str:
    description = model / "model.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    content["model"]["d_model"] = 32
    description.write_text(json.dumps(content), encoding="utf-8")
    renew_model(model)
    return "model.safetensors does not fit"


def _of_another_environment(model: Path) -> str:
    description = model / "model.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    content["environment"]["name"] = "tmazes"
    description.write_text(json.dumps(content), encoding="utf-8")
    renew_model(model)
    return "no environment 'tmazes'; did you mean 'tmaze'?"


def _of_another_version(model: Path) -> str:
    description = model / "model.json"
    content = json.loads(description.read_text(encoding="utf-8"))
    content["environment"]["options"] = {"colour": "red"}
    description.write_text(json.dumps(content), encoding="utf-8")
    renew_model(model)
    return "tmaze does not have these settings"


@pytest.mark.parametrize(
    "damage",
    [
        _of_another_version,
        _no_weights,
        _half_the_weights,
        _no_weights_at_all,
        _half_a_description,
        _of_another_shape,
        _of_another_environment,
    ],
)
def test_a_damaged_model_is_refused_by_name(
    damage: Callable[[Path], str], trained: Trained, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    model = shutil.copytree(trained("rate") / "checkpoints" / "last", tmp_path / "model")
    message = damage(model)
    table = tmp_path / "scores.csv"
    assert message in error_of(main, [str(model), "--results", str(table)])
    assert not table.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "2"], "--lengths has 2"),
        (["--lengths", "-3"], "no whole number of at least 1"),
        (["--lengths", "many"], "'many' is no whole number"),
        (["--episodes", "0"], "'0' is no whole number of at least 1"),
        (["--seed", "x"], "invalid int value"),
        (["--length", "9"], "unrecognized arguments: --length"),
        (["--device", "tpu"], "invalid choice: 'tpu'"),
        pytest.param(
            ["--device", "cuda"],
            "--device cuda: PyTorch finds no GPU here. Use --device cpu.",
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU"),
        ),
    ],
)
def test_an_invalid_option_is_refused(
    options: list[str], message: str, trained: Trained, error_of: Callable[..., str]
) -> None:
    assert message in error_of(main, [str(trained("rate")), *options])


def test_a_folder_without_models_is_refused(tmp_path: Path, error_of: Callable[..., str]) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        assert f"{place} holds no model" in error_of(main, [str(place)])


def test_a_table_that_cannot_be_written_is_refused(
    trained: Trained, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    (tmp_path / "file").touch()
    table = tmp_path / "file" / "scores.csv"
    assert f"{table} cannot be written" in error_of(
        main, [str(trained("rate")), f"--results={table}"]
    )
