"""A run that is killed before or after its k-th file operation is resumed by its command."""

from __future__ import annotations

import builtins
import io
import os
import shutil
import signal
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.trainers.conftest import MakeConfig
from tests.trainers.test_resume import same_run
from trainers.config import RunConfig
from trainers.runs import has_trained, run_folder
from trainers.train import train

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def count_operations(below: Path, on_operation: Callable[[], None]) -> None:
    """Calls `on_operation` before and after every file operation below a folder, from now on."""

    def wrap(owner: Any, name: str) -> None:
        call = getattr(owner, name)

        def counted(*arguments: Any, **how: Any) -> Any:
            mode = str(arguments[1:2] or how.get("mode", ""))
            path = arguments[0] if arguments else ""
            if isinstance(path, int):
                path = Path(f"/proc/self/fd/{path}").resolve()
            if not str(path).startswith(str(below)) or (name == "open" and "r" in (mode or "r")):
                return call(*arguments, **how)
            on_operation()
            result = call(*arguments, **how)
            on_operation()
            return result

        setattr(owner, name, counted)

    for name in ("replace", "hardlink_to", "mkdir", "unlink"):
        wrap(Path, name)
    for owner, name in ((os, "fsync"), (shutil, "rmtree"), (io, "open"), (builtins, "open")):
        wrap(owner, name)


def in_a_process(work: Callable[[], None]) -> int:
    """Runs `work` in a fork of this process; returns the status of `waitpid`."""
    process = os.fork()
    if process:
        return os.waitpid(process, 0)[1]
    code = 1
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001 (the fork must not continue the test)
        traceback.print_exc()
    finally:
        os._exit(code)


def run_until(config: RunConfig, last: int, seen: Path) -> int:
    """Trains in a process that is killed at its `last`-th operation; writes the count to `seen`."""
    done = 0

    def operation() -> None:
        nonlocal done
        done += 1
        if done == last:
            os.kill(os.getpid(), signal.SIGKILL)

    def work() -> None:
        count_operations(Path(config.logging.output), operation)
        train(config)
        os.write(os.open(seen, os.O_WRONLY | os.O_CREAT), str(done).encode())

    return in_a_process(work)


_ALL = pytest.param(1, marks=[pytest.mark.long, pytest.mark.timeout(3000)])


@pytest.mark.parametrize("every", [29, _ALL])
def test_the_same_command_resumes_a_run_killed_at_any_operation(
    make_config: MakeConfig, tmp_path: Path, every: int
) -> None:
    settings = {
        "training__max_steps": 2,
        "training__checkpoint_every_n_steps": 1,
        "training__log_every_n_steps": 1,
        "evaluation__every_n_steps": 1,
    }
    whole = train(make_config(logging__name="whole", **settings)).folder
    assert run_until(make_config(logging__name="counted", **settings), 0, tmp_path / "seen") == 0
    operations = int((tmp_path / "seen").read_text())
    assert operations > 60
    for last in range(1, operations + 1, every):
        config = make_config(logging__name=f"killed{last}", **settings)
        assert run_until(config, last, tmp_path / "seen") == signal.SIGKILL
        resume = "auto" if has_trained(run_folder(config)) else None
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            folder = train(config, resume=resume).folder  # type: ignore[arg-type]
        same_run(whole, folder)
        for file in ("last/model.json", "best/model.safetensors", "best/model.json"):
            mine, theirs = (run / "checkpoints" / file for run in (folder, whole))
            assert mine.read_bytes() == theirs.read_bytes()
        assert not list(folder.rglob("*.tmp-*"))
