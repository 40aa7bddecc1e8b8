"""The rows of a vector environment, each in an episode of its own, between two unrolls.

They can be saved: the environments themselves cannot, but an episode is a function of its seed and
its actions, and is played again.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rate.envs.autoreset import ROW_RESETS, without_autoreset
from rate.errors import ConfigError
from trainers.errors import TrainingError

Array = NDArray[Any]
Observations = Array | dict[str, Array]
VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
# Seeds of training episodes begin here: those of evaluations and of generated data are below.
_FIRST_SEED, _SEEDS_EACH, _RUNS = 1 << 60, 1 << 36, 1 << 20


class EpisodeRows:
    """The episodes that `N` rows are in.

    Args:
        env: The vector environment.
        seed: The seed of the run, which decides the seeds of all episodes.

    Attributes:
        episodes: `(N,)` int64, the number of each row's episode in the run; -1 before the first.
        timesteps: `(N,)` int64, steps taken in it.
        over: `(N,)` bool, whether it has ended, so that the next unroll begins another.
        observations: `(N, *obs)`, the newest observations, or a dictionary of such arrays.
        actions: `(N, *action)`, the last actions; zeros before the first.
        begun: The number of episodes that have begun.

    Raises:
        ConfigError: If the environment cannot reset some rows alone.
    """

    def __init__(self, env: VectorEnv, seed: int) -> None:
        self.env = without_autoreset(env)
        if not self.env.metadata.get(ROW_RESETS, True):
            raise ConfigError(
                f"{env} cannot reset some of its rows alone, which training in it needs; use "
                "gymnasium.vector.SyncVectorEnv."
            )
        count, space = env.num_envs, env.single_action_space
        self._base = _FIRST_SEED + (seed % _RUNS) * _SEEDS_EACH
        self.episodes = np.full(count, -1, dtype=np.int64)
        self.timesteps, self.over = np.zeros(count, dtype=np.int64), np.ones(count, dtype=bool)
        self.observations: Observations = np.zeros(0)
        self.actions: Array = np.zeros((count, *(space.shape or ())), space.dtype)
        self.begun = 0
        self._played: list[list[Array]] = [[] for _ in range(count)]  # actions of the episodes

    @property
    def num_envs(self) -> int:
        return len(self.over)

    def seeds(self) -> list[int]:
        """Returns the environment seed of each row's episode."""
        return [self._base + max(int(episode), 0) for episode in self.episodes]

    def begin(self) -> Array:
        """Begins the next episodes in the rows whose episode is over; returns these, `(N,)` bool.

        Raises:
            TrainingError: If an observation is not finite.
        """
        begun = self.over.copy()
        if begun.any():
            count = int(begun.sum())
            self.episodes[begun] = np.arange(self.begun, self.begun + count)
            self.begun += count
            self.timesteps[begun], self.actions[begun], self.over[begun] = 0, 0, False
            for row in np.flatnonzero(begun):
                self._played[row] = []
            self._see(self._reset(begun))
        return begun

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """Takes a step in the rows whose episode is not over.

        Returns:
            Rewards `(N,)`, terminated `(N,)` and truncated `(N,)`, all 0 in other rows; the rows
            `(N,)` whose episode was lost, since the process of its simulator died; and the
            environment's info.

        Raises:
            TrainingError: If a reward or an observation is not finite.
        """
        going = ~self.over
        seen, rewards, terminated, truncated, info = self.env.step(actions)
        lost = np.asarray(info.pop("restarted", np.zeros_like(going)), dtype=bool) & going
        for row in np.flatnonzero(going):
            self._played[row].append(actions[row].copy())
        self.actions[going] = actions[going]
        self.timesteps[going] += 1
        self._see(seen)
        rewards = np.where(going & ~lost, rewards, 0.0)
        self._check(np.isfinite(rewards), "reward")
        terminated, truncated = (np.asarray(x) & going & ~lost for x in (terminated, truncated))
        self.over |= terminated | truncated | lost
        return rewards, terminated, truncated, lost, info

    def state_dict(self) -> dict[str, Any]:
        """Returns what the rows can be brought back from."""
        running = [[] if over else p for over, p in zip(self.over, self._played, strict=True)]
        flat = [action for row in running for action in row]
        actions = np.stack(flat) if flat else self.actions[:0]
        return {
            "episodes": torch.from_numpy(self.episodes.copy()),
            "over": torch.from_numpy(self.over.copy()),
            "begun": self.begun,
            "played": torch.from_numpy(actions.copy()),
            "lengths": [len(row) for row in running],
            "observations": [torch.from_numpy(part.copy()) for part in _parts(self.observations)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Plays the running episodes again, up to where they were.

        Raises:
            TrainingError: If an episode takes another course.
        """
        self.episodes, self.over = state["episodes"].numpy().copy(), state["over"].numpy().copy()
        self.begun = int(state["begun"])
        played, lengths = state["played"].numpy(), np.array(state["lengths"])
        starts = np.cumsum(lengths) - lengths
        self._played = [
            [action.copy() for action in played[start : start + length]]
            for start, length in zip(starts, lengths, strict=True)
        ]
        self._play_again(int(lengths.max(initial=0)), lengths)
        self.timesteps = lengths.astype(np.int64)
        for row, actions in enumerate(self._played):
            self.actions[row] = actions[-1] if actions else 0
        for mine, saved in zip(_parts(self.observations), state["observations"], strict=True):
            if not np.array_equal(mine[~self.over], saved.numpy()[~self.over]):
                raise TrainingError(
                    f"The episodes of {self.env} take another course than before, from the same "
                    "seeds and actions, so that the run cannot go on. Its environment has changed, "
                    "or draws random numbers that its seed does not decide. Start a new run that "
                    "begins with its weights: --init RUN."
                )

    def _play_again(self, longest: int, lengths: Array) -> None:
        """Steps all rows so that each ends where it was: the shorter an episode, the later."""
        blank = _any_actions(self.env.single_action_space, self.num_envs)
        seen = self._reset(np.ones_like(self.over))
        for tick in range(longest):
            begins = (lengths == longest - tick) & (lengths > 0)
            if tick and begins.any():
                seen = self._reset(begins)
            actions = blank.copy()
            for row in np.flatnonzero(lengths >= longest - tick):
                actions[row] = self._played[row][tick - (longest - lengths[row])]
            seen = self.env.step(actions)[0]
        self._observe(seen)

    def _reset(self, rows: Array) -> Observations:
        env: Any = self.env
        seen: Observations = env.reset(seed=self.seeds(), options={"reset_mask": rows})[0]
        return seen

    def _see(self, seen: Observations) -> None:
        self._observe(seen)
        for part in _parts(self.observations):
            if part.dtype.kind == "f":
                finite = np.asarray(np.isfinite(part).reshape(len(part), -1).all(1))
                self._check(finite, "observation")

    def _observe(self, seen: Observations) -> None:
        both = isinstance(seen, dict)
        self.observations = {k: np.asarray(v) for k, v in seen.items()} if both else seen  # type: ignore[union-attr]

    def _check(self, finite: Array, what: str) -> None:
        """Raises an error if a running row has a number that is not finite."""
        for row in np.flatnonzero(~finite & ~self.over):
            raise TrainingError(
                f"The environment has a {what} that is not finite at step {self.timesteps[row]} "
                f"of the episode with the seed {self.seeds()[row]}. Nothing can be learnt from it: "
                "correct the environment."
            )


def _any_actions(space: gymnasium.Space[Any], count: int) -> Array:
    """Returns valid actions `(N, *action)`, always the same."""
    drawn = deepcopy(space)
    drawn.seed(0)
    return np.stack([np.asarray(drawn.sample(), space.dtype)] * count)


def _parts(observations: Observations) -> list[Array]:
    """Returns the arrays of observations."""
    return list(observations.values()) if isinstance(observations, dict) else [observations]
