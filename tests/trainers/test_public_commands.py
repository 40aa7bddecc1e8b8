"""Command lines of the public RATE code."""

from __future__ import annotations

import shlex
from importlib.util import find_spec

import pytest

from trainers.cli import parse

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
