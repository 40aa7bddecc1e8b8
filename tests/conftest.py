"""What every test shares: one thread, a fixed seed, and Ctrl+C."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from rate.stopping import SIGNALS

torch.set_num_threads(1)
# What tests name is not remembered for the person who runs them.
os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="states-")
# A shell has what it starts in the background ignore it, and so would all that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """An option of `tests/faults/test_fuzz.py`."""
    parser.addoption(
        "--fuzz-minutes",
        type=float,
        default=0.0,
        help="read files that are changed at random for so long, over all formats",
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs an NVIDIA GPU"))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Torch starts every test from the same random state, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    """A command that ends in this process has signals ignored, and so would all started later."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


@pytest.fixture
def common() -> Iterator[Path]:
    """A folder that every user can enter, which pytest's own is not."""
    folder = Path(tempfile.mkdtemp(prefix="common-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def error_of(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call a command that must be refused; returns its message, checked to be for people."""

    def call(main: Callable[..., None], *arguments: object, code: int = 2) -> str:
        with pytest.raises(SystemExit) as ended:
            main(*arguments)
        error = capsys.readouterr().err
        assert ended.value.code == code
        assert "Traceback" not in error
        assert "error: " in error
        return error

    return call
