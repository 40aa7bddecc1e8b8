"""Collecting, training and scoring on POPGym, and the sweep over its tasks."""

from __future__ import annotations

from pathlib import Path

import pytest

from rate.envs.popgym_tasks import TASKS
from scripts import benchmark_popgym
from trainers.commands import collect
from trainers.commands.scores import read_scores, read_table
from trainers.commands.study_file import load_study
from trainers.commands.train import train_on

pytest.importorskip("popgym", reason="POPGym is not installed (extra popgym)")
pytest.importorskip("mazelib", reason="POPGym's labyrinths are not installed (extra popgym)")

STUDIES = Path(__file__).parents[3] / "trainers" / "studies"
TINY = [
    *("--training.max_steps=2", "--training.batch_size=4", "--data.num_episodes=8"),
    *("--evaluation.episodes=2", "--evaluation.every_n_steps=2", "--data.workers=1"),
    *("--logging.progress=false", "--logging.tensorboard=false"),
]


# Discrete, multi-discrete and continuous actions; symbols, many of them, and vectors.
@pytest.mark.parametrize(
    ("task", "model"),
    [("CountRecallEasy", "RATE"), ("MineSweeperEasy", "DT"), ("PositionOnlyPendulumHard", "RATE")],
)
def test_a_run_collects_trains_and_scores(
    task: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"--logging.output={tmp_path}", f"--data.root={tmp_path / 'data'}"]
    train_on("popgym", ["--env", task, "--model_mode", model, *TINY, *folders])
    assert "1024" in capsys.readouterr().out
    assert (tmp_path / f"popgym-{task}-{model.lower()}-1" / "evaluation.json").is_file()


def test_a_data_set_is_collected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["popgym", "--env.task", "RepeatFirstEasy", *TINY, f"--data.root={tmp_path}"]
    collect.main(arguments)
    assert "8 episodes, 408 steps" in capsys.readouterr().out


@pytest.mark.long
def test_the_sweep_resumes_and_compares(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "popgym.csv"
    common = [*TINY, f"--data.root={tmp_path / 'data'}", f"--output={tmp_path / 'runs'}"]
    common += [f"--results={results}", "--jobs=1"]
    benchmark_popgym.main(["--tasks", "RepeatFirstEasy", *common])
    stamp = (tmp_path / "runs/popgym-RepeatFirstEasy-rate-1/evaluation.json").stat().st_mtime_ns
    benchmark_popgym.main(["--tasks", "Repeat*Easy", *common])
    again = (tmp_path / "runs/popgym-RepeatFirstEasy-rate-1/evaluation.json").stat().st_mtime_ns
    assert again == stamp
    rows = read_scores(results)
    assert {row["model"] for row in rows} == {"RepeatFirstEasy-rate", "RepeatPreviousEasy-rate"}
    compared = benchmark_popgym.compare(rows, "rate")
    assert set(compared) == {"RepeatFirstEasy", "RepeatPreviousEasy"}
    assert compared["RepeatFirstEasy"]["rate"] == 1.0
    assert "2 of 48 tasks" in capsys.readouterr().out


def test_the_published_table_is_complete() -> None:
    rows = read_table(benchmark_popgym.PUBLISHED)
    assert {row["task"] for row in rows} == set(TASKS)
    sums = {name: sum(float(row[name]) for row in rows) for name in ("rate", "dt", "data")}
    assert sums == pytest.approx({"rate": 9.5, "dt": 5.8, "data": 16.5}, abs=0.05)


def test_a_pattern_without_a_task_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark_popgym.main(["--tasks", "Nothing*"])
    assert "--tasks Nothing* is no task" in capsys.readouterr().err


def test_the_study_holds_the_reported_tasks() -> None:
    study = load_study(STUDIES / "popgym.yaml", None, None, [])
    assert len(study.runs) == 27
    assert {run.env["task"] for run in study.runs} <= set(TASKS)
    assert {run.logging.name for run in study.runs} == {
        f"{run.env['task']}-rate" for run in study.runs
    }
