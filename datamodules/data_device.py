"""The data device: whether batches are gathered on the training device or on the host."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from datamodules.episodes import DatasetError
from datamodules.memory import available_memory

DataDevice = Literal["auto", "host", "device"]
# The share of the free memory that data may take; the model, the optimiser and the activations of
# a step need the rest.
_SHARE = 0.5


@dataclass(frozen=True)
class DeviceChoice:
    """Where a data set is kept during training.

    Attributes:
        on_device: Whether the data are copied to the training device.
        reason: The choice and its reason, in one line.
    """

    on_device: bool
    reason: str


def choose_data_device(size: int, device: torch.device, requested: DataDevice) -> DeviceChoice:
    """Chooses where the data of a run are kept.

    Args:
        size: Size of the data in bytes.
        device: The training device.
        requested: The setting `training.data_device`.

    Raises:
        DatasetError: If `requested` is `device` and the data exceed the device's free memory.
    """
    data, free = f"{_gib(size)} of data", free_memory(device)
    if requested == "device":
        if free is not None and size > free:
            raise DatasetError(
                f"training.data_device=device: the {data} are more than the {_gib(free)} that are "
                f"free on {device}; use auto or host"
            )
        return DeviceChoice(
            True, f"Batches are gathered on {device}, as training.data_device says."
        )
    host = "Batches are gathered on the host"
    if requested == "host":
        return DeviceChoice(False, f"{host}, as training.data_device says.")
    if free is None:
        return DeviceChoice(False, f"{host}: {device} does not tell how much memory is free.")
    half = f"{_SHARE:.0%} of the {_gib(free)} that are free on {device}"
    if size > _SHARE * free:
        return DeviceChoice(False, f"{host}: the {data} are more than {half}.")
    return DeviceChoice(True, f"Batches are gathered on {device}: the {data} fit into {half}.")


def free_memory(device: torch.device) -> int | None:
    """Returns the free memory of a device in bytes, or None where it is not reported."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return available_memory() if device.type == "cpu" else None


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
