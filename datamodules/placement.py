"""Where batches are gathered: on the device, from data that fit there, or on the host."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from datamodules.episodes import DatasetError
from datamodules.sampler import WindowSampler
from rate.batch import Batch

DataDevice = Literal["auto", "host", "device"]
# Of the free memory. The model, its optimiser and a step's activations need the rest.
_SHARE = 0.5


@dataclass(frozen=True)
class Placement:
    """A choice.

    Attributes:
        resident: Whether the data go to the device.
        reason: What was chosen and why, in one line.
    """

    resident: bool
    reason: str


def choose_placement(size: int, device: torch.device, wanted: DataDevice) -> Placement:
    """Where data should be.

    Args:
        size: Their bytes.
        device: What training runs on.
        wanted: The setting.

    Raises:
        DatasetError: If they are wanted on the device, and are larger than what is free there.
    """
    data, free = f"{_gib(size)} of data", free_memory(device)
    if wanted == "device":
        if free is not None and size > free:
            raise DatasetError(
                f"training.data_device=device: the {data} are more than the {_gib(free)} that are "
                f"free on {device}; use auto or host"
            )
        return Placement(True, f"Batches are gathered on {device}, as training.data_device says.")
    host = "Batches are gathered on the host"
    if wanted == "host":
        return Placement(False, f"{host}, as training.data_device says.")
    if free is None:
        return Placement(False, f"{host}: {device} does not tell how much memory is free.")
    half = f"{_SHARE:.0%} of the {_gib(free)} that are free on {device}"
    if size > _SHARE * free:
        return Placement(False, f"{host}: the {data} are more than {half}.")
    return Placement(True, f"Batches are gathered on {device}: the {data} fit into {half}.")


def free_memory(device: torch.device) -> int | None:
    """Bytes that are free on a device, or None where it does not tell."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() if device.type == "cpu" else None


def available_memory() -> int | None:
    """Bytes that this process can still take of the machine's memory, or of its container's.

    What the system keeps there of files counts as free. None where the system does not tell.
    """
    found = [size for size in (_of_machine(), _of_container()) if size is not None]
    return min(found, default=None)


def _of_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        values = dict(line.split(":") for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, ValueError, KeyError):  # no Linux
        return None


def _of_container() -> int | None:
    """What a control group (version 2) leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        limit, taken = (
            int((folder / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        lines = (folder / "memory.stat").read_text(encoding="ascii").splitlines()
        files = int(dict(line.split() for line in lines).get("inactive_file", 0))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return None
    return max(0, limit - taken + files)


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"


class Prefetcher:
    """Makes the batch that is likely to be next while the device learns from the one before.

    A batch is a pure function of its sampler and its number. So one that was made in vain, because
    a curriculum moved on, is dropped, and no order of events can change what training sees.

    Args:
        device: Where batches go. A GPU fetches them from pinned memory beside its other work.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = ThreadPoolExecutor(1, "batches")
        self._ahead: tuple[WindowSampler, int, Future[Batch]] | None = None

    def batch(self, sampler: WindowSampler, index: int) -> Batch:
        """Batch `index`, on the device; whatever went wrong in making it is raised here."""
        ahead, self._ahead = self._ahead, None
        if ahead is None or ahead[:2] != (sampler, index):
            ahead = sampler, index, self._pool.submit(self._make, sampler, index)
        batch = ahead[2].result()
        if self._stream is not None:
            current = torch.cuda.current_stream(self.device)
            current.wait_stream(self._stream)
            batch.record_stream(current)  # its memory is the other stream's, and free only after
        self._ahead = sampler, index + 1, self._pool.submit(self._make, sampler, index + 1)
        return batch

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)

    def _make(self, sampler: WindowSampler, index: int) -> Batch:
        batch = sampler.batch(index)
        if self._stream is None:
            return batch
        with torch.cuda.stream(self._stream):
            return batch.pin_memory().to(self.device, non_blocking=True)
