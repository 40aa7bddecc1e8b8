"""Checks before training begins, and the files that a failed run leaves."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import ConfigError, UserError
from trainers import runs
from trainers.changes import differences
from trainers.errors import TrainingError
from trainers.registry import get_environment
from trainers.train import train
from trainers.wandb_run import wandb_settings


def folder_of(config) -> Path:
    return Path(config.logging.output) / config.run_name


def test_an_existing_run_is_not_changed(make_config) -> None:
    config = make_config()
    folder = folder_of(config)
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"--resume .*tmaze-rate-1.*--logging\.name"):
        train(config)
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


@pytest.mark.skipif(os.name != "posix", reason="needs a file in the place of a folder")
def test_an_output_that_cannot_be_written_is_refused(make_config, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"cannot be written to .*--logging\.output"):
        train(make_config(logging__output=str(tmp_path / "file" / "runs")))


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="the administrator may write anywhere"
)
def test_a_read_only_output_is_refused(make_config, tmp_path) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    with pytest.raises(ConfigError, match="cannot be written"):
        train(make_config(logging__output=str(tmp_path / "locked")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"evaluation__lengths": [8, 2]}, r"evaluation\.lengths has 2"),
        ({"evaluation__selection_lengths": [1]}, r"evaluation\.selection_lengths has 1"),
        ({"training__accelerator": "abacus"}, r"training\.accelerator=abacus"),
        ({"training__precision": "3-mixed"}, "precision=3-mixed"),
        ({"data__store": "nowhere"}, "nowhere"),
        # The first stage of this curriculum has windows of one step; episodes have two or more.
        (
            {"model__context_length": 1, "curriculum__enabled": True, "data__max_length": 4},
            "no episode has at most 1",
        ),
    ],
)
def test_invalid_settings_leave_no_folder(make_config, changes, message) -> None:
    config = make_config(**changes)
    with pytest.raises(UserError, match=message):
        train(config)
    assert not folder_of(config).exists()


def test_an_unknown_environment_is_refused_with_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'tmaze'"):
        get_environment("tmase")
    assert get_environment("tmaze").spec == TMAZE_SPEC


def test_only_a_run_can_be_resumed(make_config, tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"holds no run: config\.yaml is missing"):
        train(make_config(), resume=tmp_path)


def test_a_run_that_failed_before_its_first_checkpoint_starts_over(make_config) -> None:
    """Its log is removed, so that it is not mixed with the new one."""
    config = make_config(
        training__checkpoint_every_n_steps=100,
        training__log_every_n_steps=1,
        evaluation__every_n_steps=0,
    )

    def crash(phase: str, step: int, total: int) -> None:
        if step == 5:
            raise TrainingError("crash")

    with pytest.raises(TrainingError):
        train(config, report=crash)
    folder = folder_of(config)
    assert len((folder / "metrics.csv").read_text().splitlines()) > 1
    train(config, resume=folder)
    steps = [line.split(",")[0] for line in (folder / "metrics.csv").read_text().splitlines()]
    assert steps == ["step", *map(str, range(1, 9))]


def test_a_run_that_a_full_disk_ended_is_resumed(make_config, monkeypatch) -> None:
    config = make_config()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("trainers.callbacks.evaluation.save_model", full)
        with pytest.raises(TrainingError, match=r"No space left on device.*--resume .*tmaze-rate"):
            train(config)
    assert train(config, resume=folder_of(config)).steps == config.training.max_steps


def test_differences_are_named_with_dots() -> None:
    old = {"a": 1, "b": {"c": 2, "d": {"e": 3}}}
    new = {"a": 1, "b": {"c": 4, "d": {"e": 5}}, "f": 6}
    assert differences(old, new) == {"b.c": (2, 4), "b.d.e": (3, 5), "f": (None, 6)}


def test_a_resumed_run_records_both_machines(make_config) -> None:
    folder = train(make_config(), command="first").folder
    train(make_config(), resume=folder, command="second")
    text = (folder / "environment.txt").read_text()
    assert text.index("command: first") < text.index("command: second")
    assert text.count("python: ") == 2


def test_the_wandb_example_is_valid(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "wandb_config.yaml"
    assert wandb_settings(example)["mode"] == "offline"
    assert wandb_settings(tmp_path / "none.yaml") == {}


@pytest.mark.parametrize("text", ["wandb_api: secret", "projet: rate", "[a]", "{"])
def test_a_wandb_file_with_other_keys_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "wandb_config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"wandb_config\.yaml"):
        wandb_settings(path)


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_the_commit_is_marked_as_changed_only_if_code_changed(tmp_path, monkeypatch) -> None:
    def git(*words: str) -> None:
        known = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", tmp_path, *known, *words], check=True, capture_output=True)

    here, commit = tmp_path / "trainers" / "runs.py", "[0-9a-f]{40}"
    monkeypatch.setattr(runs, "__file__", str(here))
    (tmp_path / "data" / "tmaze").mkdir(parents=True)
    here.parent.mkdir()
    here.write_text("code\n")
    git("init")
    (tmp_path / "table.csv").write_text("1\n")
    git("add", "table.csv")
    git("commit", "-m", "somebody's own")
    assert runs._git_commit() == "none"  # installed inside a user's repository
    git("add", ".")
    git("commit", "-m", "ours")
    (tmp_path / "data" / "tmaze" / "manifest.json").write_text("made here\n")
    (tmp_path / "table.csv").write_text("2\n")
    assert re.fullmatch(commit, runs._git_commit())
    (tmp_path / "trainers" / "new.py").write_text("more code\n")
    assert re.fullmatch(f"{commit} with changes", runs._git_commit())
    (tmp_path / "trainers" / "new.py").unlink()
    here.write_text("other code\n")
    assert re.fullmatch(f"{commit} with changes", runs._git_commit())


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork", "fsdp", "deepspeed", "nonsense"])
def test_an_unsupported_strategy_is_refused(make_config, strategy: str) -> None:
    with pytest.raises(ConfigError, match=rf"training\.strategy is '{strategy}'; choose one of"):
        make_config(training__strategy=strategy)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("bptt_segments", 0),
        ("compile", "always"),
        ("cuda_graphs", "always"),
        ("checkpoint_segments", True),
        ("precision", "16-mixed"),
    ],
)
def test_what_a_sharded_model_cannot_do_is_refused(make_config, setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"fsdp2.*training\.{setting}|{setting}=always.*cpu"):
        make_config(training__strategy="fsdp2", **{f"training__{setting}": value})


def test_a_sharded_model_has_no_target_network(make_config) -> None:
    own = {"training__objective": "ddqn", "model__condition_on_return": False}
    make_config(**own)
    with pytest.raises(ConfigError, match=r"fsdp2 does not go with training\.objective=ddqn"):
        make_config(**own, training__strategy="fsdp2")


@pytest.mark.parametrize(
    ("setting", "value"),
    [("accelerator", "tpu"), ("accelerator", "nonsense"), ("precision", "transformer-engine")],
)
def test_missing_hardware_is_an_error_before_data_are_collected(
    make_config, tmp_path, setting: str, value: str
) -> None:
    config = make_config(**{f"training__{setting}": value, "data__root": str(tmp_path / "data")})
    with pytest.raises(ConfigError, match=rf"This machine cannot .*{setting}={value}"):
        train(config)
    assert not (tmp_path / "data").exists()
    assert not folder_of(config).exists()
