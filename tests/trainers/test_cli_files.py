"""Configuration files on the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from rate.errors import ConfigError
from trainers.cli import parse
from trainers.config_files import config_from_dict


def test_a_file_without_settings_of_the_environment_has_their_defaults(tmp_path: Path) -> None:
    """Configurations of earlier versions have no settings of the environment."""
    values = parse("tmaze", []).config.to_dict()
    del values["env"]
    assert config_from_dict(values) == parse("tmaze", []).config


def test_a_file_is_the_base_and_options_change_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    base = parse("tmaze", ["--model_mode=DTXL", "--model.d_model=32"]).config
    path.write_text(yaml.safe_dump(base.to_dict()), encoding="utf-8")
    assert parse("tmaze", [f"--config={path}"]).config == base
    changed = parse("tmaze", ["--config", str(path), "--seed", "7"]).config
    assert changed.training.seed == 7
    assert changed.model == base.model
    assert changed.name == "dtxl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a YAML file"),
        ("[]", "does not hold a configuration"),
        ("modle: {}", "did you mean model?"),
        ("model: {d_modl: 3}", "did you mean model.d_model?"),
        ("model: 3", "model must be a table"),
        ("model: {d_model: abc}", "model.d_model is 'abc'"),
        ("training: {max_steps: many}", "training.max_steps is 'many'"),
        ("training: {max_steps: '3'}", "training.max_steps is '3'"),
        ("training: {seed: x}", "training.seed is 'x'; it must be a whole number"),
        ("training: {seed: true}", "training.seed is True; it must be a whole number"),
        ("name: 5", "name is 5; it must be text"),
        ("data: {root: 3}", "data.root is 3; it must be text"),
        ("logging: {wandb: maybe}", "logging.wandb is 'maybe'; it must be true or false"),
        ("evaluation: {lengths: [a]}", "evaluation.lengths is ['a']"),
        (
            "environment: vizdoom",
            "is of vizdoom, not of tmaze; use: python scripts/train_",
        ),
        ("environment: tmase", "no environment 'tmase'; did you mean 'tmaze'?"),
        ("env: {privileged: true}", "There is no setting env.privileged"),
        (
            "environment: retrieval\nenv: {privilegd: true}",
            "env.privilegd; did you mean env.privileged?",
        ),
        (
            "environment: retrieval\nenv: {privileged: 1}",
            "env.privileged is 1; it must be true or false",
        ),
        ("environment: retrieval\nenv: 3", "env is 3"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        parse("tmaze", [f"--config={path}"])
    assert message in str(caught.value)


def test_a_file_may_omit_settings_of_its_preset(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: rmt\nmodel: {d_model: 32}\nevaluation: {lengths: [9]}", encoding="utf-8")
    command = parse("tmaze", [f"--config={path}", "--seed=7"])
    expected = parse(
        "tmaze", ["--model_mode=rmt", "--model.d_model=32", "--evaluation.lengths=9", "--seed=7"]
    )
    assert command.config == expected.config
    assert command.config.model.num_memory_tokens == 5
    (note,) = command.notes
    assert "leaves out" in note
    assert note.endswith("they are those of preset rmt.")


def test_a_file_without_a_name_is_laid_over_the_preset_rate(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("training: {max_steps: 7}", encoding="utf-8")
    assert parse("tmaze", [f"--config={path}"]).config == (
        parse("tmaze", ["--training.max_steps=7"]).config
    )
    path.write_text("env: {task: CountRecallEasy}", encoding="utf-8")
    assert parse("popgym", [f"--config={path}"]).config == (
        parse("popgym", ["--env", "CountRecallEasy"]).config
    )


def test_a_file_that_omits_settings_without_a_preset_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name: mine\nmodel: {d_model: 32}", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"tmaze has no preset 'mine' .*logging\.name"):
        parse("tmaze", [f"--config={path}"])
    whole = {**parse("tmaze", []).config.to_dict(), "name": "mine"}
    path.write_text(yaml.safe_dump(whole), encoding="utf-8")
    command = parse("tmaze", [f"--config={path}"])
    assert (command.config.name, command.notes) == ("mine", [])
