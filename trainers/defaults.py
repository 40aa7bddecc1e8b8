"""Defaults of a command line: the preset, and settings that follow from the data."""

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
MADE_HERE = "-sac"  # how names of data sets end that are made here
# Steps of data, ten times what small presets train on: on a CPU, more than that takes hours.
LONG = 30_000_000
# Of NVIDIA, AMD, and Windows below Linux.
_DRIVERS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_CHOICES = {"privileged"}  # what a model sees, whatever the data hold


def default_preset(names: list[str], data: str | None) -> str:
    """The preset of a command line that names none.

    It is the published model for public data, and a small one for those that are made here, so
    that a command without options comes to a result on any machine.

    Args:
        names: The presets there are.
        data: The data or the game that the command line names, if any.
    """
    made_here = data is None or data.endswith(MADE_HERE)
    return PRESET + QUICK if made_here and PRESET + QUICK in names else PRESET


def settings_of_store(environment: str, spec: EnvironmentSpec) -> dict[str, Any]:
    """The settings of an environment that data were recorded with; `spec` is the data's.

    Those of another environment have none: to open them for training says what is wrong.
    """
    settings, options = find_environment(environment).options, spec.options
    if settings is None:
        return dict(options) if spec.name == environment else {}
    if not options.keys() <= {field.name for field in fields(settings)}:
        return {}
    return {k: v for k, v in options.items() if k not in _CHOICES and v is not None}


def target_of_store(environment: str, store: Store) -> dict[str, Any]:
    """What to ask for in rollouts, where published work says nothing of a store's data."""
    if environment != "mujoco":
        return {}
    from datamodules.mujoco import has_published_target

    return {} if has_published_target(store) else {"target_from_data": True}


def settings_of_dataset(environment: str, dataset: str | None, root: str) -> dict[str, Any]:
    """The settings of an environment that the data of a name were recorded with.

    Only Minari's data sets tell. One that is not there has those of Minari's own: to train on it
    says how to get it.
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
    """A note on a run that will keep a CPU busy for hours."""
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
    """Whether the system drives a GPU, whatever PyTorch can do with it."""
    return sys.platform == "darwin" or any(Path(driver).exists() for driver in _DRIVERS)
