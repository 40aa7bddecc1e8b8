"""Settings of generic presets that are derived from the data: lengths, scales, normalisation."""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Any

from datamodules.compatibility import single_frames
from datamodules.store import Store
from rate.config import ModelConfig
from trainers.environment import Environment

_WHOLE = 90  # steps; a window holds whole episodes up to this length
_SMALLEST = 1e-6  # smaller returns count as 0
_TOKENS = 3  # per step: return-to-go, observation, action


def fit_to_data(preset: dict[str, Any], store: Store, environment: Environment) -> dict[str, Any]:
    """Returns a preset adapted to data without a preset of their own.

    - A window of K * N steps holds a whole episode if none has more than 90 steps; otherwise it is
      the preset's.
    - A cache holds as many segments as the preset's, and at least one.
    - Returns-to-go are divided by the largest absolute return.
    - Float vectors in observations are normalised.
    - Rollouts have the environment's own length, or that of the longest episode of the data if
      the environment has no limit.

    Args:
        preset: The preset, as nested plain types.
        store: The data.
        environment: The environment of the rollouts.

    Raises:
        DatasetError: If the data do not match the environment.
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
    if environment.rolls_out and not ends_by_itself(environment):
        fitted["evaluation"] |= {"lengths": [longest], "selection_lengths": [longest]}
    return fitted


def _window(longest: int, segments: int) -> tuple[int, int]:
    """Returns K and N of a window that holds an episode; its last segment is not empty."""
    context = math.ceil(longest / segments)
    while context * (segments - 1) >= longest:
        segments -= 1
        context = math.ceil(longest / segments)
    return context, segments


def _scale(largest: float) -> float:
    """Returns the largest return, rounded to three digits; 1 if all returns are 0."""
    return float(f"{largest:.3g}") if largest > _SMALLEST else 1.0


def ends_by_itself(environment: Environment) -> bool:
    """Whether an environment limits its episodes."""
    try:
        environment.steps_at(None)
    except ValueError:
        return False
    return True
