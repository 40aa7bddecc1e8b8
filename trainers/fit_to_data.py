"""What a preset for any data leaves to the data: lengths, scales, and what is normalised."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

from datamodules.compatibility import single_frames
from datamodules.store import Store
from rate.config import ModelConfig
from trainers.environment import Environment

_WHOLE = 90  # steps
_SMALLEST = 1e-6  # a scale
_TOKENS = 3  # of a step: return-to-go, observation, action


def fit_to_data(preset: dict[str, Any], store: Store, environment: Environment) -> dict[str, Any]:
    """A preset for data that nobody has made settings for.

    - A window of K * N steps holds a whole episode, where none has more than 90 steps; else it is
      the preset's.
    - A cache holds one segment, or as many as the preset's does.
    - Returns-to-go are divided by the largest return.
    - Vectors of floats are normalised, where observations have any.
    - Rollouts are as long as the environment's own episodes, or else as the data's longest.

    Args:
        preset: The preset, as nested plain types.
        store: The data.
        environment: What models of it are rolled out in.

    Raises:
        DatasetError: If the data are not of that.
    """
    fitted = deepcopy(preset)
    model, longest = fitted["model"], int(store.lengths.max())
    before = model.get("context_length", ModelConfig.context_length)
    context, segments = before, fitted["training"]["segments"]
    if longest <= _WHOLE:
        context, segments = _window(longest, segments)
    model["context_length"], fitted["training"]["segments"] = context, segments
    if "cache_length" in model:
        cached = round(model["cache_length"] / (_TOKENS * before))
        model["cache_length"] = _TOKENS * context * max(cached, 1)
    if model.get("position") == "timestep":
        model["max_timestep"] = longest
    model["return_scale"] = _scale(max(map(abs, store.return_range)))
    seen = store.observing(single_frames(store, environment.spec))
    fitted["data"]["normalise"] = bool(seen.normalisation)
    if environment.rolls_out and not _ends_by_itself(environment):
        fitted["evaluation"] |= {"lengths": [longest], "selection_lengths": [longest]}
    return fitted


def _window(longest: int, segments: int) -> tuple[int, int]:
    """K and N of a window that holds an episode, whose last segment is not empty."""
    context = math.ceil(longest / segments)
    while context * (segments - 1) >= longest:
        segments -= 1
        context = math.ceil(longest / segments)
    return context, segments


def _scale(largest: float) -> float:
    """About the largest return, in three digits; 1 where all returns are 0."""
    return float(f"{largest:.3g}") if largest > _SMALLEST else 1.0


def _ends_by_itself(environment: Environment) -> bool:
    """Whether an environment limits its episodes."""
    try:
        environment.steps_at(None)
    except ValueError:
        return False
    return True
