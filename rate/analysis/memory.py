"""Analysis of memory tokens: drift between segments, effective rank, robustness to noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rate.backbones.segment_transformer import SegmentState
from rate.batch import Batch, Observations, map_tensors
from rate.config import Decoding
from rate.envs.autoreset import without_autoreset
from rate.model import SequenceModel
from rate.policy import Policy
from rate.progress import OnProgress, no_progress

_LEAST = 1e-12  # of a norm: memory that is all zeros has a drift of 0, not NaN


@dataclass(frozen=True)
class MemoryReport:
    """Statistics of memory over the segments of episodes.

    Attributes:
        spread: `(N,)`, the root mean square distance of episodes' memories to their mean, relative
            to their norm. At 0 all episodes have the same memory: what distinguished them is lost.
        drift: `(N - 1,)`, the mean relative change from segment to segment, |M' - M| / |M|.
        rank: `(N,)`, the mean effective rank of the memory `(m, d)` of an episode.
        survival: By standard deviation of noise, the share of episodes whose actions stay the same
            after memory was perturbed once; continuous actions within a tenth of their range.
    """

    spread: list[float]
    drift: list[float]
    rank: list[float]
    survival: dict[float, float]


def record(
    policy: Policy,
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    seed: int,
    on_step: Callable[[int], None] = lambda step: None,
) -> Batch:
    """Play one episode in every row; returns observations and actions as a batch `(B, T)`.

    Args:
        policy: With as many rows as the environment.
        env: In any autoreset mode.
        seed: Of the first row; the next rows have the next seeds.
        on_step: Called with the number of steps taken.
    """
    env = without_autoreset(env)
    observations, _ = env.reset(seed=seed)
    policy.reset()
    seen: list[Observations] = []
    done, rewards_seen, wanted = [], [], []
    ends: tuple[list[Tensor], list[Tensor]] = [], []
    running = np.ones(env.num_envs, dtype=bool)
    rewards = None
    while running.any():
        actions = policy.act(observations, rewards)
        # A vector environment may write the next observations where these are.
        seen.append(map_tensors(observations, lambda part: torch.as_tensor(part).clone()))
        done.append(torch.as_tensor(actions))
        wanted.append(policy.returns_to_go.float().cpu())
        observations, rewards, terminated, truncated, _ = env.step(actions)
        rewards_seen.append(torch.as_tensor(rewards, dtype=torch.float32))
        for kind, flags in zip(ends, (terminated, truncated), strict=True):
            kind.append(torch.as_tensor(flags & running))
        running &= ~(terminated | truncated)
        on_step(len(seen))
    steps = len(seen)
    mask = torch.ones(env.num_envs, steps, dtype=torch.bool)
    timesteps = torch.arange(steps).expand(env.num_envs, -1)
    return Batch(
        observations=_stack(seen),
        actions=torch.stack(done, dim=1),
        returns_to_go=torch.stack(wanted, dim=1),
        timesteps=timesteps,
        mask=mask,
        rewards=torch.stack(rewards_seen, dim=1),
        terminated=torch.stack(ends[0], dim=1),
        truncated=torch.stack(ends[1], dim=1),
    )


def _stack(steps: list[Observations]) -> Observations:
    """Observations `(B, T, *obs)` from those `(B, *obs)` of every step."""
    first = steps[0]
    if not isinstance(first, dict):
        return torch.stack(cast("list[Tensor]", steps), dim=1)
    parts = cast("list[dict[str, Tensor]]", steps)
    return {key: torch.stack([part[key] for part in parts], dim=1) for key in first}


@torch.no_grad()
def inspect_memory(
    model: SequenceModel,
    batch: Batch,
    noise: Sequence[float],
    disturbed_segment: int = 5,
    tell: OnProgress = no_progress,
) -> MemoryReport:
    """Compute statistics of the memory tokens of a model in recorded episodes.

    Args:
        model: A model with memory tokens, in evaluation mode.
        batch: Episodes of at least `disturbed_segment + 2` segments, from `record`.
        noise: Standard deviations of the Gaussian noise that is added to memory.
        disturbed_segment: The segment before which noise is added.
        tell: Called with the progress, in passes over all episodes.

    Returns:
        Spread, drift and rank without noise, and the share of episodes that keep their actions.
    """
    folds = 1 + len(noise)
    tell("following memory", 0, folds)
    path = list(_fold(model, batch, None, 0.0))
    memories = torch.stack([tokens for tokens, _ in path])  # (N, B, m, d)
    actions = model.head.decode(torch.cat([chosen for _, chosen in path], dim=1), Decoding())
    flat = memories.flatten(2)  # (N, B, m * d)
    size = flat.norm(dim=-1).clamp(min=_LEAST)
    drift = (flat[1:] - flat[:-1]).norm(dim=-1) / size[:-1]
    apart = (flat - flat.mean(1, keepdim=True)).square().sum(-1).mean(1).sqrt() / size.mean(1)
    survival = {}
    for number, strength in enumerate(noise, start=1):
        tell("following memory", number, folds)
        disturbed = [chosen for _, chosen in _fold(model, batch, disturbed_segment, strength)]
        same = model.head.correct(torch.cat(disturbed, dim=1), actions)
        survival[strength] = float(same.all(1).float().mean())
    tell("following memory", folds, folds)
    rank = effective_rank(memories).mean(-1)
    return MemoryReport(apart.tolist(), drift.mean(-1).tolist(), rank.tolist(), survival)


def effective_rank(matrices: Tensor) -> Tensor:
    """Returns the effective rank of matrices `(..., m, d)` (Roy and Vetterli 2007, definition 1).

    It is the exponential of the entropy of the normalised singular values: 1 if all rows are
    multiples of one vector, m if they are orthogonal and of one norm.

    Returns:
        `(...)`.
    """
    values = torch.linalg.svdvals(matrices)
    shares = values / values.sum(-1, keepdim=True).clamp(min=_LEAST)
    entropy: Tensor = torch.special.entr(shares).sum(-1)
    return entropy.exp()


def _fold(
    model: SequenceModel, batch: Batch, disturbed_segment: int | None, strength: float
) -> list[tuple[Tensor, Tensor]]:
    """Returns the memory tokens after each segment and the predictions in it."""
    generator = torch.Generator().manual_seed(0)
    state: Any = None
    results = []
    length = model.config.context_length
    for number, start in enumerate(range(0, batch.num_steps, length)):
        if number == disturbed_segment:
            memory = _memory(state)
            disturbance = torch.randn(memory.shape, generator=generator)
            state = replace(state, memory=memory + strength * disturbance)
        predictions, state = model(batch.steps(start, start + length), state)
        results.append((_memory(state), predictions))
    return results


def _memory(state: Any) -> Tensor:
    """Returns the memory tokens `(B, m, d)` of a state.

    Raises:
        ValueError: If it has none.
    """
    if not isinstance(state, SegmentState) or state.memory is None:
        raise ValueError("the model has no memory tokens")
    return state.memory
