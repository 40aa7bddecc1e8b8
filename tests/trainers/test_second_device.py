"""Training and acting on a device other than the CPU, in a separate process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

from tests.processes import PATIENCE

CHECKS = Path(__file__).with_name("second_device_checks.py")


@pytest.mark.slow
@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this PyTorch knows no devices written in Python",
)
@pytest.mark.parametrize(
    "what",
    ["gradients", *(pytest.param(name, marks=pytest.mark.long) for name in ("acting", "run"))],
)
def test_another_device_gives_equal_results_without_synchronisation(what: str) -> None:
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", "-k", what]
    command = [sys.executable, "-m", "pytest", str(CHECKS), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
