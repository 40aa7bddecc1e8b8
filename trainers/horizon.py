"""How far back a gradient reaches in training, and information when acting."""

from __future__ import annotations

import warnings

from trainers.config import RunConfig
from trainers.environment import Environment, at_length


def gradient_horizon(config: RunConfig, tokens_per_step: int) -> int:
    """Returns the most steps that the gradient of a prediction reaches, its own step included.

    Back-propagation ends at the start of the window of N segments of K steps, and at the cuts of
    `training.bptt_segments`.

    Args:
        config: The run.
        tokens_per_step: n, the tokens of a step.
    """
    segments, cut = config.training.segments, config.training.bptt_segments
    if cut is not None:
        segments = min(segments, max(cut, 1))  # 0 cuts at every segment, as 1 does
    steps = segments * config.model.context_length
    reach = config.model.information_horizon(tokens_per_step, exact=False)
    return steps if reach is None else min(steps, reach)


def acting_horizon(config: RunConfig, tokens_per_step: int) -> int | None:
    """Returns the most steps that an action depends on, its own included; None has no limit."""
    exact = config.evaluation.recompute_window
    return config.model.information_horizon(tokens_per_step, exact=exact)


def describe_horizon(config: RunConfig, tokens_per_step: int) -> str:
    """Returns a line with the horizons of a run; see `gradient_horizon` and `acting_horizon`."""
    gradient = gradient_horizon(config, tokens_per_step)
    reach = acting_horizon(config, tokens_per_step)
    told = "has no limit" if reach is None else f"reaches back {reach:,} steps"
    line = f"horizon: gradients reach back {gradient:,} steps, information when acting {told}"
    if config.data.window == "consecutive":
        line += "; in training, memory is carried over whole episodes"
    elif reach is None or reach > config.window:
        line += f"; in training, memory is at most {config.window:,} steps old"
    return line


def warn_of_horizon(config: RunConfig, environment: Environment, tokens_per_step: int) -> None:
    """Warn if a task needs what lies beyond the horizon of actions; see `Environment.gap`."""
    reach = acting_horizon(config, tokens_per_step)
    if reach is None or not environment.rolls_out:
        return
    beyond = [length for length in config.evaluation.lengths if environment.gap(length) > reach]
    if beyond:
        length = max(beyond, key=environment.gap)
        warnings.warn(
            f"Rollouts at {at_length(length)} may need what was seen {environment.gap(length):,} "
            f"steps before, and an action depends on the last {reach:,} steps alone "
            f"(model.backbone={config.model.backbone}, "
            f"model.context_length={config.model.context_length}). Choose a backbone with memory, "
            "or a longer context.",
            stacklevel=2,
        )
