"""Commands with closed or full output streams, and encodings that lack characters."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from trainers.commands.console import show_scores, user_errors
from trainers.commands.streams import Stream, prepare_streams

COMMAND = """
import sys
from pathlib import Path
from trainers.commands.console import user_errors

with user_errors():
    for line in range(20000):
        print("scores 0.98 ± 0.01 – done…")
        print("progress", file=sys.stderr)
    file = open(sys.argv[1], "wb")  # must not get the number of a stream that is closed
    assert file.fileno() > 2
    file.write(b"whole")
    file.close()
"""
posix = pytest.mark.skipif(os.name != "posix", reason="needs a shell")


def run(shell: str, place: Path, encoding: str = "utf-8") -> tuple[int, str]:
    """Runs the command with a shell's redirections; returns its exit code and its output."""
    script = place / "command.py"
    script.write_text(COMMAND, encoding="utf-8")
    words = f"{sys.executable} {script} {place / 'made'}"
    done = subprocess.run(
        ["bash", "-c", shell.format(words)],
        capture_output=True,
        encoding="latin-1",
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONIOENCODING": encoding},
    )
    return done.returncode, done.stdout + done.stderr


@posix
@pytest.mark.parametrize(
    ("shell", "code"),
    [
        ("{} >&- 2>&-", 0),
        ("{} <&- >&- 2>/dev/null", 0),
        ("{} 2>/dev/null | head -1; exit ${{PIPESTATUS[0]}}", 141),
        ("{} 2>&1 >/dev/null | head -1; exit ${{PIPESTATUS[0]}}", 0),
    ],
)
def test_a_command_finishes_with_closed_streams(tmp_path: Path, shell: str, code: int) -> None:
    found, said = run(shell, tmp_path)
    assert found == code, said
    assert "Traceback" not in said
    assert (tmp_path / "made").read_bytes() == b"whole"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_to_a_full_disk_is_a_one_line_error_at_the_end(tmp_path: Path) -> None:
    code, said = run("{} 2>&1 >/dev/full | grep -v progress; exit ${{PIPESTATUS[0]}}", tmp_path)
    assert code == 1
    assert said.splitlines() == [
        "error: what this printed could not be written (No space left on device)"
    ]
    assert (tmp_path / "made").read_bytes() == b"whole"


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1:strict"])
def test_characters_that_an_encoding_lacks_are_replaced(tmp_path: Path, encoding: str) -> None:
    code, said = run("{} 2>/dev/null | head -1", tmp_path, encoding)
    plus = "+/-" if encoding == "ascii" else "±"
    assert (code, said) == (0, f"scores 0.98 {plus} 0.01 - done...\n")


def test_scores_of_a_study_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    raw = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(raw, encoding="ascii"))
    known = {"environment": "tmaze", "model": "modèle", "which": "last", "episodes": 10}
    rows = [
        {**known, "seed": seed, "length": 90, "success": seed / 2, "return": 1.0} for seed in (1, 2)
    ]
    with user_errors():
        show_scores(rows, Console())
    sys.stdout.flush()
    assert "0.75 +/- 0.35" in raw.getvalue().decode("ascii")
    assert "mod?le" in raw.getvalue().decode("ascii")


def test_a_stream_is_prepared_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    prepare_streams()
    prepared = sys.stdout
    assert isinstance(prepared, Stream)
    prepare_streams()
    assert sys.stdout is prepared
