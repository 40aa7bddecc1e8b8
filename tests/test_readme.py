"""README's commands, one after another in one copy of the project, with small budgets."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from datamodules.public_data import find, recognise
from tests.datamodules.samples import write_d4rl
from trainers.commands.main import main as rate

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
# What is not run here, and why.
LEFT_OUT = {
    "make test": "these are the tests",
    "python scripts/download.py": "needs a network; the file is put where it would be",
    "python scripts/benchmark.py": "takes minutes, and has tests of its own",
}
SHORT = [
    *("--training.max_steps=2", "--training.batch_size=4", "--data.num_episodes=40"),
    *("--evaluation.lengths=9", "--evaluation.selection_lengths=9", "--evaluation.episodes=2"),
    *("--evaluation.every_n_steps=0", "--logging.progress=false", "--logging.tensorboard=false"),
]
SMALL_MODEL = ["--model.d_model=16", "--model.num_heads=1", "--model.valve_heads=1"]
# What each needs besides the project, and the options that make it short.
SMALL: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "make train": ((), [*SHORT, "--only", "rate", "--jobs=1"]),
    "study.py": (("minigrid",), [*SHORT, "--only", "rate", "--seeds=1", "--jobs=1"]),
    "collect.py": (
        ("vizdoom",),
        ["--data.num_episodes=2", "--data.max_length=90", "--data.workers=1"],
    ),
    "plot.py": ((), []),
    "video.py": (("minigrid",), ["--length=9"]),
    "convert.py": ((), []),
    "validate.py": ((), []),
    "train_tmaze.py": ((), SHORT),
    "rate train": (("mujoco",), [*SHORT, "--model.d_model=16"]),
    "train_mujoco.py": (("mujoco",), [*SHORT, *SMALL_MODEL, "--model_mode=RATE_quick"]),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def own_files() -> dict[str, str]:
    """What README tells a reader to write, by the path that its first line names."""
    named = {block.partition("\n")[0]: block for block in blocks("python")}
    return {line[2:]: block for line, block in named.items() if re.fullmatch(r"# \S+\.py", line)}


def commands() -> list[list[str]]:
    """The words of every command in README, in their order."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def name_of(words: list[str]) -> str:
    return " ".join(words[:2]) if words[0] in ("make", "rate") else Path(words[1]).name


def recipe(target: str) -> list[str]:
    """The command that a target of the Makefile runs in the environment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n\t@\$\(RUN\) (\S+) (\S+) \$\(ARGS\)", text, re.M)
    assert found is not None
    return ["python", found[1], found[2]]


def test_every_command_is_run_or_left_out_for_a_reason() -> None:
    for words in commands():
        left_out = any(" ".join(words).startswith(start) for start in LEFT_OUT)
        assert (name_of(words) in SMALL) != left_out, words
    assert len(commands()) > 15


@pytest.mark.slow
def test_the_commands_work_in_their_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """None refuses what another one has made, and each finds what those before it leave."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "scripts", clone / "scripts", ignore=shutil.ignore_patterns("__pyc*"))
    shutil.copytree(ROOT / "data" / "results", clone / "data" / "results")
    monkeypatch.chdir(clone)
    (remote,) = find(recognise("hopper-medium-v2"))  # as if download.py had run
    (clone / "data" / remote.path).parent.mkdir(parents=True)
    write_d4rl(clone / "data" / remote.path, lengths=(40, 60, 50))
    for path, block in own_files().items():
        (clone / path).parent.mkdir()
        (clone / path).write_text(block, encoding="utf-8")
    missing = set()
    for words in commands():
        name = name_of(words)
        needs, options = SMALL.get(name, ((), []))
        if name not in SMALL or any(find_spec(package) is None for package in needs):
            missing.add(name)
            continue
        if name == "video.py" and "study.py" in missing:
            continue
        script, *given = (recipe("train") if name == "make train" else words)[1:]
        monkeypatch.setattr(sys, "argv", [script, *given, *options])
        try:
            if words[0] == "rate":
                monkeypatch.setattr(sys, "argv", [*words, *options])
                rate()
            else:
                runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            if ended.code:
                pytest.fail(f"{' '.join(words)}: {capsys.readouterr().err}")
    for block in (block for block in blocks("python") if block not in own_files().values()):
        short = block.replace("steps=200", "steps=2").replace("episodes=20", "episodes=2")
        (clone / "snippet.py").write_text(short, encoding="utf-8")
        runpy.run_path("snippet.py", run_name="__main__")
    runs = {path.name for path in (clone / "runs").iterdir()}
    assert {"quickstart", "tmaze-rmt-2", "tmaze-gated-1", "tmaze-rate-gtrxl-1"} <= runs
    assert {"tmaze-rate-3", "tmaze-tuned-1", "tmaze-again-2"} <= runs
    assert {"tmaze-rate-gru-1", "tmaze-rate-Leaky-1", "snippet-Masked-rate-1"} <= runs
    assert not [name for name in runs if re.search(r"-run\d+$", name)]  # no two of one name
    assert (clone / "learning.png").is_file()
