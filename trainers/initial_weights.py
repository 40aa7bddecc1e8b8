"""Initial weights of a new run, from another run, a saved model, or a file."""

from __future__ import annotations

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from rate.architecture import current
from rate.errors import WeightsError
from rate.messages import first_of
from rate.model import SequenceModel
from rate.weights import DESCRIPTION, WEIGHTS, current_names, read_description
from trainers.callbacks.checkpoint import LAST, SafeCheckpointIO
from trainers.config_training import WhenMissing
from trainers.launch import is_main_process

_SHOWN = 6  # names in a message
_IN_CHECKPOINT = "model."  # prefix of the model's weights in a training checkpoint


def load_initial_weights(model: SequenceModel, source: Path, missing: WhenMissing) -> None:
    """Load weights into a new model.

    Warns of weights that keep their random values, and of settings of the architecture that differ.

    Args:
        model: The model.
        source: The folder of a run (its best weights, else its last ones), of a saved model, or a
            file of weights: `.safetensors`, or a training checkpoint (`.ckpt`).
        missing: What to do if names or shapes differ: `refuse`, or keep `fresh` values for weights
            without a counterpart.

    Raises:
        WeightsError: If the weights are missing, unreadable or do not fit; the message names them.
    """
    path = find_weights(source)
    own = model.state_dict()
    given, description = _read(path)
    given = current_names(given, own)
    differing = {
        name: f"{name} ({_shape(given[name])} there, {_shape(own[name])} here)"
        for name in own.keys() & given.keys()
        if given[name].shape != own[name].shape
    }
    fitting = {name: given[name] for name in own.keys() & given.keys() - differing.keys()}
    words = _describe(differing, own.keys() - given.keys(), given.keys() - own.keys())
    if words and (missing == "refuse" or not fitting):
        raise WeightsError(
            f"The weights of {path} do not fit this model: {words}. Choose the same architecture, "
            "or make new what does not fit: --init_missing fresh."
        )
    model.load_state_dict(fitting, strict=False)
    if words and is_main_process():
        warnings.warn(
            f"{len(fitting)} of {len(own)} weights are those of {path}; the others are new: "
            f"{words}.",
            stacklevel=2,
        )
    _warn_of_settings(model, path, description)


def find_weights(source: Path) -> Path:
    """Returns the weights file that `source` refers to.

    Raises:
        WeightsError: If there is none.
    """
    if source.is_file():
        return source
    for folder in (source, source / "checkpoints"):
        for file in (WEIGHTS, f"best/{WEIGHTS}", f"last/{WEIGHTS}", LAST):
            if (folder / file).is_file():
                return folder / file
    raise WeightsError(
        f"{source} {'holds no weights' if source.is_dir() else 'is not there'}. Give --init the "
        "folder of a run or of a saved model, like runs/<run>/checkpoints/best, or a file of "
        "weights."
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Returns weights by name, and the known settings of their architecture.

    Raises:
        WeightsError: If the file cannot be read.
        CheckpointError: If a training checkpoint is damaged.
    """
    if path.suffix == ".ckpt":
        checkpoint = SafeCheckpointIO().load_checkpoint(path)
        weights = {
            name.removeprefix(_IN_CHECKPOINT): value
            for name, value in checkpoint["state_dict"].items()
            if name.startswith(_IN_CHECKPOINT)
        }
        return weights, current(checkpoint["hyper_parameters"]["config"]["model"])
    try:
        weights = load_file(path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except SafetensorError as error:
        raise WeightsError(
            f"{path} is damaged or no safetensors file: {error}. --init takes model.safetensors of "
            "a saved model, or last.ckpt of a run; weights of the public code load through "
            "rate.reference."
        ) from error
    has_description = (path.parent / DESCRIPTION).is_file()
    settings = current(read_description(path.parent)["model"]) if has_description else {}
    return weights, settings


def _describe(differing: dict[str, str], absent: Any, surplus: Any) -> str:
    """Returns a description of the mismatches; empty if there are none."""
    parts = {
        "other shapes": sorted(differing.values()),
        "not among them": sorted(absent),
        "of no use here": sorted(surplus),
    }
    return "; ".join(f"{what}: {first_of(names, _SHOWN)}" for what, names in parts.items() if names)


def _shape(weight: Tensor) -> str:
    return " x ".join(map(str, weight.shape)) or "a number"


def _warn_of_settings(model: SequenceModel, path: Path, description: dict[str, Any]) -> None:
    """Warn of settings of the architecture that change the function of the same weights."""
    here = asdict(model.config)
    changed = [
        f"model.{name} ({description[name]} there, {here[name]} here)"
        for name in here.keys() & description.keys()
        if description[name] != here[name] and not name.endswith(("dropout", "noise"))
    ]
    if changed and is_main_process():
        warnings.warn(
            f"The model that {path} is of had other settings: {', '.join(sorted(changed))}.",
            stacklevel=3,
        )
