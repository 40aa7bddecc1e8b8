"""The command `rate`: its subcommands, its help, and its immediate errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rate import advice
from scripts import bootstrap
from trainers.commands import main as rate
from trainers.commands.console import as_typed_here, program, typed

ROOT = Path(__file__).parents[3]


def call(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/rate", *words])
    with pytest.raises(SystemExit) as ended:
        rate.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_help_lists_the_commands_without_slow_imports() -> None:
    probe = (
        "import sys; sys.argv = ['rate']; from trainers.commands.main import main; main(); "
        "slow = {'torch', 'lightning', 'matplotlib', 'gymnasium', 'numpy'}; "
        "print(sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    *text, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    assert text[0] == "usage: rate COMMAND [...]"
    assert [line.split()[0] for line in text if line.startswith("  ")] == list(rate.COMMANDS)


def test_every_command_has_a_script_and_a_description(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in rate.COMMANDS:
        script = "inspect_memory" if name == "inspect" else name
        assert f'run("{name}")' in (ROOT / "scripts" / f"{script}.py").read_text(encoding="utf-8")
        assert call(monkeypatch, name, "--help") == 0
        assert capsys.readouterr().out.startswith(f"usage: rate {name} ")


def test_an_unknown_command_is_refused_with_the_nearest(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(monkeypatch, "trian") == 2
    assert "there is no command trian. Did you mean train?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["evaluate", "run", "--episode", "3"], "--episodes"),
        (["plot", "run", "--markdow"], "--markdown"),
        (["convert", "a", "b", "--skip_bad"], "--skip-bad"),
        (["validate", "a", "--mapp=x=y"], "--map"),
        (["doctor", "--jsn=x"], "--json"),
    ],
)
def test_an_unknown_option_is_refused_with_the_nearest(
    words: list[str],
    near: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call(monkeypatch, *words) == 2
    assert f"Did you mean {near}?" in capsys.readouterr().err


def test_a_missing_package_is_a_one_line_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "trainers.commands.plot", None)
    with pytest.raises(ModuleNotFoundError):  # one of the project's own modules: a bug
        rate.run("plot", [])
    monkeypatch.delitem(sys.modules, "trainers.commands.plot")
    monkeypatch.setitem(sys.modules, "rich.console", None)
    monkeypatch.delitem(sys.modules, "trainers.commands.doctor", raising=False)
    with pytest.raises(SystemExit, match=r"has no rich\.console.* -m pip install"):
        rate.run("doctor", [])


def test_usage_names_the_command_as_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/venv/bin/rate", "train", "tmaze", "--seed", "2"])
    assert program("train") == "rate train"
    assert typed(["tmaze", "--seed", "2"]) == "/venv/bin/rate train tmaze --seed 2"
    monkeypatch.setattr(sys, "argv", ["scripts/train_tmaze.py", "--seed", "2"])
    assert program("train") == "train_tmaze.py"
    assert typed(["--seed", "2"]) == "scripts/train_tmaze.py --seed 2"


def test_messages_name_commands_that_work_in_the_installation(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    assert advice.command("doctor", "trainer") == "python scripts/doctor.py trainer"
    assert advice.command("train", "tmaze", "--seed", "2") == (
        "python scripts/train_tmaze.py --seed 2"
    )
    assert advice.command("train", "--data", "x y") == "python scripts/train.py --data 'x y'"
    assert advice.command("inspect", "run") == "python scripts/inspect_memory.py run"
    assert as_typed_here("A text.\n\n    rate collect minigrid --a 1\n") == (
        "A text.\n\n    python scripts/collect.py minigrid --a 1\n"
    )
    (tmp_path / "scripts").mkdir()  # a user's own
    (tmp_path / "scripts" / "doctor.py").touch()
    monkeypatch.chdir(tmp_path)
    assert advice.command("doctor") == "rate doctor"
    assert advice.command("train", "tmaze") == "rate train tmaze"
    assert advice.install("vizdoom").endswith(' -m pip install "rate-trainer[vizdoom]"')
    assert as_typed_here("    rate train tmaze --seed 2") == "    rate train tmaze --seed 2"
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert advice.command("doctor") == "rate doctor"


def test_the_stamp_is_that_of_make_install() -> None:
    assert advice.STAMP == bootstrap.STAMP


def test_messages_name_commands_through_advice() -> None:
    """Commands in messages come from `rate.advice`, which knows the installation."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}"
        for package in ("rate", "datamodules", "trainers")
        for path in (ROOT / package).rglob("*.py")
        if path.name != "advice.py"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if "scripts/" in line or "make install" in line or "make doctor" in line
    ]
    assert wrong == []
