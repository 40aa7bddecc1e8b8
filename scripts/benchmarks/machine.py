"""The limits of the machine: rates of matrix products and of copies."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

import torch

from rate.config import ModelConfig
from rate.envs.spec import EnvironmentSpec
from rate.model import SequenceModel
from scripts.benchmarks.data import random_batch
from scripts.benchmarks.timing import time_calls


@dataclass(frozen=True)
class Machine:
    """The limits of a device, as measured.

    Attributes:
        device: The device.
        name: Its name.
        float32: Rate of a large matrix product in float32, FLOP/s.
        bfloat16: The same in bfloat16.
        copy: Bytes per second that a large copy reads and writes.
    """

    device: torch.device
    name: str
    float32: float
    bfloat16: float
    copy: float

    def matrix_rate(self, precision: str) -> float:
        """Rate of matrix products in a precision, in Lightning's notation; FLOP/s."""
        return self.float32 if precision.startswith("32") else self.bfloat16

    def to_dict(self) -> dict[str, object]:
        return {
            "device": self.name,
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "float32_flops": self.float32,
            "bfloat16_flops": self.bfloat16,
            "copy_bytes_per_second": self.copy,
        }


def measure_machine(device: torch.device, budget: float) -> Machine:
    """Measures the limits of a device, in about `budget` seconds."""
    size = 8192 if device.type == "cuda" else 1024

    def rate(dtype: torch.dtype) -> float:
        left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        return 2 * size**3 / time_calls(lambda: left @ right, device, budget / 3).seconds

    float32, bfloat16 = rate(torch.float32), rate(torch.bfloat16)
    source = torch.zeros(
        2**30 if device.type == "cuda" else 2**27, dtype=torch.uint8, device=device
    )
    target = torch.empty_like(source)
    seconds = time_calls(lambda: target.copy_(source), device, budget / 3).seconds
    return Machine(device, device_name(device), float32, bfloat16, 2 * len(source) / seconds)


def device_name(device: torch.device) -> str:
    """Returns, for example, `NVIDIA H100 80GB HBM3`, or a processor with its threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, IndexError, StopIteration):
        pass
    return f"{name.strip()}, {torch.get_num_threads()} of {os.cpu_count()} cores"


def step_flops(config: ModelConfig, spec: EnvironmentSpec, window: int, batch_size: int) -> float:
    """FLOPs of matrix products and convolutions in the forward and backward pass of a step.

    PyTorch counts the operations on tensors without contents, in one row and in two. The first row
    includes what all rows share; every further row costs as much as the second.
    """
    one, two = (_flops(config, spec, window, rows) for rows in (1, 2))
    return one + (batch_size - 1) * (two - one)


def _flops(config: ModelConfig, spec: EnvironmentSpec, window: int, rows: int) -> float:
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    model = SequenceModel(config, spec.observation_space, spec.action_space).to("meta")
    batch = random_batch(spec, rows, window).to("meta")
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        predictions, _ = model(batch)
        loss = model.head.loss(predictions, batch.actions, 0.0).sum()
        loss.backward()  # type: ignore[no-untyped-call]
    return float(counter.get_total_flops())
