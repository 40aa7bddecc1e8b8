"""The steps of an unroll, one row per environment, as they are collected."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.store_files import storage_dtype
from rate.batch import Batch, map_tensors
from rate.model import SequenceModel
from trainers.sources.account import Account
from trainers.sources.rows import Array, EpisodeRows, Observations


class Unroll:
    """Records what the rows see and do.

    Args:
        rows: The rows, whose episodes have begun.
        steps: T, the most steps.
        model: The model, for its spaces.
        shared: Steps `(N, b, ...)` that the rows which go on with an episode begin with.
    """

    def __init__(
        self, rows: EpisodeRows, steps: int, model: SequenceModel, shared: Batch | None = None
    ) -> None:
        self.rows, shape = rows, (rows.num_envs, steps + 1)
        space = model.action_space
        self.observations = _empty(rows.observations, model.observation_space, shape)
        self.actions = torch.from_numpy(
            np.zeros((*shape, *(space.shape or ())), storage_dtype(space))
        )
        self.rewards, self.behaviour = torch.zeros(shape), torch.zeros(shape)
        flags = (torch.zeros(shape, dtype=torch.bool) for _ in range(4))
        self.mask, self.terminated, self.truncated, self.following = flags
        self.timesteps = torch.zeros(shape, dtype=torch.int64)
        self.column = torch.zeros(rows.num_envs, dtype=torch.int64)  # the next one of each row
        if shared is not None:
            self._begin_with(shared)

    def _begin_with(self, shared: Batch) -> None:
        """Copies the shared steps into the rows that are not at the first step of an episode."""
        goes_on = torch.from_numpy(self.rows.timesteps > 0)
        count = shared.num_steps
        for name in ("actions", "rewards", "mask", "timesteps"):
            getattr(self, name)[goes_on, :count] = getattr(shared, name)[goes_on]
        for into, part in zip(_parts(self.observations), _parts(shared.observations), strict=True):
            into[goes_on, :count] = part[goes_on]
        self.column = torch.where(goes_on, shared.mask.sum(1), 0)

    def see(self) -> None:
        """Records the observations of a step in the rows that have not ended."""
        self.mask[self._record(torch.from_numpy(~self.rows.over))] = True

    def step(self, actions: Array, behaviour: Tensor | None, account: Account) -> bool:
        """Takes the step that was seen; returns whether some row has not ended.

        Args:
            actions: `(N, *action)`.
            behaviour: `(N,)`, their log-probabilities, where they are wanted.
            account: Counts the step.
        """
        going = torch.from_numpy(~self.rows.over)
        rewards, terminated, truncated, lost, info = self.rows.step(actions)
        row = going.nonzero()[:, 0]
        at = row, self.column[row]
        self.actions[at] = torch.from_numpy(actions)[row].to(self.actions.dtype)
        self.rewards[at] = torch.from_numpy(rewards.astype(np.float32))[row]
        self.terminated[at] = torch.from_numpy(terminated)[row]
        self.truncated[at] = torch.from_numpy(truncated)[row]
        if behaviour is not None:
            self.behaviour[at] = behaviour[row]
        self.mask[torch.from_numpy(lost)] = False
        self.column[row] += 1
        account.add(rewards, going.numpy() & ~lost, terminated | truncated, lost, info)
        return not bool(self.rows.over.all())

    def see_last(self) -> None:
        """Records the observations that follow the last steps, where the episode goes on."""
        goes_on = self.mask.any(1) & ~self.terminated.any(1)
        self.following[self._record(goes_on)] = True

    def batch(self, with_behaviour: bool) -> Batch:
        """Returns the steps, with zeros in the padding."""
        padding = ~(self.mask | self.following)

        def real(tensor: Tensor, hidden: Tensor) -> Tensor:
            return tensor.masked_fill(hidden.view(*hidden.shape, *[1] * (tensor.ndim - 2)), 0)

        return Batch(
            observations=map_tensors(self.observations, lambda tensor: real(tensor, padding)),
            actions=real(self.actions, ~self.mask),
            returns_to_go=torch.zeros(*padding.shape, 1),
            timesteps=real(self.timesteps, padding),
            mask=self.mask,
            rewards=real(self.rewards, ~self.mask),
            terminated=self.terminated & self.mask,
            truncated=self.truncated & self.mask & ~self.terminated,
            following=self.following,
            behaviour=real(self.behaviour, ~self.mask) if with_behaviour else None,
        )

    def _record(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Writes the newest observations of some rows `(N,)` bool; returns where they are."""
        row = rows.nonzero()[:, 0]
        at = row, self.column[row]
        self.timesteps[at] = torch.from_numpy(self.rows.timesteps)[row]
        for into, seen in zip(
            _parts(self.observations), _parts(self.rows.observations), strict=True
        ):
            into[at] = torch.from_numpy(np.ascontiguousarray(seen[row.numpy()])).to(into.dtype)
        return at


def last_steps(batch: Batch, count: int) -> Batch:
    """Returns the last `count` steps of every row, or all if it has fewer: `(N, count, ...)`."""
    lengths = batch.mask.sum(1, keepdim=True)  # (N, 1)
    columns = (lengths - count).clamp(min=0) + torch.arange(count)  # (N, count)
    rows = torch.arange(batch.batch_size)[:, None]
    of_steps = Batch(
        observations=batch.observations,
        actions=batch.actions,
        returns_to_go=batch.returns_to_go,
        timesteps=batch.timesteps,
        mask=batch.mask,
        rewards=batch.rewards,
        terminated=batch.terminated,
        truncated=batch.truncated,
    )
    parts = iter([tensor[rows, columns] for tensor in of_steps.tensors()])
    return of_steps._map(lambda _: next(parts))


def _parts(observations: Any) -> list[Any]:
    """Returns the arrays or tensors of observations."""
    return list(observations.values()) if isinstance(observations, dict) else [observations]


def _empty(seen: Observations, space: Any, shape: tuple[int, int]) -> Any:
    """Returns zeros `(N, T + 1, *obs)` for observations like those seen."""
    if isinstance(seen, dict):
        return {key: _empty(seen[key], part, shape) for key, part in space.spaces.items()}
    return torch.from_numpy(np.zeros((*shape, *seen.shape[1:]), storage_dtype(space)))
