"""Presets, dotted options and files are merged into one configuration, or refused."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest
import yaml

from rate.errors import ConfigError
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.config_files import config_from_dict
from trainers.flag_table import FLAGS
from trainers.option_hints import USUAL
from trainers.preset_files import load_preset, preset_names

GOOD = [
    (["--model.d_model=32"], "model.d_model", 32),
    (["--optimizer.learning_rate", "3e-4"], "optimizer.learning_rate", 3e-4),
    (["--data.max_length", "120"], "data.max_length", 120),
    (["--data.max_length", "null"], "data.max_length", None),
    (["--evaluation.decoding.method", "sample"], "evaluation.decoding.method", "sample"),
    (["--evaluation.decoding.top_k=2"], "evaluation.decoding.top_k", 2),
    (["--curr", "True"], "curriculum.enabled", True),
    (["--text", "12"], "logging.comment", "12"),
    (["--training.seed=1", "--seed=2"], "training.seed", 2),
    (["--evaluation.lengths", "[90, 900]"], "evaluation.lengths", [90, 900]),
    (["--evaluation.lengths", "[90,", "900]"], "evaluation.lengths", [90, 900]),
    (["--evaluation.lengths=90,900"], "evaluation.lengths", [90, 900]),
    (["--evaluation.lengths", "90,900"], "evaluation.lengths", [90, 900]),
    (["--evaluation.lengths", "90", "900", "--seed=2"], "evaluation.lengths", [90, 900]),
    (["--evaluation.lengths", "90"], "evaluation.lengths", [90]),
    (["--evaluation.selection_lengths=30"], "evaluation.selection_lengths", [30]),
]
BAD = [
    ("--model.d_model abc", "model.d_model is 'abc'; it must be a whole number."),
    ("--training.max_steps 1.5", "training.max_steps is 1.5; it must be a whole"),
    ("--optimizer.learning_rate fast", "optimizer.learning_rate is 'fast'; it must be a number."),
    ("--model.skip_ffn maybe", "model.skip_ffn is 'maybe'; it must be true or false."),
    ("--curr maybe", "curriculum.enabled is 'maybe'; it must be true or false"),
    ("--model.block gru", "model.block is 'gru'; choose one of: pre_norm, trxl"),
    ("--mrv_act gelu", "model.valve_activation is 'gelu'; choose one of: none, relu"),
    ("--data.max_length x", "data.max_length is 'x'; it must be a whole number or"),
    (
        "--evaluation.decoding.top_k x",
        "evaluation.decoding.top_k is 'x'; it must be a whole number or null",
    ),
    (
        "--evaluation.lengths 9 x",
        "evaluation.lengths is [9, 'x']; it must be a list, like",
    ),
    ("--evaluation.lengths", "--evaluation.lengths needs a value."),
    ("--model.d_model", "--model.d_model needs a value."),
    ("--config", "--config needs a value."),
    ("--resume", "--resume needs a value."),
    ("--model.dmodel 3", "no option --model.dmodel. Did you mean --model.d_model?"),
    ("--model.nmu_heads=3", "Did you mean --model.num_heads?"),
    ("--nnmt 3", "no option --nnmt. Did you mean --nmt?"),
    ("--resum x", "Did you mean --resume?"),
    ("--qqqqqqqq 3", "no option --qqqqqqqq. --help"),
    ("--model.d_mod 32", "Did you mean --model.d_model?"),  # no abbreviations
    ("--device cuda", "no option --device. Here it is --training.accelerator gpu, cpu or auto."),
    ("--num_workers 4", "--data.workers N are for collecting data, and --evaluation.workers N"),
    ("--lr 1e-3", "no option --lr. Here it is --optimizer.learning_rate VALUE."),
    ("--learning-rate 1e-3", "Here it is --optimizer.learning_rate VALUE."),
    ("--epochs=10", "Here it is --training.max_steps N (optimiser steps; there are no epochs)."),
    ("--K 20", "Here it is --model.context_length N (K, steps of a segment)."),
    ("--batch_size 8", "Here it is --training.batch_size N (windows)."),
    ("--training.learning_rate 1", "Here it is --optimizer.learning_rate VALUE."),  # public main
    ("--training.epochs 1", "Here it is --training.max_steps N"),
    ("--gamma 0.99", "no option --gamma. Returns-to-go are not discounted."),
    ("--max_steps 5", "Did you mean --training.max_steps or --curriculum.max_steps?"),
    ("--num-memory-tokens 3", "Did you mean --model.num_memory_tokens?"),
    ("--dropuot 0.1", "Did you mean --model.dropout?"),
    ("--epoch_s 3", "Here it is --training.max_steps N"),
    ("stray", "'stray' belongs to no option."),
    ("--model=3", "There is no preset '3' for tmaze (--model)."),
    ("--training=3", "--training is a table of settings"),
    ("--model.num_heads 5", "model.num_heads=5 does not divide model.d_model=64"),
    ("--n_head_ca 3", "model.valve_heads=3 does not divide model.d_model=64"),
    ("--nmt 0", "model.valve=none"),
    ("--training.max_steps 0", "training.max_steps is 0; it must be at least 1"),
    ("--evaluation.episodes=0", "evaluation.episodes is 0"),
    ("--model_mode DT --training.segments=3", "training.segments=1"),
    ("--model_mode GPT", "There is no preset 'gpt' for tmaze (--model)."),
    ("--resume nowhere", "nowhere holds no run"),
    ("--config nowhere.yaml", "nowhere.yaml cannot be read"),
    ("--config a.yaml --model_mode DT", "--model chooses a preset, but --config"),
    ("--resume a --model_mode DT", "--model chooses a preset, but --resume"),
]


BAD_ENVIRONMENT = [
    (
        "retrieval",
        "--env.privilegd true",
        "no option --env.privilegd. Did you mean --env.privileged?",
    ),
    ("retrieval", "--env.privileged maybe", "env.privileged is 'maybe'; it must be true or false."),
    ("retrieval", "--env.privileged", "--env.privileged needs a value."),
    ("retrieval", "--env=Easy", "no option --env.task. Did you mean --env?"),
    (
        "minigrid",
        "--env.time_out soon",
        "env.time_out is 'soon'; it must be a whole number",
    ),
    ("minigrid", "--env.time_out 0", "env.time_out is 0; it must be at least 1"),
    ("minigrid", "--env.observation pixel", "env.observation is 'pixel'"),
    ("tmaze", "--env.privileged true", "There is no option --env.privileged."),
]


def setting(config: RunConfig, name: str) -> object:
    """Returns the value of a dotted setting."""
    value: object = config
    for part in name.split("."):
        value = getattr(value, part)
    return value


@pytest.mark.parametrize(("words", "name", "value"), GOOD)
def test_an_option_changes_its_setting_and_no_other(
    words: list[str], name: str, value: object
) -> None:
    changed = parse("tmaze", words).config
    assert setting(changed, name) == value
    table, expected = changed.to_dict(), parse("tmaze", []).config.to_dict()
    *sections, last = name.split(".")
    for section in sections:
        table, expected = table[section], expected[section]
        assert {k for k in table if table[k] != expected[k]} <= {last, *sections}


@pytest.mark.parametrize(("words", "message"), BAD)
def test_a_wrong_command_line_is_refused_by_name(words: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse("tmaze", words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("environment", "words", "message"), BAD_ENVIRONMENT)
def test_a_wrong_setting_of_the_environment_is_refused_by_name(
    environment: str, words: str, message: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(environment, words.split())
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_of_the_environment_are_options_and_are_saved(tmp_path: Path) -> None:
    assert parse("retrieval", []).config.env == {"privileged": False}
    assert parse("tmaze", []).config.env == {}
    config = parse("retrieval", ["--env.privileged=true"]).config
    assert config.env == {"privileged": True}
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert parse("retrieval", [f"--config={path}"]).config == config
    assert (
        parse("retrieval", [f"--config={path}", "--env.privileged=false"]).config.env["privileged"]
        is False
    )


def test_help_shows_the_settings_of_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    def show(environment: str) -> str:
        with pytest.raises(SystemExit):
            parse(environment, ["--help"])
        return " ".join(capsys.readouterr().out.split())

    text = show("retrieval")
    assert "--env.privileged {true,false} Observations also hold the privileged state" in text
    assert "(default: false)" in text
    assert "--env." not in show("tmaze")


def test_without_options_it_is_the_rate_preset() -> None:
    command = parse("tmaze", [])
    assert command.config == config_from_dict(
        {"environment": "tmaze", **load_preset("tmaze", "rate")}
    )
    assert command.resume is None
    assert command.notes == []


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    message = r"no preset 'rat' for tmaze \(--model\)\. Did you mean rate\?"
    with pytest.raises(ConfigError, match=message):
        load_preset("tmaze", "rat")
    assert preset_names("CartPole-v1") == preset_names("none")


def test_resume_takes_the_settings_of_the_run(tmp_path: Path) -> None:
    base = parse("tmaze", ["--model_mode=RMT", "--seed=4"]).config
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base.to_dict()), encoding="utf-8")
    command = parse("tmaze", ["--resume", str(tmp_path), "--training.max_steps=900"])
    assert command.resume == tmp_path
    assert command.config.training.max_steps == 900
    assert command.config.model == base.model


def test_hints_name_existing_options() -> None:
    """Every name in a hint is an option, a flag or a setting of a file."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        parse("popgym", ["--help"])
    assert "--model.d_model" in text.getvalue()
    for option in re.findall(r"--[a-z_.A-Z0-9]+", " ".join(USUAL.values())):
        if option != "--seeds":  # of scripts/study.py
            assert f"{option} " in text.getvalue() or f"{option}=" in text.getvalue(), option
    assert not USUAL.keys() & FLAGS.keys()
