"""A study scores the expert and random actions once, on the episodes of its models."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import trainers.baselines
from trainers.commands.scores import read_scores
from trainers.commands.study import main, run_study
from trainers.commands.study_file import load_study

STUDY = """\
environment: retrieval
seeds: [1]
baselines: [expert, random]
options: >-
  --model.context_length=4 --training.segments=3 --curriculum.enabled=false
  --data.max_length=12 --data.workers=1
runs:
  rate: --model_mode RATE
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_study_scores_the_expert_and_random_actions(
    study: Path, short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A single test, because each process takes seconds to start."""
    runs = tmp_path / "runs"
    lengths = ["--evaluation.lengths=9", "--evaluation.episodes=40"]
    command = [str(study), "--jobs=1", f"--output={runs}", *short, *lengths]
    main(command)
    output = capsys.readouterr().out
    assert output.index("Scoring expert ...") < output.index("Scoring random ...")
    assert output.index("Scoring random ...") < output.index("retrieval-rate-1 collecting")
    rows = read_scores(runs / "small.csv")
    assert [(row["model"], row["seed"], row["which"]) for row in rows] == [
        ("expert", 0, "last"),
        ("random", 0, "last"),
        ("rate", 1, "last"),
        ("rate", 1, "best"),
    ]
    assert {(row["environment"], row["length"], row["episodes"]) for row in rows} == {
        ("retrieval", 9, 40)
    }
    expert, chance = rows[:2]
    assert (expert["success"], expert["imbalance"], expert["step"]) == (1, 0, None)
    assert 0 < chance["success"] < 0.5
    assert (runs / "small.png").read_bytes().startswith(b"\x89PNG")

    table = (runs / "small.csv").read_bytes()
    main([*command, "--data.workers=2", "--evaluation.workers=2"])  # which change no score
    output = capsys.readouterr().out
    assert "Scoring" not in output
    assert "1 of 1 runs have finished before" in output
    assert (runs / "small.csv").read_bytes() == table


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Records the calls that score baselines; scores are fake, and no run is trained."""
    calls: list[tuple[Any, ...]] = []

    def score(policy: str, environment: Any, **given: Any) -> list[dict[str, Any]]:
        seeds = given["seeds"]
        calls.append((policy, given["lengths"], (seeds[0], seeds[-1]), environment.spec.options))
        return [{"length": n, "episodes": len(seeds), "success": 0.5} for n in given["lengths"]]

    monkeypatch.setattr(trainers.baselines, "score_baseline", score)
    monkeypatch.setattr("trainers.commands.study._run_all", lambda *_: {})
    monkeypatch.setattr("trainers.commands.study.run_rows", lambda *_: [])
    return calls


def test_baselines_are_scored_again_if_their_options_change(
    study: Path, asked: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    def rows(*options: str) -> list[dict[str, Any]]:
        asked.clear()
        words = [f"--logging.output={tmp_path / 'runs'}", "--evaluation.lengths=9,15", *options]
        return run_study(load_study(study, None, None, words), 1, Console(quiet=True))

    first = rows()
    seeds = (20_000, 20_099)
    assert asked == [(name, [9, 15], seeds, {"privileged": False}) for name in ("expert", "random")]
    assert [(row["model"], row["length"], row["success"]) for row in first] == [
        (name, length, 0.5) for name in ("expert", "random") for length in (9, 15)
    ]
    assert rows() == first
    assert asked == []
    for change in (
        "--evaluation.lengths=9",
        "--evaluation.test_seed=70000",
        "--env.privileged=true",
    ):
        assert rows(change)
        assert len(asked) == 2
    kept = tmp_path / "runs" / "retrieval-random.json"
    rows()
    kept.write_text(kept.read_text(encoding="utf-8")[:20], encoding="utf-8")
    assert rows() == first
    assert [call[0] for call in asked] == ["random"]


def test_a_selection_of_runs_scores_no_baselines(study: Path) -> None:
    assert load_study(study, None, None, []).baselines == ["expert", "random"]
    assert load_study(study, None, ["rate"], []).baselines == []


def test_a_missing_expert_is_reported(
    study: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    study.write_text("environment: tmaze\nseeds: [1]\nbaselines: [expert]\nruns: {rate: }")
    output = tmp_path / "runs"
    assert "tmaze has no expert" in error_of(main, [str(study), f"--output={output}"])
    assert not output.exists()
