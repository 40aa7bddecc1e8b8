"""Presets, dotted options and files are merged into one configuration, or refused."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from importlib.util import find_spec
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


def test_a_file_without_settings_of_the_environment_has_their_defaults(tmp_path: Path) -> None:
    """Configurations of earlier versions have no settings of the environment."""
    values = parse("tmaze", []).config.to_dict()
    del values["env"]
    assert config_from_dict(values) == parse("tmaze", []).config


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


def test_a_file_is_the_base_and_options_change_it(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    base = parse("tmaze", ["--model_mode=DTXL", "--model.d_model=32"]).config
    path.write_text(yaml.safe_dump(base.to_dict()), encoding="utf-8")
    assert parse("tmaze", [f"--config={path}"]).config == base
    changed = parse("tmaze", ["--config", str(path), "--seed", "7"]).config
    assert changed.training.seed == 7
    assert changed.model == base.model
    assert changed.name == "dtxl"


def test_resume_takes_the_settings_of_the_run(tmp_path: Path) -> None:
    base = parse("tmaze", ["--model_mode=RMT", "--seed=4"]).config
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(base.to_dict()), encoding="utf-8")
    command = parse("tmaze", ["--resume", str(tmp_path), "--training.max_steps=900"])
    assert command.resume == tmp_path
    assert command.config.training.max_steps == 900
    assert command.config.model == base.model


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


ONE_BIT = "--arch_mode TrXL --ckpt_folder X --text 'my comment' --mrv_act"
PUBLIC_COMMANDS = [
    f"--model_mode RATE {ONE_BIT} relu --nmt 5 --mem_len 300 --n_head_ca 2 --skip_dec_attn",
    f"--model_mode RATE {ONE_BIT} no_act --nmt 5 --mem_len 0 --n_head_ca 0",
    f"--model_mode RATE {ONE_BIT} no_act --nmt 0 --mem_len 270 --n_head_ca 0",
    f"--model_mode DT {ONE_BIT} no_act --nmt 0 --mem_len 0 --n_head_ca 0",
]


@pytest.mark.parametrize("environment", ["retrieval", "minigrid", "vizdoom", "memory_maze"])
@pytest.mark.parametrize("command", PUBLIC_COMMANDS)
def test_the_public_commands_of_each_environment_are_understood(
    environment: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.environment.find_spec", lambda name: name)
    if environment == "memory_maze" and find_spec("memory_maze") is None:
        pytest.skip("Memory Maze is not installed, which asks for its packages when it is made")
    config = parse(environment, shlex.split(command)).config
    assert config.run_name == f"{environment}-X-1"
    assert config.logging.comment == "my comment"
    assert config.model.block == "trxl"
    memory = getattr(config.model, "num_memory_tokens", 0)
    assert memory == (5 if "--nmt 5" in command else 0)


def test_hints_name_existing_options() -> None:
    """Every name in a hint is an option, a flag or a setting of a file."""
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as text:
        parse("popgym", ["--help"])
    assert "--model.d_model" in text.getvalue()
    for option in re.findall(r"--[a-z_.A-Z0-9]+", " ".join(USUAL.values())):
        if option != "--seeds":  # of scripts/study.py
            assert f"{option} " in text.getvalue() or f"{option}=" in text.getvalue(), option
    assert not USUAL.keys() & FLAGS.keys()


@pytest.mark.parametrize(
    ("environment", "words", "preset", "there", "here"),
    [
        ("vizdoom", "--model_mode RATE --nmt 5 --mem_len 300", "rate", "K = 50, N = 3", "K = 15"),
        ("tmaze", "--nmt 5", "rate", "22,800 updates of 128 windows", "400 updates of 32"),
        ("tmaze", "--model_mode RATEM --nmt 5", "rmt", "45,000 updates", "(preset rmt)"),
        ("minigrid", "--model_mode TrXL --mem_len 90", "trxl", "K = 30, N = 3", "K = 10, N = 6"),
        ("retrieval", "--arch_mode TrXL", "rate", "21,150 updates", "K = 10, N = 9"),
    ],
)
def test_a_public_command_reports_what_the_public_code_trains(
    environment: str, words: str, preset: str, there: str, here: str, monkeypatch
) -> None:
    monkeypatch.setattr("trainers.environment.find_spec", lambda name: name)
    (note,) = (n for n in parse(environment, words.split()).notes if "public RATE code" in n)
    public, _, ours = note.partition("; here ")
    assert there in public
    assert here in ours
    assert note.endswith(f"--model_mode {preset}_published.")
    again = parse(environment, [*words.split(), f"--model_mode={preset}_published"]).notes
    assert not [n for n in again if "public RATE code" in n]


def test_a_variant_of_rate_in_the_public_code_is_named(monkeypatch) -> None:
    monkeypatch.setattr("trainers.environment.find_spec", lambda name: name)
    note = parse("retrieval", ["--model_mode", "RMT", "--nmt", "5"]).notes[-1]
    assert note.endswith("--model_mode rate_published --mem_len 0 --n_head_ca 0.")
    note = parse("retrieval", ["--model_mode", "DT", "--nmt", "0"]).notes[-1]
    assert note.endswith("What it has for this model is not known; for its RATE: rate_published.")
    assert parse("tmaze", ["--model_mode=RMT", "--seed=2"]).notes == []


def test_options_that_the_public_code_lacks_are_reported(monkeypatch) -> None:
    monkeypatch.setattr("trainers.environment.find_spec", lambda name: name)
    command = parse(
        "vizdoom", ["--n_head_ca", "128"]
    )  # its width is 128 here and 64 in the public code
    assert command.config.model.valve_heads == 128
    assert command.notes[-1].endswith("For its own settings: --model_mode rate_published.")


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
