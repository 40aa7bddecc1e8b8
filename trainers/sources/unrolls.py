"""The collector: a model acts in the rows of a vector environment, an unroll at a time.

An unroll is up to T steps of one episode, from its beginning or from where the unroll before ended,
and ends where the episode does: the row then waits for the others. It holds the state of the model
that it was acted from, as R2D2's actors store it (Kapturowski et al. 2019, section 3).

The decoder acts from that state as the model computes features from it in training, so that the
learner sees what the actor saw. The state after an unroll is that of the model's pass over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.store_files import storage_dtype
from rate.batch import Batch, map_tensors, on_device
from rate.hashing import splitmix64
from rate.model import SequenceModel
from rate.policy import evaluating
from rate.state import State
from rate.tokenizers import StepInputs
from trainers.rollout import acting_threads
from trainers.sources.account import Account
from trainers.sources.exploration import Exploration
from trainers.sources.rows import Array, EpisodeRows, Observations, VectorEnv


class UnrollCollector:
    """Collects unrolls.

    Args:
        env: The vector environment of `N` rows.
        model: The model that acts, with its weights at each call of `collect`.
        steps: T, the most steps of an unroll.
        exploration: How actions are chosen.
        epsilon_at: The share of random actions after a number of environment steps.
        seed: The seed of the run.
        stored_state: Whether unrolls hold the state that they were acted from.
        with_behaviour: Whether they hold the log-probabilities of their actions.

    Attributes:
        account: What was collected so far, and the results of episodes.
    """

    def __init__(
        self,
        env: VectorEnv,
        model: SequenceModel,
        steps: int,
        exploration: Exploration,
        epsilon_at: Callable[[int], float],
        seed: int,
        *,
        stored_state: bool = True,
        with_behaviour: bool = False,
    ) -> None:
        self.env, self.model, self.steps = env, model, steps
        self.exploration, self.epsilon_at = exploration, epsilon_at
        self.stored_state, self.with_behaviour = stored_state, with_behaviour
        self.rows = EpisodeRows(env, seed)
        self.account = Account(self.rows.num_envs)
        self._key = splitmix64(np.array([seed % (1 << 64)], np.uint64))
        self._state: State = model.initial_state(self.rows.num_envs)

    @property
    def epsilon(self) -> float:
        """The share of random actions of the next unroll."""
        return self.epsilon_at(self.account.steps)

    @torch.no_grad()
    def collect(self) -> Batch:
        """Collects an unroll of every row.

        Returns:
            `(N, T + 1, ...)` on the host: the steps, and after them the observation that follows,
            `Batch.following`, unless the episode was terminated.

        Raises:
            TrainingError: If a reward or an observation is not finite.
        """
        device = next(self.model.parameters()).device
        with evaluating(self.model), acting_threads(self.env, device):
            begun = on_device(torch.from_numpy(self.rows.begin()), device)
            before = self._state.where(begun, self.model.initial_state(self.rows.num_envs))
            batch = self._act(before, device)
            if not self.rows.over.all():
                steps = replace(batch, following=None, behaviour=None, initial=None).to(device)
                self._state = self.model.features(steps, before)[1]
        if self.stored_state:
            kept = {
                name: part.float().cpu() if part.is_floating_point() else part.cpu()
                for name, part in before.tensors().items()
            }
            batch = replace(batch, initial=kept)
        return batch

    def _act(self, state: State, device: torch.device) -> Batch:
        """Acts from a state; returns the unrolls without it."""
        rows, unroll = self.rows, _Unroll(self.rows, self.steps, self.model)
        decoder = self.model.make_decoder(rows.num_envs)
        decoder.reset(None, state)
        keys = splitmix64(self._key + rows.episodes.astype(np.uint64))
        epsilon = self.epsilon
        blank = torch.zeros(rows.num_envs, 1, device=device)
        for step in range(self.steps):
            unroll.see(step)
            timesteps = torch.from_numpy(rows.timesteps.copy())
            inputs = StepInputs(
                on_device(torch.from_numpy(rows.actions.copy()), device),
                blank,
                _to_tensors(rows.observations, device),
                on_device(timesteps, device),
            )
            predictions = decoder.step(inputs)
            actions = self.exploration.actions(predictions, keys, timesteps, epsilon)
            if self.with_behaviour:
                unroll.behaviour[:, step] = self.exploration.log_probabilities(
                    predictions, actions
                ).cpu()
            taken = actions.cpu().numpy().astype(rows.actions.dtype)
            if not unroll.step(step, taken, self.account):
                break
        unroll.see_last()
        return unroll.batch(self.with_behaviour)

    def state_dict(self) -> dict[str, Any]:
        """Returns the episodes and the memory of the rows, and the account."""
        return {
            "rows": self.rows.state_dict(),
            "memory": {k: v.detach().cpu() for k, v in self._state.tensors().items()},
            "account": self.account.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a collector was.

        Raises:
            TrainingError: If an episode takes another course than before.
        """
        self.rows.load_state_dict(state["rows"])
        device = next(self.model.parameters()).device
        memory = {name: tensor.to(device) for name, tensor in state["memory"].items()}
        self._state = self.model.initial_state(self.rows.num_envs).with_tensors(memory)
        self.account.load_state_dict(state["account"])


class _Unroll:
    """The steps of the unrolls that are being collected."""

    def __init__(self, rows: EpisodeRows, steps: int, model: SequenceModel) -> None:
        self.rows, self.columns = rows, steps + 1
        shape = (rows.num_envs, self.columns)
        space = model.action_space
        self.observations = _empty(rows.observations, model.observation_space, shape)
        self.actions = torch.from_numpy(
            np.zeros((*shape, *(space.shape or ())), storage_dtype(space))
        )
        self.rewards, self.behaviour = torch.zeros(shape), torch.zeros(shape)
        flags = (torch.zeros(shape, dtype=torch.bool) for _ in range(4))
        self.mask, self.terminated, self.truncated, self.following = flags
        self.timesteps = torch.zeros(shape, dtype=torch.int64)
        self.first = torch.from_numpy(rows.timesteps.copy())

    def see(self, step: int) -> None:
        """Records the observations of a step in the rows that have not ended."""
        going = ~self.rows.over
        self._record(np.flatnonzero(going), np.full(int(going.sum()), step))
        self.mask[:, step] = torch.from_numpy(going)

    def step(self, step: int, actions: Array, account: Account) -> bool:
        """Takes a step; returns whether some row has not ended."""
        going = ~self.rows.over
        rewards, terminated, truncated, lost, info = self.rows.step(actions)
        self.actions[torch.from_numpy(going), step] = torch.from_numpy(actions[going]).to(
            self.actions.dtype
        )
        self.rewards[:, step] = torch.from_numpy(rewards.astype(np.float32))
        self.terminated[:, step] = torch.from_numpy(terminated)
        self.truncated[:, step] = torch.from_numpy(truncated)
        self.mask[torch.from_numpy(lost)] = False
        account.add(rewards, going & ~lost, terminated | truncated, lost, info)
        return not bool(self.rows.over.all())

    def see_last(self) -> None:
        """Records the observations that follow the last steps, where the episode goes on."""
        counts = self.mask.sum(1)  # (N,)
        follows = (counts > 0) & ~self.terminated.any(1)
        rows = follows.nonzero()[:, 0]
        self._record(rows.numpy(), counts[rows].numpy())
        self.following[rows, counts[rows]] = True

    def batch(self, with_behaviour: bool) -> Batch:
        padding = ~(self.mask | self.following)

        def blank(tensor: Tensor) -> Tensor:
            return tensor.masked_fill(padding.view(*padding.shape, *[1] * (tensor.ndim - 2)), 0)

        return Batch(
            observations=map_tensors(self.observations, blank),
            actions=self.actions.masked_fill(
                ~self.mask.view(*padding.shape, *[1] * (self.actions.ndim - 2)), 0
            ),
            returns_to_go=torch.zeros(*padding.shape, 1),
            timesteps=self.timesteps.masked_fill(padding, 0),
            mask=self.mask,
            rewards=self.rewards.masked_fill(~self.mask, 0),
            terminated=self.terminated & self.mask,
            truncated=self.truncated & self.mask & ~self.terminated,
            following=self.following,
            behaviour=self.behaviour.masked_fill(~self.mask, 0) if with_behaviour else None,
        )

    def _record(self, rows: Array, columns: Array) -> None:
        """Writes the newest observations of some rows into their columns, `(n,)` each."""
        at = torch.from_numpy(rows), torch.from_numpy(columns)
        self.timesteps[at] = torch.from_numpy(self.rows.timesteps[rows])
        if isinstance(self.observations, Tensor):
            self.observations[at] = _as_stored(self.rows.observations, rows, self.observations)  # type: ignore[arg-type]
            return
        for key, into in self.observations.items():
            into[at] = _as_stored(self.rows.observations[key], rows, into)


def _as_stored(array: Array, rows: Array, into: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array[rows])).to(into.dtype)


def _empty(seen: Observations, space: Any, shape: tuple[int, int]) -> Any:
    """Returns zeros `(N, T + 1, *obs)` for observations like those seen."""
    if isinstance(seen, dict):
        return {key: _empty(seen[key], part, shape) for key, part in space.spaces.items()}
    return torch.from_numpy(np.zeros((*shape, *seen.shape[1:]), storage_dtype(space)))


def _to_tensors(observations: Observations, device: torch.device) -> Any:
    if isinstance(observations, dict):
        return {key: _to_tensors(part, device) for key, part in observations.items()}
    return on_device(torch.as_tensor(np.asarray(observations)), device)
