"""Rollouts whose episodes are shared out among the processes of a run.

Process r of n plays the seeds r, r + n, r + 2 n, ..., and all get the results of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import distributed as dist

from rate.envs.spec import EnvironmentSpec
from rate.model import SequenceModel
from rate.weights import load_model
from trainers.config import RunConfig
from trainers.episode_rows import RolloutResult
from trainers.gathering import gather
from trainers.launch import is_main_process


def own_share(seeds: Sequence[int]) -> Sequence[int]:
    """Returns the seeds that this process plays; all of them in a single process."""
    if not (dist.is_available() and dist.is_initialized()):
        return seeds
    return seeds[dist.get_rank() :: dist.get_world_size()]


def joined(parts: Sequence[list[RolloutResult]]) -> list[RolloutResult]:
    """Returns the episodes of each length, from those of every process in the order of ranks.

    Args:
        parts: Per process the results of all lengths; empty if it had no seeds.
    """
    if len(parts) == 1:
        return parts[0]
    by_length = zip(*(part for part in parts if part), strict=True)
    return [RolloutResult.interleaved(results) for results in by_length]


def shared_model(
    folder: Path, config: RunConfig, spec: EnvironmentSpec
) -> tuple[SequenceModel, tuple[float, float] | None]:
    """Returns a saved model and its `trained_range`; the first process alone reads the files.

    Args:
        folder: The saved model.
        config: The run it is of.
        spec: Its environment.
    """
    found: Any = None
    if is_main_process():
        saved = load_model(folder)
        found = saved.model, saved.trained_range
        if not (dist.is_available() and dist.is_initialized()):
            return saved.model, saved.trained_range
    weights = None if found is None else (found[0].state_dict(), found[1])
    state, trained_range = gather(weights)[0] or ({}, None)
    if found is not None:
        return found[0], trained_range
    model = SequenceModel(config.model, spec.observation_space, spec.action_space)
    model.load_state_dict(state)
    return model.eval(), trained_range
