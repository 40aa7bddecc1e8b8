"""The option `--device` of commands."""

from __future__ import annotations

import argparse

import torch

from rate.errors import ConfigError


def add_device_option(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--device`, the argument of `choose_device`."""
    parser.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default=default,
        help=f"where to compute; auto: on a GPU where there is one (default: {default})",
    )


def choose_device(name: str) -> torch.device:
    """Returns the device of a name: `cpu`, `cuda`, or `auto` (the GPU if available, else the CPU).

    Raises:
        ConfigError: If `cuda` is not available.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise ConfigError("--device cuda: PyTorch finds no GPU here. Use --device cpu.")
    if name == "cpu" or not available:
        return torch.device("cpu")
    return torch.device("cuda", torch.cuda.current_device())
