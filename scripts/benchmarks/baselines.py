"""What the sampler and the rollout are measured against, written from its description."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from datamodules.episodes import Array
from datamodules.store import Store
from rate.batch import Batch
from rate.config import Decoding
from rate.model import SequenceModel


def per_sample_batch(store: Store, batch_size: int, window: int, rng: np.random.Generator) -> Batch:
    """A batch as Decision Transformer's code builds it: one sample after the other, in Python.

    Returns-to-go are summed anew for every sample, to the end of its episode; everything is padded
    by concatenation, made float32 (pixels divided by 255), and stacked in the end.
    """
    samples = [_sample(store, window, rng) for _ in range(batch_size)]
    stacked = {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}
    return Batch(**{name: torch.from_numpy(value) for name, value in stacked.items()})


def _sample(store: Store, window: int, rng: np.random.Generator) -> dict[str, Array]:
    index = int(rng.choice(store.num_episodes, p=store.lengths / store.num_steps))
    episode = store.episode(index)
    start = int(rng.integers(len(episode)))
    steps = slice(start, start + window)
    observations = np.asarray(episode.observations)[steps]
    if observations.dtype == np.uint8:
        observations = observations / 255
    real = len(observations)
    returns = _sums_to_the_end(episode.rewards[start:])[:real]

    is_end = np.arange(start, start + real) == len(episode) - 1

    def pad(values: Array) -> Array:
        return np.concatenate((values, np.zeros((window - real, *values.shape[1:]), values.dtype)))

    return {
        "observations": pad(observations.astype(np.float32)),
        "actions": pad(episode.actions[steps]),
        "returns_to_go": pad(returns[:, None]),
        "timesteps": pad(np.arange(start, start + real)),
        "mask": pad(np.ones(real, dtype=bool)),
        "rewards": pad(episode.rewards[steps]),
        "terminated": pad(is_end & episode.terminated),
        "truncated": pad(is_end & episode.truncated),
    }


def _sums_to_the_end(rewards: Array) -> Array:
    sums = np.zeros_like(rewards, dtype=np.float32)
    sums[-1] = rewards[-1]
    for step in reversed(range(len(rewards) - 1)):
        sums[step] = rewards[step] + sums[step + 1]
    return sums


class FullWindowPolicy:
    """One agent that hands its model the whole window again at every step.

    Args:
        model: The model, in evaluation mode.
        target_return: The return asked for.
    """

    def __init__(self, model: SequenceModel, target_return: float) -> None:
        self.model, self.target_return = model.eval(), target_return
        self.device = next(model.parameters()).device
        self.reset()

    def reset(self, *_: object, **__: object) -> None:
        """Begin an episode."""
        self._state = self.model.initial_state(1)
        self._history: list[tuple[Array, Array, float, int]] = []
        self._return, self._time = self.target_return, 0

    @torch.no_grad()
    def act(self, observation: Array, reward: Array | None = None) -> Array:
        """The next action, of a batch of one.

        Args:
            observation: `(1, *obs)`.
            reward: `(1,)` what the last action earned; None, or no matter what, at the first step.
        """
        config = self.model.config
        if reward is not None and self._time:
            self._return -= float(reward[0])
        # The action of this step is not known yet; causality keeps what stands there unseen.
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
