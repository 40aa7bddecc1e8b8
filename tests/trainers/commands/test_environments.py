"""Collecting, training and scoring on environments other than the T-Maze, by command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from trainers.commands import evaluate, train
from trainers.commands.scores import COLUMNS, read_scores
from trainers.config_files import load_config_file

SHORT = [
    *("--training.max_steps=4", "--training.batch_size=4", "--evaluation.every_n_steps=2"),
    *("--model.d_model=16", "--model.valve_heads=2", "--model.context_length=4"),
    *("--training.segments=2", "--curriculum.enabled=false", "--evaluation.target_return=0.4"),
    *("--data.num_episodes=30", "--data.workers=1"),
    *("--evaluation.episodes=9", "--evaluation.num_envs=4", "--evaluation.selection_episodes=5"),
    *("--evaluation.workers=2", "--logging.progress=false", "--logging.tensorboard=false"),
]


@dataclass(frozen=True)
class Case:
    """An environment, the options of a short run on it, and the expected rows of scores."""

    name: str
    options: tuple[str, ...]
    lengths: tuple[int, ...]
    outcomes: tuple[str, ...]
    wrong_length: str

    def words(self, folder: Path) -> list[str]:
        lengths = ",".join(map(str, self.lengths))
        where = [f"--data.root={folder / 'data'}", f"--logging.output={folder / 'runs'}"]
        evaluation = [f"--evaluation.lengths={lengths}", "--evaluation.selection_lengths=7"]
        return [*SHORT, *self.options, *evaluation, *where]


CASES = [
    Case(
        "retrieval",
        ("--data.max_length=12", "--evaluation.target_return=1"),
        lengths=(7, 15),
        outcomes=("success_0", "success_1", "imbalance"),
        wrong_length="2",
    ),
    Case(
        "minigrid",
        ("--data.max_length=9", "--env.observation=symbols", "--env.time_out=15"),
        lengths=(7, 9),
        outcomes=("size", "success_ball", "success_key", "imbalance"),
        wrong_length="8",
    ),
]


@dataclass(frozen=True)
class Trained:
    """A finished run."""

    case: Case
    folder: Path

    @property
    def run(self) -> Path:
        (folder,) = (self.folder / "runs").glob(f"{self.case.name}-rate-*")
        return folder


def rows_of(run: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((run / "evaluation.json").read_text())["rows"]
    return rows


def stores(folder: Path) -> set[Path]:
    return {path.parent for path in (folder / "data").glob("*/manifest.json")}


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    case: Case = request.param
    if case.name != "retrieval":
        pytest.importorskip(case.name)
    folder = tmp_path_factory.mktemp(case.name)
    train.train_on(case.name, case.words(folder))
    return Trained(case, folder)


def test_a_run_reports_success_in_both_groups(trained: Trained) -> None:
    case, rows = trained.case, rows_of(trained.run)
    assert [(row["which"], row["length"]) for row in rows] == [
        (which, length) for which in ("last", "best") for length in case.lengths
    ]
    for row in rows:
        assert (row["environment"], row["model"], row["episodes"]) == (case.name, "rate", 9)
        known = ("environment", "model", "which", "step", "online_evaluations")
        played = [key for key in ("length", "episodes", "first_seed", "return_to_go") if key in row]
        scores = ("success", "sem", "return", "return_sem", "steps", "invalid")
        outside = [key for key in row if key.startswith("rtg_outside")]
        assert len(outside) == (3 if case.name == "retrieval" else 0)  # Minigrid's sees no return
        assert ("return_to_go" in row) == bool(outside)
        assert tuple(row) == (*known, *played, *scores, *outside, *case.outcomes)
        assert 1 <= row["steps"] <= 15
        for name in ("success", *case.outcomes[-3:]):
            assert row[name] is None or 0 <= row[name] <= 1
    assert load_config_file(trained.run / "config.yaml").environment == case.name
    assert len(stores(trained.folder)) == 1


def test_evaluation_reproduces_the_scores_of_the_run(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table, alone = tmp_path / "scores.csv", tmp_path / "last.csv"
    evaluate.main([str(trained.run), "--results", str(table)])
    assert "The last weights in detail" in capsys.readouterr().out
    header = table.read_text(encoding="utf-8").splitlines()[0].split(",")
    assert header == [*COLUMNS, *trained.case.outcomes]
    reported, scored = rows_of(trained.run), read_scores(table)
    assert {row["model"] for row in scored} == {"rate-no-curriculum"}  # the model of the run's name
    assert [{**{n: row[n] for n in reported[0]}, "model": "rate"} for row in scored] == reported

    evaluate.main([str(trained.run / "checkpoints" / "last"), "--results", str(alone)])
    again = [{**row, "seconds": None} for row in read_scores(alone)]
    assert again == [{**row, "seconds": None} for row in scored[: len(trained.case.lengths)]]


def test_lengths_are_checked_against_the_environment(
    trained: Trained, error_of: Callable[..., str]
) -> None:
    wrong = trained.case.wrong_length
    error = error_of(evaluate.main, [str(trained.run), "--lengths", "7", wrong])
    assert f"--lengths has {wrong}: " in error


def test_an_oracle_trains_on_the_same_data(trained: Trained, tmp_path: Path) -> None:
    """Data sets hold the privileged state; a model without it reads the other observations."""
    before = stores(trained.folder)
    words = trained.case.words(trained.folder)
    train.train_on(trained.case.name, [*words, "--env.privileged=true", "--logging.name=oracle"])
    run = trained.folder / "runs" / f"{trained.case.name}-oracle-1"
    assert stores(trained.folder) == before
    model = json.loads((run / "checkpoints" / "last" / "model.json").read_text(encoding="utf-8"))
    assert model["environment"]["observation_space"]["type"] == "Dict"
    assert model["environment"]["options"]["privileged"] is True
    table, reported = tmp_path / "scores.csv", rows_of(run)
    evaluate.main([str(run), "--results", str(table)])
    scored = read_scores(table)
    assert {row["model"] for row in scored} == {"oracle"}
    assert [row["success"] for row in scored] == [row["success"] for row in reported]
    assert [row["steps"] for row in scored] == [row["steps"] for row in reported]


def test_a_run_resumes_with_its_own_environment(
    trained: Trained, error_of: Callable[..., str]
) -> None:
    resume = f"--resume={trained.run}"
    error = error_of(train.train_on, trained.case.name, [resume, "--env.privileged=true"])
    assert "env.privileged is True, but the run in" in error
    assert "was made with False" in error
    assert load_config_file(trained.run / "config.yaml").env["privileged"] is False
    before = rows_of(trained.run)
    train.train_on(trained.case.name, [resume])  # no step is left to train: the run is scored again
    assert rows_of(trained.run) == before
