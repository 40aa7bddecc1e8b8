"""Collecting, training and scoring on Atari, by command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from datamodules.store import Store
from rate.errors import ConfigError
from trainers.cli import parse
from trainers.commands import evaluate, train
from trainers.commands.scores import read_scores
from trainers.description import describe_frames

pytest.importorskip("ale_py", reason="Atari needs ale-py: make install EXTRAS=atari")

SHORT = [
    *("--training.max_steps=3", "--training.batch_size=4", "--training.log_every_n_steps=1"),
    *("--data.num_episodes=2", "--data.max_length=60", "--data.workers=1"),
    *("--model.d_model=16", "--model.image_channels=2", "--evaluation.lengths=30"),
    *("--evaluation.episodes=3", "--evaluation.num_envs=2", "--evaluation.workers=1"),
    *("--logging.progress=false", "--logging.tensorboard=false"),
]


def words(folder: Path, *more: str) -> list[str]:
    return [*SHORT, f"--data.root={folder}/data", f"--logging.output={folder}/runs", *more]


@pytest.mark.parametrize("model", ["DT_quick", "RATE_quick"])
def test_a_run_collects_trains_and_scores(model: str, tmp_path: Path) -> None:
    train.train_on("atari", words(tmp_path, "--model_mode", model))
    run = tmp_path / "runs" / f"atari-pong-{model.lower()}-1"
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    assert {(row["which"], row["length"], row["episodes"]) for row in rows} == {("last", 30, 3)}
    assert set(rows[0]) >= {"return", "score", "normalised_score", "steps"}
    store = Store.open(next((tmp_path / "data").glob("atari-*/manifest.json")).parent)
    assert store.observations.shape == (120, 84, 84)  # every frame once
    described = json.loads((run / "checkpoints" / "last" / "model.json").read_text())["environment"]
    assert described["frame_stack"] == 4
    assert described["observation_space"]["shape"] == [4, 84, 84]
    assert described["options"]["game"] == "Pong"

    table = tmp_path / "scores.csv"
    evaluate.main([str(run), "--results", str(table)])
    assert [row["return"] for row in read_scores(table)] == [row["return"] for row in rows]


def test_a_store_is_measured_before_it_is_loaded(
    tmp_path: Path, error_of: Callable[..., str]
) -> None:
    train.train_on("atari", words(tmp_path, "--model_mode=DT_quick"))
    store = next((tmp_path / "data").glob("atari-*/manifest.json")).parent
    command = parse("atari", ["--model_mode=DT_quick", f"--data.store={store}"])
    assert describe_frames(command.config).startswith("data 2 episodes, 120 steps: 0.8 MB")
    description = describe_frames(parse("atari", words(tmp_path, "--model_mode=DT_quick")).config)
    assert description.startswith(
        "data, to be made if they are not there, of at most 2 episodes, 120 st"
    )
    assert description.endswith("MB of frames there, once stacked.")
    again = words(tmp_path, "--model_mode=DT_quick", f"--data.store={store}", "--logging.name=x")
    train.train_on("atari", again)
    error = error_of(train.train_on, "atari", [*again, "--game=Breakout", "--logging.name=y"])
    assert "the data are of Pong, but env.game is Breakout" in error


def test_the_default_command_trains_a_small_model_on_collected_data() -> None:
    command = parse("atari", [])
    assert command.config.run_name == "atari-pong-rate_quick-1"
    assert "--model_mode RATE is the published model" in command.notes[0]
    assert "takes a CPU hours or days" in parse("atari", ["--game", "Pong"]).notes[0]
    assert parse("atari", ["--game", "Pong", "--training.accelerator", "gpu"]).notes == []


def test_the_public_command_runs_with_its_flags() -> None:
    """The command of the public README; only the script's path differs."""
    line = (
        "--game Seaquest --num_mem_tokens 15 --mem_len 360 --n_head_ca 1 --mrv_act relu "
        "--skip_dec_ffn --seed 123"
    )
    with pytest.raises(ConfigError, match=r"No expert plays Seaquest.*--data\.random_policy true"):
        parse("atari", line.split())
    config = parse("atari", [*line.split(), "--data.random_policy=true"]).config
    assert config.env["game"] == "Seaquest"
    assert (config.model.num_memory_tokens, config.model.cache_length) == (15, 360)
    assert (config.model.valve, config.model.valve_heads) == ("cross_attention", 1)
    assert (config.model.context_length, config.training.segments) == (30, 3)
    assert config.run_name == "atari-seaquest-rate-123"


def test_invalid_options_are_refused(error_of: Callable[..., str]) -> None:
    assert "Did you mean Breakout?" in error_of(train.train_on, "atari", ["--game", "Brakout"])
    error = error_of(train.train_on, "atari", ["--data.frame_stack", "0"])
    assert "data.frame_stack is 0; it must be at least 1" in error
