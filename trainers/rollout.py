"""Vectorised rollouts of a policy, and the scores made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.model import SequenceModel
from rate.policy import Policy
from trainers.config import EvaluationConfig

MakeVector = Callable[[int, int], "gymnasium.vector.VectorEnv[Any, Any, Any]"]


@dataclass(frozen=True)
class RolloutResult:
    """One episode per row.

    Attributes:
        returns: `(B,)` float64, undiscounted sums of rewards.
        lengths: `(B,)` int64, actions taken.
        successes: `(B,)` bool, what the environment said at the end; None where it says nothing.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    successes: NDArray[np.bool_] | None


def rollout(
    policy: Policy,
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_step: Callable[[int], None] | None = None,
) -> RolloutResult:
    """Play one episode in every row of `env`; a row that has finished counts no more.

    Args:
        policy: With as many rows as the environment; it starts new episodes in all of them.
        env: Without autoreset, so that finished rows wait for the others.
        seeds: Of the rows' episodes.
        max_steps: Steps after which the episodes that still run are cut; None waits for the end.
        on_step: Told the number of steps taken, after each of them.
    """
    count = len(seeds)
    returns, lengths = np.zeros(count), np.zeros(count, dtype=np.int64)
    successes, tells = np.zeros(count, dtype=bool), False
    running = np.ones(count, dtype=bool)
    # Gymnasium's vector environments take a list; its annotation of the base class does not say so.
    observations, _ = env.reset(seed=list(seeds))  # type: ignore[arg-type]
    policy.reset()
    actions = policy.act(observations)
    step = 0
    while True:
        observations, rewards, terminated, truncated, info = env.step(actions)
        step += 1
        returns += np.where(running, rewards, 0.0)
        lengths += running
        ended = running & (terminated | truncated)
        if "success" in info:
            tells = True
            successes |= ended & np.asarray(info["success"], dtype=bool)
        running &= ~ended
        if on_step is not None:
            on_step(step)
        if not running.any() or step == max_steps:
            return RolloutResult(returns, lengths, successes if tells else None)
        actions = policy.act(observations, rewards)


def check_lengths(make_vector: MakeVector, lengths: Sequence[int], name: str) -> None:
    """Find an episode length that the environment does not have before anything is rolled out.

    Raises:
        ConfigError: If there is one, saying so of the setting `name`.
    """
    for length in lengths:
        try:
            make_vector(1, length).close()
        except ValueError as error:
            raise ConfigError(f"{name} has {length}: {error}.") from error


def evaluate(
    model: SequenceModel,
    spec: EnvironmentSpec,
    make_vector: MakeVector,
    config: EvaluationConfig,
    *,
    lengths: Sequence[int],
    first_seed: int,
    on_step: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Score a model by rollouts: a row per episode length.

    Training's random state is left alone, and the model stays in the mode it is in.

    Args:
        model: The model.
        spec: Of its environment; its target return is asked for unless the settings have one.
        make_vector: Makes the environment from a number of rows and an episode length.
        config: Episodes, target return and decoding.
        lengths: Episode lengths.
        first_seed: Episode `i` of each length has the seed `first_seed + i`.
        on_step: Told the episode length and the number of steps taken, after each of them.

    Returns:
        Rows of `length`, `episodes`, `success` and `sem` (its standard error; both None where the
        environment tells no success), `return` and `return_sem`.
    """
    seeds = range(first_seed, first_seed + config.episodes)
    target = spec.target_return if config.target_return is None else config.target_return
    rows = []
    for length in lengths:
        env = make_vector(config.episodes, length)
        policy = Policy(
            model,
            num_envs=config.episodes,
            target_return=target,
            decoding=config.decoding,
            seed=first_seed,
            exact_window=config.exact_window,
        )
        report = None if on_step is None else _for_length(on_step, length)
        with _one_thread(policy.device):
            result = rollout(policy, env, seeds, on_step=report)
        env.close()
        rows.append({"length": length, "episodes": config.episodes, **_scores(result)})
    return rows


def _for_length(on_step: Callable[[int, int], None], length: int) -> Callable[[int], None]:
    return lambda step: on_step(length, step)


def _scores(result: RolloutResult) -> dict[str, float | None]:
    success = sem = None
    if result.successes is not None:
        success, sem = _mean_and_sem(result.successes)
    mean_return, return_sem = _mean_and_sem(result.returns)
    return {"success": success, "sem": sem, "return": mean_return, "return_sem": return_sem}


def _mean_and_sem(values: NDArray[Any]) -> tuple[float, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), deviation / math.sqrt(len(values))


@contextmanager
def _one_thread(device: torch.device) -> Iterator[None]:
    """One CPU thread: a step of a small model is over before a second one has woken up."""
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
