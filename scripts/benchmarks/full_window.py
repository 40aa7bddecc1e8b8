"""The baseline of the rollout: one environment, whose whole window is recomputed at every step."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import Array
from rate.batch import Batch
from rate.config import Decoding
from rate.model import SequenceModel


class FullWindowPolicy:
    """A policy of one environment that gives its model the whole window at every step.

    Args:
        model: The model.
        target_return: The return to ask for.
    """

    def __init__(self, model: SequenceModel, target_return: float) -> None:
        self.model, self.target_return = model.eval(), target_return
        self.device = next(model.parameters()).device
        self.reset()

    def reset(self, *_: object, **__: object) -> None:
        """Begins an episode."""
        self._state = self.model.initial_state(1)
        self._history: list[tuple[Array, Array, float, int]] = []
        self._return, self._time = self.target_return, 0

    @torch.no_grad()
    def act(self, observation: Array, reward: Array | None = None) -> Array:
        """Returns the next action, as a batch of one.

        Args:
            observation: `(1, *obs)`.
            reward: `(1,)` reward of the last action; ignored at the first step.
        """
        config = self.model.config
        if reward is not None and self._time:
            self._return -= float(reward[0])
        # The action of this step is not known yet; the causal mask hides the placeholder.
        space = self.model.action_space
        blank = np.zeros((1, *(space.shape or ())), space.dtype)
        self._history.append((observation, blank, self._return, self._time))
        self._time += 1
        predictions, _ = self.model(self._window(), self._state)
        action = self.model.head.decode(predictions[:, -1], Decoding()).cpu().numpy()
        self._history[-1] = (observation, action, *self._history[-1][2:])
        if len(self._history) == config.context_length:
            if self.model.config.carries_state:
                self._state = self.model(self._window(), self._state)[1]
                self._history.clear()
            else:
                del self._history[0]
        return np.asarray(action)

    def _window(self) -> Batch:
        observations, actions, returns, times = zip(*self._history, strict=True)

        def tensor(values: tuple[Array, ...]) -> Tensor:
            return torch.from_numpy(np.stack(values, axis=1)).to(self.device)

        steps = len(times)
        ones = torch.ones(1, steps, device=self.device)
        return Batch(
            observations=tensor(observations),
            actions=tensor(actions),
            returns_to_go=torch.tensor(returns, device=self.device).view(1, steps, 1),
            timesteps=torch.tensor(times, device=self.device).view(1, steps),
            mask=ones.bool(),
            rewards=ones,
            terminated=ones.bool(),
            truncated=ones.bool(),
        )
