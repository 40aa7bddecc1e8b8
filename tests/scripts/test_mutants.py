"""Mutations are valid Python and sampled with a seed; the checkout is not changed."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts import mutants
from scripts.mutants import find_tests, main, mutations, sample_mutations, source_files

SOURCE = '''"""A module."""

LIMIT = 1 << 4


def clip(value: int = 3, names: tuple[int, ...] = ()) -> int:
    """What is at most LIMIT."""
    if value > LIMIT or value in names:
        raise ValueError(f"{value + 1} is more than 16")
    total = max(value, 0)
    total += 1
    print("ä", total)
    return total - 1 if value else 0
'''
TESTS = """from rate.clip import LIMIT, clip


def test_clip():
    assert LIMIT == 16
    assert [clip(n) for n in (-2, 0, 3)] == [0, 0, 3]
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with one module and its test."""
    for name, text in (("rate/clip.py", SOURCE), ("tests/rate/test_clip.py", TESTS)):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "rate" / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\nmarkers = ["slow"]\n')
    monkeypatch.setattr(mutants, "ROOT", tmp_path)
    return tmp_path


def test_every_mutation_is_a_different_valid_module() -> None:
    every = mutations(Path("rate/clip.py"), SOURCE)
    texts = {each.apply(SOURCE.encode()).decode() for each in every}
    assert len(texts) == len(every) >= 14
    assert SOURCE not in texts
    for text in texts:
        ast.parse(text)
    changes = {str(each).partition(": ")[2] for each in every}
    assert "1 << 4 -> (1) >> (4)" in changes
    assert "value > LIMIT -> value >= LIMIT" in changes
    assert "value in names -> value not in names" in changes
    assert "value > LIMIT or value in names -> (value > LIMIT) and (value in names)" in changes
    assert "max -> min" in changes
    assert "total += 1 -> pass" in changes
    assert 'print("ä", total) -> pass' in changes
    assert "value -> not (value)" in changes
    assert not [text for text in changes if "int" in text.split() or "is more than" in text]


@pytest.mark.parametrize("path", source_files([])[::40], ids=str)
def test_our_own_files_have_valid_mutations(path: Path) -> None:
    text = (mutants.ROOT / path).read_text(encoding="utf-8")
    for mutation in mutations(path, text)[::7]:
        ast.parse(mutation.apply(text.encode()))


def test_the_same_seed_samples_the_same_mutations(project: Path) -> None:
    files = source_files([])
    assert sample_mutations(files, 5, 1) == sample_mutations(files, 5, 1)
    assert len({tuple(sample_mutations(files, 5, seed)) for seed in range(5)}) > 1
    assert len(sample_mutations(files, 1000, 1)) == len(mutations(Path("rate/clip.py"), SOURCE))


def test_the_tests_of_a_file_have_its_name_or_name_its_module() -> None:
    root = mutants.ROOT
    assert find_tests(Path("trainers/flags.py"), root) == ["tests/trainers/test_flags.py"]
    assert "tests/rate/test_policy.py" in find_tests(Path("rate/policy.py"), root)
    named = find_tests(Path("trainers/config_learning.py"), root)
    assert "tests/trainers/test_training.py" in named
    for path in source_files([])[::9]:
        assert find_tests(path, root), path


def test_surviving_mutations_are_printed(
    project: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., str]
) -> None:
    before = {path: path.read_bytes() for path in project.rglob("*.py")}
    main(["--count", "4", "--seed", "3", "--jobs", "2"])
    lines = capsys.readouterr().out.splitlines()
    words = {line.partition("rate/clip.py")[2]: line.split()[1] for line in lines[:-1]}
    assert set(words.values()) == {"LIVES", "dies"}
    living = sum(word == "LIVES" for word in words.values())
    assert lines[-1] == f"{living} of 4 mutations live (seed 3)."
    assert {path: path.read_bytes() for path in project.rglob("*.py")} == before

    (project / "tests/rate/test_clip.py").write_text("def test(): assert False\n")
    main(["--count", "1"])
    assert "unknown" in capsys.readouterr().out
    assert "not a source file of rate, " in error_of(main, ["--only", "rate/klip.py"])
