"""Defaults of the command line: the preset, and settings derived from the data."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.mujoco_names import read_name
from datamodules.store import Store
from rate.envs.spec import EnvironmentSpec
from trainers.config import RunConfig
from trainers.preset_files import PUBLISHED
from trainers.registry import find_environment

PRESET, QUICK = "rate", "_quick"
MADE_HERE = "-sac"  # suffix of the names of data sets that this project generates
# Steps of data, ten times those of the small presets; training on more takes hours on a CPU.
LONG = 30_000_000
# Device files of NVIDIA, AMD, and WSL.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_CHOICES = {"privileged"}  # choices of the model's inputs, independent of the data


def default_preset(names: list[str], data: str | None) -> str:
    """Returns the default preset.

    It is the published model for public data, and a small model for generated data, so that a
    command without options finishes on any machine.

    Args:
        names: The available presets.
        data: The data set or the game on the command line, if any.
    """
    made_here = data is None or data.endswith(MADE_HERE)
    return PRESET + QUICK if made_here and PRESET + QUICK in names else PRESET


def settings_of_store(environment: str, spec: EnvironmentSpec) -> dict[str, Any]:
    """Returns the environment settings that data with the specification `spec` were recorded with.

    Empty if the data are of another environment; opening them for training reports the error.
    """
    settings, options = find_environment(environment).options, spec.options
    if settings is None:
        return dict(options) if spec.name == environment else {}
    if not options.keys() <= {field.name for field in fields(settings)}:
        return {}
    return {k: v for k, v in options.items() if k not in _CHOICES and v is not None}


def target_of_store(environment: str, store: Store) -> dict[str, Any]:
    """Returns the target-return settings for a store without a published target return."""
    if environment != "mujoco":
        return {}
    from datamodules.mujoco import has_published_target

    return {} if has_published_target(store) else {"target_from_data": True}


def settings_of_dataset(environment: str, dataset: str | None, root: str) -> dict[str, Any]:
    """Returns the environment settings that the named data set was recorded with.

    Only Minari data sets record them. For one that is not downloaded the version is unknown;
    training on it reports how to download it.
    """
    if environment != "mujoco" or dataset is None:
        return {}
    known = read_name(dataset)
    if known.source != "minari":
        return {}
    from datamodules.mujoco import minari_settings
    from datamodules.readers.minari_source import UNKNOWN_VERSION

    try:
        return minari_settings(Path(root), known)
    except DatasetError:
        return {"task": known.task, "version": UNKNOWN_VERSION}


def warn_of_work(config: RunConfig, presets: list[str]) -> list[str]:
    """Returns a note if the run would take hours on a CPU."""
    training, quick = config.training, f"{config.name}{QUICK}"
    if config.name.endswith(PUBLISHED):
        quick = config.name.removesuffix(PUBLISHED)
    steps = training.batch_size * config.window * training.max_steps
    chosen = training.accelerator == "cpu"
    if steps < LONG or not (chosen or (training.accelerator == "auto" and not has_gpu_driver())):
        return []
    way = "Use a GPU: --training.accelerator gpu" if chosen else "There is no GPU here"
    small = f", or train a model for a CPU: --model_mode {quick}" if quick in presets else ""
    return [
        f"{steps / 1e6:,.0f} million steps of data are to be trained on, which takes a CPU hours "
        f"or days. {way}{small}."
    ]


def has_gpu_driver() -> bool:
    """Whether the system has a GPU driver, even if PyTorch cannot use it."""
    return sys.platform == "darwin" or any(Path(driver).exists() for driver in _DRIVERS)
