"""Plays the episodes of a rollout in one vector environment."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from rate.envs.autoreset import ROW_RESETS
from rate.policy import Policy
from trainers.episode_rows import Record, Rows

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
_OVER = object()


class Game:
    """The rollout of one environment; its rows take episodes from the record."""

    def __init__(
        self,
        policy: Policy,
        env: VectorEnv,
        record: Record,
        max_steps: int | None,
        on_step: Callable[[int, int], None] | None,
    ) -> None:
        self._record, self._played = record, (policy, env)
        self._how = max_steps, on_step
        self._refill = bool(env.metadata.get(ROW_RESETS, True))
        self._begin()

    def turn(self) -> bool:
        """Make one request to the simulators. Returns whether there is more to play."""
        if next(self._turns, _OVER) is not _OVER:
            return True
        if self._refill or not self._record.left:
            return False
        self._begin()
        return True

    def restart(self) -> None:
        """Begin the episodes of all rows again."""
        self._rows.restart()
        self._turns = play(*self._played, self._rows, *self._how)

    def _begin(self) -> None:
        self._rows = Rows(self._played[1].num_envs, self._record, self._refill)
        self._turns = play(*self._played, self._rows, *self._how)


def play(
    policy: Policy,
    env: VectorEnv,
    rows: Rows,
    max_steps: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[None]:
    """Run the rollout of one environment as a generator; see `rollout`.

    Yields after each step or reset request to the simulators.
    """
    nobody = np.zeros(env.num_envs, dtype=bool)
    if not rows.running.any():
        return
    observations, _ = yield from _reset(env, seed=rows.seeds)
    policy.reset(episodes=rows.seeds)
    rewards, step = None, 0
    while True:
        observations = rows.without_nan(observations)
        actions = policy.act(observations, rewards)
        rows.note_returns_to_go(policy)
        observations, rewards, terminated, truncated, info = yield from _step(env, actions)
        step += 1
        fresh = np.asarray(info.pop("restarted", nobody), dtype=bool)
        rows.add(rewards, fresh)
        again = rows.end(rows.running & (terminated | truncated | rows.not_finite), info)
        if on_step is not None:
            on_step(*rows.record.progress())
        if not rows.running.any() or step == max_steps:
            return
        if again.any():
            options = {"reset_mask": again}
            observations, info = yield from _reset(env, seed=rows.seeds, options=options)
            restarted = np.asarray(info.get("restarted", nobody), dtype=bool)
            rows.forget(restarted)
            fresh = fresh | again | restarted
        if fresh.any():
            policy.reset(fresh, episodes=rows.seeds)
        rewards = np.where(np.isfinite(rewards), rewards, 0.0)  # of ended rows


def _reset(env: Any, **how: Any) -> Generator[None, None, Any]:
    """Reset an environment; yields while it works."""
    if not hasattr(env, "step_async"):
        yield
        return env.reset(**how)
    env.reset_async(**how)
    yield
    return env.reset_wait()


def _step(env: Any, actions: NDArray[Any]) -> Generator[None, None, Any]:
    """Step an environment; yields while it works."""
    if not hasattr(env, "step_async"):
        yield
        return env.step(actions)
    env.step_async(actions)
    yield
    return env.step_wait()
