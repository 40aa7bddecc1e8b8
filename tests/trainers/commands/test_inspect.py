"""`rate inspect` prints and plots the memory of a model, or names the reason why it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from trainers.commands.inspect import NOISE, main

Trained = Callable[[str], Path]


def test_memory_is_printed_and_plotted(
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "60")  # names wrap, and numbers stay
    figure, size = tmp_path / "deeper" / "memory.png", ["--length", "80", "--episodes", "3"]
    main([str(trained("rate")), str(trained("rmt")), "-o", str(figure), *size])
    layers = [figure.with_name(f"memory-tmaze-{name}-1.png") for name in ("rate", "rmt")]
    for path in (figure, *layers):
        assert path.read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert len(re.findall(r"\d\.\d\d ", output)) > 20
    for words in ("drift", "rank", f"±{NOISE[0]}", "of 80 steps"):
        assert words in output


@pytest.mark.parametrize(
    ("mode", "part", "length"),
    [
        pytest.param("dt", None, 720, marks=pytest.mark.long),
        ("trxl", "cache", 90),
        ("lstm", "hidden", 90),
    ],
)
def test_every_backbone_can_be_inspected(
    mode: str,
    part: str | None,
    length: int,
    trained: Trained,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    figure = tmp_path / "memory.png"
    monkeypatch.setenv("COLUMNS", "100")
    main([str(trained(mode)), "-o", str(figure), "--length", str(length), "--episodes", "6"])
    assert figure.read_bytes().startswith(b"\x89PNG")
    output = capsys.readouterr().out
    assert "first observation 1" in output  # the clue
    assert "features" in output
    assert ("drift" in output) == (part is not None)
    if part is not None:
        assert part in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--length", "2"], "--length has 2: T-Maze length 2"),
        (["--length", "79"], "is less than 8 segments of"),
        (["--length", "79"], "give at least 80"),
        (["--length", "x"], "'x' is no whole number"),
        (["--episodes", "0"], "'0' is no whole number of at least 1"),
    ],
)
def test_an_invalid_option_is_refused(
    options: list[str], message: str, trained: Trained, error_of: Callable[..., str]
) -> None:
    assert message in error_of(main, [str(trained("rate")), *options])


def test_a_folder_without_a_run_is_refused(tmp_path: Path, error_of: Callable[..., str]) -> None:
    assert f"{tmp_path}" in error_of(main, [str(tmp_path)])
