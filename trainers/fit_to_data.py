"""Settings of generic presets that are derived from the data: lengths, scales, normalisation.

Data that are yet to be generated (of the memory tasks) are known by the length of their episodes.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from copy import deepcopy
from typing import Any

from datamodules.compatibility import single_frames
from datamodules.store import Store
from rate.architecture import config_class
from rate.config import ModelConfig
from trainers.config import RunConfig
from trainers.environment import Environment

_WHOLE = 90  # steps; a window holds whole episodes up to this length
_SMALLEST = 1e-6  # smaller returns count as 0
_TOKENS = 3  # per step: return-to-go, observation, action


def fit_to_data(preset: dict[str, Any], store: Store, environment: Environment) -> dict[str, Any]:
    """Returns a preset adapted to data without a preset of their own.

    - A window of K * N steps holds a whole episode if none has more than 90 steps; otherwise it is
      the preset's.
    - A cache holds as many segments as the preset's, and at least one; a preset with none has none.
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
    _set_window(fitted, context, segments, longest)
    model["return_scale"] = _scale(max(map(abs, store.return_range)))
    seen = store.observing(single_frames(store, environment.spec))
    fitted["data"]["normalise"] = bool(seen.normalisation)
    if environment.rolls_out and not ends_by_itself(environment):
        fitted["evaluation"] |= {"lengths": [longest], "selection_lengths": [longest]}
    return fitted


def fit_to_length(
    preset: dict[str, Any], run: RunConfig, environment: Environment, given: Collection[str]
) -> dict[str, Any]:
    """Returns a preset whose window holds a whole episode of the data that will be generated.

    K and N follow from the number of steps; where one of them is given, the other follows from it.
    Where both are, the episodes are as long as the window unless `data.max_length` is given.
    Rollouts have the length of the data.

    Args:
        preset: The preset, as nested plain types.
        run: The configuration of the preset and the options.
        environment: The environment; one without `preset_base` has the preset as it is.
        given: Names of the settings that are given, `section.name`; they are kept.
    """
    if not environment.preset_base:
        return preset
    fitted, length = deepcopy(preset), run.data.max_length
    context, segments = run.model.context_length, run.training.segments
    has_context = "model.context_length" in given
    has_segments = "training.segments" in given
    try:
        if has_context and has_segments and length is None:
            length = _longest_within(environment, context * segments)
        length, steps, best = environment.expert_episode(length)
        steps += run.is_online  # an unroll holds the observation that follows it as well
    except ValueError:  # an impossible length, which `check_run` reports
        return preset
    if has_context and not has_segments:
        carries = config_class(fitted["model"]).carries_state
        segments = math.ceil(steps / context) if carries else 1
    elif has_segments and not has_context:
        context = math.ceil(steps / segments)
    elif not has_context:
        context, segments = _window(steps, segments)
    _set_window(fitted, context, segments, steps)
    fitted["model"]["return_scale"] = _scale(abs(best))
    if best != environment.spec.target_return:
        fitted["evaluation"]["target_return"] = best
    fitted["data"]["max_length"] = length
    fitted["evaluation"] |= {"lengths": [length], "selection_lengths": [length]}
    return fitted


def _longest_within(environment: Environment, steps: int) -> int:
    """Returns the largest length whose episodes have at most `steps` steps."""
    low, high = 1, steps
    while low < high:
        middle = (low + high + 1) // 2
        fits = environment.expert_episode(middle)[1] <= steps
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _set_window(preset: dict[str, Any], context: int, segments: int, longest: int) -> None:
    """Set K, N and the settings of a preset that follow from them.

    Args:
        preset: The preset.
        context: K.
        segments: N.
        longest: Steps of the longest episode.
    """
    model = preset["model"]
    before = model.get("context_length", ModelConfig.context_length)
    model["context_length"], preset["training"]["segments"] = context, segments
    if model.get("cache_length"):
        cached = round(model["cache_length"] / (_TOKENS * before))
        model["cache_length"] = _TOKENS * context * max(cached, 1)
    if model.get("position") == "timestep":
        model["max_timestep"] = longest


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
