"""Normalisation statistics from the data, which are stored with the model's weights."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.store import Store
from rate.encoders import DictionaryEncoder, VectorEncoder
from rate.errors import ConfigError
from rate.heads import ContinuousHead
from rate.messages import first_of
from rate.model import SequenceModel
from trainers.launch import is_main_process

_MOST_NAMED = 10


def scale_to_data(model: SequenceModel, store: Store, normalise: bool) -> None:
    """Set the means and the standard deviations of the data in a model.

    Actions without bounds are normalised by the data; bounded actions are scaled by their bounds.
    Observations are normalised on request only.

    Args:
        model: The model.
        store: The data.
        normalise: Whether to normalise vectors in observations (`data.normalise`).

    Raises:
        ConfigError: If normalisation is requested and observations have no float vectors.
        DatasetError: If the statistics stored with the data are damaged.
    """
    if isinstance(model.head, ContinuousHead) and model.head.needs_spread:
        model.set_action_spread(*map(torch.from_numpy, store.action_moments()))
    if normalise:
        _normalise(model, store)


def _normalise(model: SequenceModel, store: Store) -> None:
    known = store.normalisation
    encoders = _vector_encoders(model.tokenizer.observation)
    if not known.keys() & encoders.keys():
        raise ConfigError(
            "data.normalise is for vectors of floats, and these observations are "
            f"{model.observation_space}; leave it false."
        )
    for key in sorted(known.keys() & encoders.keys()):
        constant = encoders[key].set_normalisation(*map(torch.from_numpy, known[key]))
        _warn_of_constant(key, constant, store)


def _warn_of_constant(key: str, constant: Tensor, store: Store) -> None:
    """Warn of nearly constant components, which are not divided by their deviation."""
    indices = constant.nonzero()[:, 0].tolist()
    if not indices or not is_main_process():
        return
    named = first_of(list(map(str, indices)), _MOST_NAMED)
    where = f" of '{key}'" if key else ""
    warnings.warn(
        f"{len(indices)} of {len(constant)} components of the observations{where} hardly vary in "
        f"{store.path} ({named}): they are not divided by their deviation "
        "(data.normalise), so that other values in rollouts do not become huge.",
        stacklevel=2,
    )


def _vector_encoders(encoder: nn.Module) -> dict[str, VectorEncoder]:
    """Returns the vector encoders by observation key; the key of a single encoder is empty."""
    parts: dict[str, Any] = {"": encoder}
    if isinstance(encoder, DictionaryEncoder):
        parts = {
            key: part.get_submodule("0")
            for key, part in zip(encoder.keys, encoder.encoders, strict=True)
        }
    return {key: part for key, part in parts.items() if isinstance(part, VectorEncoder)}
