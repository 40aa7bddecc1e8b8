"""Warnings of what a run will not learn from its data, or not tell of it."""

from __future__ import annotations

import warnings

from datamodules.trajectories import TrajectoryDataModule
from trainers.config import RunConfig
from trainers.environment import Environment
from trainers.launch import is_main_process


def warn_of_data(
    config: RunConfig, environment: Environment, datamodule: TrajectoryDataModule, target: float
) -> None:
    """Warn of a target return that the data do not show, unreached steps, and missing measures.

    Args:
        config: The run.
        environment: The environment of the rollouts.
        datamodule: The data.
        target: The return to ask for.
    """
    low, high = datamodule.held_out.rest_return_range
    seen = config.model.condition_on_return
    if seen and not low <= target <= high and is_main_process():
        warnings.warn(
            f"The return to ask for in rollouts is {target:g} (evaluation.target_return), but the "
            f"episodes of {datamodule.store.path} have returns from {low:g} to {high:g}: the model "
            "is asked for what it never saw, or with evaluation.return_to_go=clamp for the nearest "
            "that it saw.",
            stacklevel=3,
        )
    _warn_of_unreached_steps(config, datamodule)
    if not environment.rolls_out and not datamodule.held_out.num_windows and is_main_process():
        store, share = datamodule.store, config.data.held_out
        warnings.warn(
            "Nothing will tell how good the model is: there is no environment to roll out in, and "
            f"data.held_out={share:g} of the {store.num_episodes:,} episodes of {store.path} is "
            "not one. Raise data.held_out.",
            stacklevel=3,
        )


def _warn_of_unreached_steps(config: RunConfig, datamodule: TrajectoryDataModule) -> None:
    """Warn if steps of the data are in no window, which happens with `data.window=start`."""
    all_steps = datamodule.make_sampler(None).num_steps
    last_stage = datamodule.segments if config.curriculum.enabled else None
    unreached = all_steps - datamodule.make_sampler(last_stage).num_reached
    if unreached and is_main_process():
        what = "the first {} steps of an episode"
        if config.curriculum.enabled:
            what = "episodes of at most {} steps, with a curriculum"
        warnings.warn(
            f"{unreached:,} of {all_steps:,} steps of {datamodule.store.path} are never trained "
            f"on: data.window=start takes {what.format(config.window)}. Set data.window=random to "
            "train on all of them, or train on longer windows (training.segments).",
            stacklevel=4,
        )
