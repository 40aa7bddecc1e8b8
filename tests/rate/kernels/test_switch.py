"""One switch turns all kernels off."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from rate import kernels
from rate.kernels.cpu_attention import QUERIES
from rate.kernels.cpu_dropout import Dropout
from rate.nn.attention import Attention

PRINT = "import torch; from rate import kernels; print(kernels.apply_to(torch.zeros(1)))"


@pytest.mark.parametrize(("value", "applies"), [(None, True), ("on", True), ("off", False)])
def test_the_environment_turns_kernels_off(value: str | None, applies: bool) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    environment.pop("RATE_KERNELS", None)
    if value is not None:
        environment["RATE_KERNELS"] = value
    command = [sys.executable, "-c", PRINT]
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == str(applies)


def test_layers_without_kernels_are_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    attention, x = Attention(8, 2, 4), torch.randn(2, QUERIES + 1, 8)
    assert attention._in_blocks(x)
    monkeypatch.setattr(kernels, "_ENABLED", False)
    assert not attention._in_blocks(x)
    torch.manual_seed(0)
    dropped = Dropout(0.3).train()(x)
    torch.manual_seed(0)
    assert torch.equal(dropped, torch.nn.functional.dropout(x, 0.3))
