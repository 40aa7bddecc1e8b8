"""The train script: public flags, help, and wrong options."""

from __future__ import annotations

import shlex
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from trainers.cli import parse
from trainers.commands.train import train_on
from trainers.preset_files import preset_names

ROOT = Path(__file__).parents[3]
# The T-Maze commands of the public RATE code's README, word for word after the script's path, and
# what they mean: preset, K, N, memory tokens, cache length, valve and its heads, activation,
# whether feed-forward layers are left out, whether there is a curriculum.
PUBLIC: list[tuple[str, tuple[Any, ...]]] = [
    (
        "--model_mode 'RATE' --arch_mode 'TrXL' --curr 'false' --ckpt_folder 'RATE_max_3' "
        "--max_n_final 3 --text 'RATE_max_3' --nmt 5 --mem_len 0 --n_head_ca 4 --mrv_act 'relu' "
        "--skip_dec_attn",
        ("rate", 30, 3, 5, 0, "cross_attention", 4, "relu", True, False),
    ),
    (
        "--model_mode 'DT' --arch_mode 'TrXL' --curr 'false' --ckpt_folder 'DT' --max_n_final 3 "
        "--text 'DT_max_3' --nmt 0 --mem_len 0 --n_head_ca 0 --mrv_act 'no_act'",
        ("dt_relative", 90, 1, 0, 0, "none", None, "none", False, False),
    ),
    (
        "--model_mode 'RATE' --arch_mode 'TrXL' --curr 'false' --ckpt_folder 'RMT_max_3' "
        "--max_n_final 3 --text 'RMT_max_3' --nmt 5 --mem_len 0 --n_head_ca 0 --mrv_act 'no_act'",
        ("rate", 30, 3, 5, 0, "none", None, "none", False, False),
    ),
    (
        "--model_mode 'RATE' --arch_mode 'TrXL' --curr 'false' --ckpt_folder 'TrXL_max_3' "
        "--max_n_final 3 --text 'TrXL_max_3' --nmt 0 --mem_len 270 --n_head_ca 0 "
        "--mrv_act 'no_act'",
        ("rate", 30, 3, 0, 270, "none", None, "none", False, False),
    ),
    (
        "--model_mode 'RATE' --arch_mode 'TrXL' --curr 'true' --ckpt_folder 'RATE_max_3' "
        "--max_n_final 3 --text 'my_comment' --nmt 5 --mem_len 0 --n_head_ca 4 --mrv_act 'relu' "
        "--skip_dec_attn",
        ("rate", 30, 3, 5, 0, "cross_attention", 4, "relu", True, True),
    ),
]


@pytest.mark.parametrize(("command", "meaning"), PUBLIC)
def test_a_public_command_has_its_public_settings(command: str, meaning: tuple[Any, ...]) -> None:
    config = parse("tmaze", shlex.split(command)).config
    none = {"num_memory_tokens": 0, "cache_length": 0, "valve": "none", "valve_activation": "none"}
    model = {**none, **asdict(config.model)}  # a window has no memory
    heads = None if model["valve"] == "none" else model["valve_heads"]
    assert meaning == (
        config.name,
        model["context_length"],
        config.training.segments,
        model["num_memory_tokens"],
        model["cache_length"],
        model["valve"],
        heads,
        model["valve_activation"],
        model["skip_ffn"],
        config.curriculum.enabled,
    )
    assert model["block"] == "trxl"
    assert config.max_length == 90
    words = shlex.split(command)
    assert config.run_name == f"tmaze-{words[words.index('--ckpt_folder') + 1]}-1"
    assert config.logging.comment == words[words.index("--text") + 1]


@pytest.mark.parametrize("command", [command for command, _ in PUBLIC])
def test_a_public_command_runs(
    command: str, short: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train_on("tmaze", [*shlex.split(command), f"--logging.output={tmp_path}", *short])
    words = shlex.split(command)
    folder = tmp_path / f"tmaze-{words[words.index('--ckpt_folder') + 1]}-1"
    assert (folder / "evaluation.json").is_file()
    output = capsys.readouterr().out
    assert "Success rate by episode length" in output
    assert "note: K is 30" in output
    assert ("never implemented" in output) == ("--skip_dec_attn" in command)
    typed = (folder / "environment.txt").read_text(encoding="utf-8").splitlines()[0]
    assert "--arch_mode TrXL" in typed


def test_help_lists_flags_options_and_the_presets_defaults() -> None:
    def show(*options: str) -> str:
        script = [sys.executable, "scripts/train_tmaze.py", *options, "--help"]
        done = subprocess.run(script, cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stderr == ""
        return " ".join(done.stdout.split())

    rate, dt = show(), show("--model_mode", "DT")
    assert f"Presets: {', '.join(preset_names('tmaze'))}" in rate
    for words in ("--nmt model.num_memory_tokens", "--skip_dec_attn", "--max_n_final", "--curr"):
        assert words in rate
    assert "memory tokens read and written by each segment (`--nmt`). (default: 5)" in rate
    assert "memory tokens" not in dt.partition("--optimizer")[0]
    assert "memory tokens read and written by each segment (`--nmt`). (default: 0)" in show(
        "--model_mode", "TrXL"
    )
    assert "those of 'dt'" in dt


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--model.dmodel 3", "Did you mean --model.d_model?"),
        ("--model.num_heads 5", "does not divide"),
        ("--model_mode RAET", "Did you mean rate?"),
        ("--resume nowhere", "nowhere holds no run"),
    ],
)
def test_a_wrong_command_fails_before_torch_is_imported(options: str, message: str) -> None:
    """The error comes within a second, because no slow package is imported."""
    program = (
        "import runpy, sys\n"
        "try:\n    runpy.run_path('scripts/train_tmaze.py', run_name='__main__')\n"
        "finally:\n    print(sorted({'torch', 'lightning', 'matplotlib'} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == "[]\n"
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
