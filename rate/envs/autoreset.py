"""Wraps vector environments of any autoreset mode into ones without autoreset.

In this package a finished row waits until `reset` starts an episode of a given seed in it. Vector
environments of Gymnasium start the next episode themselves, unseeded, one step later (`NEXT_STEP`)
or in the same step (`SAME_STEP`), or must not be stepped before all finished rows are reset
(`DISABLED`); see https://farama.org/Vector-Autoreset-Mode. A rollout that ignored the mode would
count steps of the wrong episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv, VectorWrapper
from numpy.typing import NDArray

from rate.errors import UserError

# In the metadata of vector environments whose finished rows keep their observation and flags, with
# reward 0, until they are reset.
WAITING = {"autoreset_mode": AutoresetMode.DISABLED, "finished_rows": "wait"}
# Key of the metadata: False if all rows must be reset together, since `reset_mask` may be ignored.
ROW_RESETS = "row_resets"

Array = NDArray[Any]


def without_autoreset(env: Any) -> VectorEnv[Any, Any, Any]:
    """Returns the environment if its finished rows wait for `reset`, else a wrapper whose rows do.

    Raises:
        UserError: If it is not a vector environment, has no valid `autoreset_mode` in its metadata,
            or is an `AsyncVectorEnv` without shared memory in mode `NEXT_STEP`, which resets rows
            again after `reset`.
    """
    if not hasattr(env, "num_envs"):
        raise UserError(
            f"{env} is a single environment; rollouts need rows of them, for example "
            "gymnasium.vector.SyncVectorEnv([make_env])."
        )
    metadata = getattr(env, "metadata", None) or {}
    if metadata.items() >= WAITING.items() and _passes_reset_mask(env):
        waiting: VectorEnv[Any, Any, Any] = env
        return waiting
    try:
        mode = AutoresetMode(metadata.get("autoreset_mode"))
    except ValueError:
        raise UserError(
            f"{env} does not say what it does when an episode ends: its "
            f"metadata['autoreset_mode'] is {metadata.get('autoreset_mode')!r}. Set it to one of "
            "gymnasium.vector.AutoresetMode, or use gymnasium.vector.SyncVectorEnv."
        ) from None
    inner = env.unwrapped
    if (
        isinstance(inner, AsyncVectorEnv)
        and not inner.shared_memory
        and mode is AutoresetMode.NEXT_STEP
    ):
        raise UserError(
            f"{env}: an AsyncVectorEnv with shared_memory=False begins an episode once more that "
            "reset() has begun after the end of another (Gymnasium 1.4). Leave shared_memory on, "
            "or give it autoreset_mode=AutoresetMode.SAME_STEP."
        )
    return WaitingRows(env, mode)


if TYPE_CHECKING:
    Wrapper = VectorWrapper[Any, Any, Any, Any, Array]
else:  # not generic before Gymnasium 1.4
    Wrapper = VectorWrapper


class WaitingRows(Wrapper):
    """A vector environment whose finished rows wait until they are reset with a seed.

    Finished rows keep their last observation and flags, with reward 0. `info` is that of the step
    that ended an episode.

    Args:
        env: The environment.
        mode: Its autoreset mode.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], mode: AutoresetMode) -> None:
        super().__init__(env)
        self._mode = mode
        # `reset_mask` is part of mode DISABLED. In the other modes, only Gymnasium's own classes
        # are known to support it.
        own = type(env.unwrapped) in (SyncVectorEnv, AsyncVectorEnv)
        self._is_gymnasiums = own and _passes_reset_mask(env)
        row_resets = mode is AutoresetMode.DISABLED or self._is_gymnasiums
        self.metadata = {**env.metadata, **WAITING, ROW_RESETS: row_resets}
        self._seeds: list[int] | None = None
        self._observations: Any = None
        self._terminated, self._truncated = (np.ones(env.num_envs, dtype=bool) for _ in range(2))
        # Whether the inner environment's current episode has ended, also in rows that wait.
        self._ended = np.zeros(env.num_envs, dtype=bool)

    def reset(
        self, *, seed: int | Sequence[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start episodes in all rows, or in those of `options["reset_mask"]`.

        Raises:
            UserError: If the environment does not accept a seed for each row.
            ValueError: If the mask is partial and the environment cannot reset some rows only.
        """
        everywhere = np.ones(self.num_envs, dtype=bool)
        mask = np.asarray((options or {}).get("reset_mask", everywhere), dtype=bool)
        if not mask.all() and not self.metadata[ROW_RESETS]:
            raise ValueError(f"{self.env} cannot reset some rows only")
        others = {key: value for key, value in (options or {}).items() if key != "reset_mask"}
        if seed is not None and not isinstance(seed, (int, np.integer)):
            seed = self._seeds = [int(value) for value in seed]
        observations, info = self._reset(seed, mask, others)
        self._observations = _where(mask, observations, self._observations)
        for flags in (self._terminated, self._truncated, self._ended):
            flags[mask] = False
        return _where(mask, self._observations, self._observations), _without_restarts(info)

    def step(self, actions: Any) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Step with actions `(N, *action)`; those of waiting rows have no effect on the results.

        Returns:
            Observations, rewards `(N,)`, terminated `(N,)`, truncated `(N,)` and `info`.
        """
        if self._mode is AutoresetMode.DISABLED and self._ended.any():
            # Finished rows must not be stepped. The episodes that start here are not scored.
            self._reset(self._seeds, self._ended, {})
        observations, rewards, terminated, truncated, info = self.env.step(actions)
        terminated, truncated = (np.array(flags, dtype=bool) for flags in (terminated, truncated))
        self._ended = terminated | truncated
        going = ~(self._terminated | self._truncated)
        ended = going & self._ended
        if self._mode is AutoresetMode.SAME_STEP and ended.any():
            observations, info = self._final(observations, info, ended)
        self._observations = _where(going, observations, self._observations)
        self._terminated[going], self._truncated[going] = terminated[going], truncated[going]
        return (
            _where(going, self._observations, self._observations),
            np.where(going, np.asarray(rewards, dtype=np.float64), 0.0),
            self._terminated.copy(),
            self._truncated.copy(),
            _without_restarts(info),
        )

    def _reset(self, seed: Any, mask: Array, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Reset the rows of `mask` `(N,)` bool, and check that the others have not changed.

        Raises:
            UserError: If the environment does not accept a seed for each row, or has reset others.
        """
        if not mask.all():
            options = {**options, "reset_mask": mask.copy()}
        try:
            result: tuple[Any, dict[str, Any]] = self.env.reset(seed=seed, options=options or None)
        except (TypeError, ValueError, gymnasium.error.Error) as error:
            if seed is None or self._is_gymnasiums:
                raise
            raise UserError(
                f"{self.env} does not take a seed for each row ({error}), so that its episodes "
                "cannot be told apart. Use gymnasium.vector.SyncVectorEnv or AsyncVectorEnv: "
                "gymnasium.make_vec(..., vectorization_mode='sync')."
            ) from error
        others = ~mask & ~self._terminated & ~self._truncated
        if not self._is_gymnasiums and not _equal(others, result[0], self._observations):
            raise UserError(
                f"{self.env} is of autoreset mode DISABLED, but has reset more rows than "
                "options['reset_mask'] of reset() has. See gymnasium.vector.AutoresetMode."
            )
        return result

    def _final(self, observations: Any, info: Any, ended: Array) -> tuple[Any, dict[str, Any]]:
        """Returns observations and `info` with the final ones in the rows of `ended` `(N,)` bool.

        Raises:
            UserError: If `info` has no `final_obs` and `final_info`.
        """
        if not isinstance(info, dict) or not {"final_obs", "final_info"} <= info.keys():
            raise UserError(
                f"{self.env} resets in the same step, but its info has no final_obs and "
                "final_info, so that what an episode ended with is not known."
            )
        seen = _where(np.ones_like(ended), observations, observations)
        for row in np.flatnonzero(ended).tolist():
            last = info["final_obs"][row]
            if isinstance(seen, dict):
                for key, array in seen.items():
                    array[row] = last[key]
            else:
                seen[row] = last
        return seen, info["final_info"]


def _passes_reset_mask(env: Any) -> bool:
    """Whether all wrappers around an environment are known to pass `reset_mask` on to it."""
    while isinstance(env, VectorWrapper):
        if not type(env).__module__.startswith(("gymnasium.", "rate.")):
            return False
        env = env.env
    return True


def _without_restarts(info: Any) -> dict[str, Any]:
    """Returns `info` without the key `restarted`, which this package reserves for dead workers.

    Raises:
        UserError: If `info` is not a dictionary.
    """
    if not isinstance(info, dict):
        raise UserError(
            f"The info of a vector environment is a {type(info).__name__}, and must be a "
            "dictionary of arrays; leave out wrappers like DictInfoToList."
        )
    return {key: value for key, value in info.items() if key != "restarted"}


def _where(rows: Array, new: Any, old: Any) -> Any:
    """Returns new arrays `(N, ...)`: `new` in the True rows of `rows` `(N,)`, else `old`."""
    if old is None:
        old = new
    if isinstance(new, dict):
        return {key: _where(rows, value, old[key]) for key, value in new.items()}
    new = np.asarray(new)
    return np.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, np.asarray(old))


def _equal(rows: Array, left: Any, right: Any) -> bool:
    """Whether observations `(N, *obs)` are equal in the True rows of `rows` `(N,)`."""
    if not rows.any():
        return True
    if isinstance(left, dict):
        return all(_equal(rows, value, right[key]) for key, value in left.items())
    return np.array_equal(np.asarray(left)[rows], np.asarray(right)[rows], equal_nan=True)
