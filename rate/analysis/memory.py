"""Analysis of memory: drift between segments, effective rank, robustness to noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from torch import Tensor

from rate.analysis.states import disturbed, follow, memory_parts, memory_rows, written_memory
from rate.batch import Batch, Observations, map_tensors
from rate.config import Decoding
from rate.envs.autoreset import without_autoreset
from rate.model import SequenceModel
from rate.policy import Policy
from rate.progress import OnProgress, no_progress
from rate.state import State

_LEAST = 1e-12  # of a norm: memory that is all zeros has a drift of 0, not NaN


@dataclass(frozen=True)
class MemoryReport:
    """Statistics of memory over the segments of episodes.

    Attributes:
        spread: `(N,)`, the root mean square distance of episodes' memories to their mean, relative
            to their norm. At 0 all episodes have the same memory: what distinguished them is lost.
        drift: `(N - 1,)`, the mean relative change from segment to segment, |M' - M| / |M|.
        rank: `(N,)`, the mean effective rank of an episode's memory as a matrix; see
            `rate.analysis.states.memory_rows`. Without memory tokens or a recurrent state, 0.
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

    A privileged state in the observations becomes the batch's. The model is not given it, unless
    its observation space has it.

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
    hidden: list[Tensor] = []
    done, rewards_seen, wanted = [], [], []
    ends: tuple[list[Tensor], list[Tensor]] = [], []
    running = np.ones(env.num_envs, dtype=bool)
    rewards = None
    while running.any():
        if isinstance(observations, dict) and "privileged" in observations:
            hidden.append(torch.as_tensor(observations["privileged"]).clone())
            observations = _without_privileged(observations, policy.model.observation_space)
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
        privileged=torch.stack(hidden, dim=1) if hidden else None,
    )


def _without_privileged(observations: dict[str, Any], space: gymnasium.Space[Any]) -> Any:
    """Returns observations as a model with this observation space takes them."""
    if isinstance(space, gymnasium.spaces.Dict):
        return {key: observations[key] for key in space.spaces}
    (own,) = (part for key, part in observations.items() if key != "privileged")
    return own


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
    """Compute statistics of the memory of a model in recorded episodes.

    Memory is what the segments of a transformer write (memory tokens, an associative memory), or
    else the whole state: the cache, or what a recurrent backbone carries.

    Args:
        model: A model that carries a state, in evaluation mode.
        batch: Episodes of at least `disturbed_segment + 2` segments, from `record`.
        noise: Standard deviations of the Gaussian noise that is added to memory.
        disturbed_segment: The segment before which noise is added.
        tell: Called with the progress, in passes over all episodes.

    Returns:
        Spread, drift and rank without noise, and the share of episodes that keep their actions.
    """
    folds = 1 + len(noise)
    tell("following memory", 0, folds)
    states, features = zip(*follow(model, batch), strict=True)
    actions = model.head.decode(model.head(torch.cat(features, dim=1)), Decoding())
    flat = torch.stack([memory_vector(state) for state in states])  # (N, B, D)
    size = flat.norm(dim=-1).clamp(min=_LEAST)
    drift = (flat[1:] - flat[:-1]).norm(dim=-1) / size[:-1]
    survival = {}
    for number, strength in enumerate(noise, start=1):
        tell("following memory", number, folds)
        disturb = partial(_disturb, disturbed_segment, strength)
        changed = [found for _, found in follow(model, batch, disturb)]
        same = model.head.correct(model.head(torch.cat(changed, dim=1)), actions)
        survival[strength] = float(same.all(1).float().mean())
    tell("following memory", folds, folds)
    rows = [memory_rows(state) for state in states]
    rank = [0.0 if row is None else float(effective_rank(row).mean(-1)) for row in rows]
    return MemoryReport(spread(flat).tolist(), drift.mean(-1).tolist(), rank, survival)


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


def _disturb(segment: int, strength: float, number: int, state: State) -> State:
    """Returns the state with noise before one segment, and as it is before the others."""
    if number != segment:
        return state
    return disturbed(state, strength, torch.Generator().manual_seed(0))


def spread(memories: Tensor) -> Tensor:
    """Returns the root mean square distance of memories `(..., B, D)` to their mean.

    It is relative to their mean norm: `(...)`.
    """
    apart = (memories - memories.mean(-2, keepdim=True)).square().sum(-1).mean(-1).sqrt()
    distance: Tensor = apart / memories.norm(dim=-1).clamp(min=_LEAST).mean(-1)
    return distance


def memory_vector(state: State) -> Tensor:
    """Returns the memory `(B, D)` of a state: what segments write, or else all it remembers.

    Raises:
        ValueError: If it has none.
    """
    if (written := written_memory(state)) is not None:
        return written.flatten(1)
    parts = list(memory_parts(state).values())
    if not parts:
        raise ValueError("the model carries no state from segment to segment")
    return torch.cat([part.flatten(1) for part in parts], dim=1)
