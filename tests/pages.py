"""What a page of documentation tells a reader to type and to write, run in its order.

Blocks of `bash` are commands. A block of `python` or `yaml` whose first line is a comment with the
name of a file is that file; another block of `python` is run. Blocks without a language are not.
"""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from datamodules.public_data import find, recognise
from tests.datamodules.samples import write_d4rl
from trainers.commands.main import main as rate

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md"))]
# What is not run here, and why.
LEFT_OUT = {
    "make test": "these are the tests",
    "python scripts/download.py": "needs a network; the file is put where it would be",
}
SHORT = [
    *("--training.max_steps=2", "--training.batch_size=4", "--data.num_episodes=40"),
    *("--evaluation.lengths=9", "--evaluation.selection_lengths=9", "--evaluation.episodes=2"),
    *("--evaluation.every_n_steps=0", "--logging.progress=false", "--logging.tensorboard=false"),
]
SMALL_MODEL = ["--model.d_model=16", "--model.num_heads=1"]
# What each command needs besides the project, and the options that make it short.
SMALL: dict[str, tuple[tuple[str, ...], list[str]]] = {
    "make train": ((), [*SHORT, "--only", "rate", "--jobs=1"]),
    "plot.py": ((), []),
    "rate demo": ((), ["--episodes=2"]),
    "report.py": ((), ["--files-only"]),
    "rate report": ((), ["--episodes=3", "--steps=2"]),
    "train_tmaze.py": ((), SHORT),
    "rate train": ((), SHORT),
    "rate train --data data/d4rl": (("mujoco",), [*SHORT, "--model.d_model=16"]),
    "rate train mujoco": (("mujoco",), [*SHORT, *SMALL_MODEL]),
    "rate export": (("onnxscript",), []),
    "rate collect": ((), ["--data.num_episodes=40"]),
    "rate convert": ((), []),
    "rate validate": ((), []),
    "rate download --list": ((), []),
    "rate doctor": (("memory_maze",), []),  # it ends with 1 where an environment is missing
    "rate evaluate": ((), ["--episodes=2"]),
    "rate plot": ((), []),
    "rate study": ((), [*SHORT, "--seeds=1", "--jobs=1"]),
}


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    language: str
    text: str

    @property
    def file(self) -> str | None:
        """The file that a reader is to write it to, if its first line names one."""
        found = re.match(r"# (\S+\.(?:py|yaml))\n", self.text)
        return found[1] if found is not None and self.language != "bash" else None

    def commands(self) -> list[list[str]]:
        """The words of each command of a block of bash."""
        lines = self.text.replace("\\\n", " ").splitlines()
        return [words for line in lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page in their order; what is included from a file is a file's test."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        if '--8<-- "' not in found[2]:
            yield Block(found[1], found[2])


def included(page: Path) -> list[str]:
    """The files that a page shows whole."""
    return re.findall(r'--8<-- "(.+?)"', page.read_text(encoding="utf-8"))


def is_left_out(words: list[str]) -> bool:
    return any(" ".join(words).startswith(start) for start in LEFT_OUT)


def shortened(words: list[str]) -> tuple[tuple[str, ...], list[str]] | None:
    """What a command needs, and the command with what makes it short; None of an unknown one."""
    command = " ".join(words if words[0] in ("rate", "make") else [Path(words[1]).name, *words[2:]])
    matching = [name for name in SMALL if command.startswith(name)]
    if not matching:
        return None
    needs, options = SMALL[max(matching, key=len)]
    names = {word.partition("=")[0] for word in words}
    return needs, [*words, *(each for each in options if each.partition("=")[0] not in names)]


def make_clone(folder: Path) -> None:
    """What the commands of pages look for in a clone."""
    shutil.copytree(ROOT / "scripts", folder / "scripts", ignore=shutil.ignore_patterns("__pyc*"))
    shutil.copytree(ROOT / "data" / "results", folder / "data" / "results")
    (remote,) = find(recognise("hopper-medium-v2"))  # as if it had been downloaded
    (folder / "data" / remote.path).parent.mkdir(parents=True)
    write_d4rl(folder / "data" / remote.path, lengths=(40, 60, 50))


def run_page(page: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Do in the working folder what a page says; returns the commands that lack a package."""
    missing: set[str] = set()
    monkeypatch.syspath_prepend(str(Path.cwd()))
    for block in blocks(page):
        if block.file is not None:
            Path(block.file).parent.mkdir(parents=True, exist_ok=True)
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            short = block.text.replace("steps=200", "steps=2").replace("episodes=20", "episodes=2")
            Path("snippet.py").write_text(short, encoding="utf-8")
            runpy.run_path("snippet.py", run_name="__main__")
        elif block.language == "bash":
            for words in block.commands():
                if not is_left_out(words):
                    _run(words, missing, monkeypatch)
    return missing


def _run(words: list[str], missing: set[str], monkeypatch: pytest.MonkeyPatch) -> None:
    needs, words = shortened(words) or pytest.fail(f"{words} is not known here")
    if any(find_spec(package) is None for package in needs):
        missing.add(" ".join(words))
        return
    if words[0] == "make":
        words = ["python", *_recipe(words[1]), *words[2:]]
    program, *given = words if words[0] == "rate" else words[1:]
    monkeypatch.setattr(sys, "argv", [program, *given])
    try:
        if program == "rate":
            rate()
        else:
            runpy.run_path(program, run_name="__main__")
    except SystemExit as ended:
        if ended.code:
            pytest.fail(" ".join(words))


def _recipe(target: str) -> list[str]:
    """The script, with its first word, that a target of the Makefile runs in the environment."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    found = re.search(rf"^{target}:.*\n\t@\$\(RUN\) (\S+) (\S+) \$\(ARGS\)", text, re.M)
    assert found is not None
    return [found[1], found[2]]
