"""The collector: a model acts in the rows of a vector environment, an unroll at a time.

An unroll is up to T steps of one episode, from its beginning or from where the unroll before ended,
and ends where the episode does: the row then waits for the others. With a burn-in it begins with
the last steps of the unroll before, so that every step is learnt from once. It holds the state of
the model before it, as R2D2's actors store it (Kapturowski et al. 2019, section 3).

The decoder acts from a state as the model computes features from it in training, so that the
learner sees what the actor saw. The state after an unroll is that of the model's pass over it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rate.batch import Batch, on_device
from rate.hashing import splitmix64
from rate.model import SequenceModel
from rate.policy import evaluating
from rate.state import State
from rate.tokenizers import StepInputs
from trainers.rollout import acting_threads
from trainers.sources.account import Account
from trainers.sources.exploration import Exploration
from trainers.sources.replay import batch_of, named_parts
from trainers.sources.rows import EpisodeRows, Observations, VectorEnv
from trainers.sources.unroll import Unroll, last_steps


class UnrollCollector:
    """Collects unrolls.

    Args:
        env: The vector environment of `N` rows.
        model: The model that acts, with its weights at each call of `collect`.
        steps: T, the most steps of an unroll.
        exploration: How actions are chosen.
        epsilon_at: The share of random actions after a number of environment steps.
        seed: The seed of the run.
        overlap: Steps that an unroll shares with the one before in its episode.
        stored_state: Whether unrolls hold the state of the model before them.
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
        overlap: int = 0,
        stored_state: bool = True,
        with_behaviour: bool = False,
    ) -> None:
        self.env, self.model, self.steps, self.overlap = env, model, steps, overlap
        self.exploration, self.epsilon_at = exploration, epsilon_at
        self.stored_state, self.with_behaviour = stored_state, with_behaviour
        self.rows = EpisodeRows(env, seed)
        self.account = Account(self.rows.num_envs)
        self._key = splitmix64(np.array([seed % (1 << 64)], np.uint64))
        # The state to act from, and that before the steps that the next unrolls begin with.
        self._state: State = model.initial_state(self.rows.num_envs)
        self._before = self._state
        self._shared: Batch | None = None  # these steps

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
        device, rows = next(self.model.parameters()).device, self.rows
        with evaluating(self.model), acting_threads(self.env, device):
            begun = on_device(torch.from_numpy(rows.begin()), device)
            first = self.model.initial_state(rows.num_envs)
            before = self._before.where(begun, first)
            unroll = Unroll(rows, self.steps, self.model, self._shared)
            self._act(self._state.where(begun, first), unroll)
            batch = unroll.batch(self.with_behaviour)
            self._remember(batch, before)
        if self.stored_state:
            batch = replace(batch, initial=_on_host(before))
        return batch

    def _act(self, state: State, unroll: Unroll) -> None:
        """Acts from a state for the steps of an unroll."""
        rows, device = self.rows, next(self.model.parameters()).device
        decoder = self.model.make_decoder(rows.num_envs)
        decoder.reset(None, state)
        keys = splitmix64(self._key + rows.episodes.astype(np.uint64))
        epsilon, blank = self.epsilon, torch.zeros(rows.num_envs, 1, device=device)
        for _ in range(self.steps - self.overlap):
            unroll.see()
            timesteps = torch.from_numpy(rows.timesteps.copy())
            inputs = StepInputs(
                on_device(torch.from_numpy(rows.actions.copy()), device),
                blank,
                _to_tensors(rows.observations, device),
                on_device(timesteps, device),
            )
            predictions = decoder.step(inputs)
            actions = self.exploration.actions(predictions, keys, timesteps, epsilon)
            taken = actions.cpu().numpy().astype(rows.actions.dtype)
            chosen = None
            if self.with_behaviour:
                chosen = self.exploration.log_probabilities(predictions, actions).cpu()
            if not unroll.step(taken, chosen, self.account):
                break
        unroll.see_last()

    def _remember(self, batch: Batch, before: State) -> None:
        """Computes the states that the next unrolls are acted and learnt from."""
        if self.rows.over.all():
            self._shared = None
            return
        device = next(self.model.parameters()).device
        steps = replace(batch, following=None, behaviour=None).to(device)
        self._state = self._before = self.model.features(steps, before)[1]
        if self.overlap:
            counts = batch.mask.sum(1, keepdim=True)  # (N, 1)
            earlier = torch.arange(batch.num_steps) < counts - self.overlap  # (N, T + 1)
            cut = replace(steps, mask=steps.mask & on_device(earlier, device))
            self._before = self.model.features(cut, before)[1]
            self._shared = last_steps(batch, self.overlap)

    def state_dict(self) -> dict[str, Any]:
        """Returns the episodes and the memory of the rows, and the account."""
        return {
            "rows": self.rows.state_dict(),
            "memory": _on_host(self._state),
            "before": _on_host(self._before),
            "shared": None if self._shared is None else named_parts(self._shared),
            "account": self.account.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on where a collector was.

        Raises:
            TrainingError: If an episode takes another course than before.
        """
        self.rows.load_state_dict(state["rows"])
        self._state, self._before = (self._on_device(state[n]) for n in ("memory", "before"))
        self._shared = None if state["shared"] is None else batch_of(state["shared"])
        self.account.load_state_dict(state["account"])

    def _on_device(self, tensors: dict[str, Tensor]) -> State:
        first = self.model.initial_state(self.rows.num_envs)
        kinds = first.tensors()
        return first.with_tensors({name: part.to(kinds[name]) for name, part in tensors.items()})


def _on_host(state: State) -> dict[str, Tensor]:
    """Returns the tensors of a state on the host, numbers in float32."""
    parts = {name: part.detach().cpu() for name, part in state.tensors().items()}
    return {
        name: part.float() if part.is_floating_point() else part for name, part in parts.items()
    }


def _to_tensors(observations: Observations, device: torch.device) -> Any:
    if isinstance(observations, dict):
        return {key: _to_tensors(part, device) for key, part in observations.items()}
    return on_device(torch.as_tensor(np.asarray(observations)), device)
