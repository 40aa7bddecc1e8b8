"""Vectorised rollouts of a policy."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rate.envs.autoreset import ROW_RESETS, without_autoreset
from rate.model import SequenceModel
from rate.policy import Policy, evaluating
from trainers.config import EvaluationConfig
from trainers.environment import Environment, Length, MakeVector
from trainers.environment_errors import environment_errors
from trainers.episode_rows import Record, RolloutResult, Rows
from trainers.policies import make_policy
from trainers.scores import scores

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
OnProgress = Callable[[Length, float], None]  # called with a length and the completed share
_GROUPS = 2  # groups of rows with worker processes: one computes actions while the other steps
_OVER = object()


def rollout(
    policies: Sequence[Policy],
    envs: Sequence[VectorEnv],
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
    trained_range: tuple[float, float] | None = None,
) -> RolloutResult:
    """Run one episode per seed; a row that has finished continues with the next seed.

    With several environments, each with its policy, the simulators of one step while the policy of
    the next computes actions, if the environment has `step_async`. The order of turns is fixed, so
    that results do not depend on speed.

    An episode with a non-finite reward or observation ends at that step, and its return is not
    finite.

    Args:
        policies: One per environment, with as many rows; all rows start new episodes.
        envs: Vector environments in any autoreset mode of Gymnasium. One that restarts an episode
            reports it in `info["restarted"]`.
        seeds: One seed per episode.
        max_steps: Steps after which running episodes are truncated; None has no limit.
        on_step: Called after every step with the number of ended episodes and the number of steps
            of the running ones.
        trained_range: Minimum and maximum return-to-go of the training data, to count steps outside
            of it; None counts none.

    Raises:
        UserError: If an environment does not declare its autoreset mode, or does not accept a seed
            per row.
        ValueError: If there are no seeds, or one is not in [0, 2^64).
    """
    if not len(seeds) or min(seeds) < 0 or max(seeds) >= 1 << 64:
        raise ValueError(f"the seeds of the episodes are {seeds}; they must be in [0, 2^64)")
    record = Record(seeds, trained_range)
    games = [
        _play_all(policy, without_autoreset(env), record, max_steps, on_step)
        for policy, env in zip(policies, envs, strict=True)
    ]
    while games:
        games = [game for game in games if next(game, _OVER) is not _OVER]
    return record.result()


def _play_all(
    policy: Policy,
    env: VectorEnv,
    record: Record,
    max_steps: int | None,
    on_step: Callable[[int, int], None] | None,
) -> Iterator[None]:
    """Run all episodes; rows restart one by one, or together if only all rows can be reset."""
    refill = bool(env.metadata.get(ROW_RESETS, True))
    while record.left:
        yield from play(policy, env, Rows(env.num_envs, record, refill), max_steps, on_step)
        if refill:
            return


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


def row_groups(env: Any) -> list[VectorEnv]:
    """Returns the groups of rows that alternate; one group if the environment cannot be split."""
    groups: list[VectorEnv] = env.groups(_GROUPS) if hasattr(env, "groups") else [env]
    return groups


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


def evaluate(
    model: SequenceModel,
    environment: Environment,
    config: EvaluationConfig,
    *,
    lengths: Sequence[Length],
    first_seed: int,
    episodes: int | None = None,
    make_vector: MakeVector | None = None,
    on_progress: OnProgress | None = None,
    trained_range: tuple[float, float] | None = None,
) -> list[dict[str, Any]]:
    """Returns the scores of a model in rollouts, a row per length.

    Does not change the random state of training or the mode of the model.

    Args:
        model: The model.
        environment: The environment; its target return is used unless the settings have one.
        config: Episodes, target return and decoding.
        lengths: Episode lengths, in the environment's unit; None is its own length.
        first_seed: Episode `i` of each length has the seed `first_seed + i`.
        episodes: Episodes per length; None takes the settings' number.
        make_vector: Makes vector environments, which are not closed here; None takes the
            environment's own.
        on_progress: Called periodically with the length and the completed share of its episodes.
        trained_range: Minimum and maximum return-to-go of the training data; None if unknown.

    Raises:
        UserError: If the environment raises, or does not support rollouts.

    Returns:
        A row of scores for each length; see `trainers.scores.scores`.
    """
    count = episodes or config.episodes
    seeds = range(first_seed, first_seed + count)
    num_envs = min(count, config.num_envs or environment.num_envs or count)
    if not model.config.condition_on_return:
        trained_range = None
    rows = []
    for length in lengths:
        env = (make_vector or environment.make_vector)(num_envs, length)
        groups = row_groups(env)
        policies = [
            make_policy(
                model,
                config,
                environment.spec.target_return,
                num_envs=group.num_envs,
                trained_range=trained_range,
                seed=first_seed,
            )
            for group in groups
        ]
        report = None
        if on_progress is not None:
            on_progress(length, 0.0)
            report = partial(_tell, on_progress, length, count, environment.steps_at(length))
        try:
            acting = acting_threads(env, policies[0].device)
            with environment_errors(environment.spec.name), acting, evaluating(model):
                result = rollout(
                    policies, groups, seeds, on_step=report, trained_range=trained_range
                )
        finally:
            if make_vector is None:
                env.close()
        played = environment.steps_at(None) if length is None else length
        known: dict[str, Any] = {"length": played, "episodes": count, "first_seed": first_seed}
        if config.return_to_go != "decrease":
            known["return_to_go"] = config.return_to_go
        rows.append({**known, **scores(result, environment.group)})
    return rows


def _tell(
    on_progress: OnProgress,
    length: Length,
    episodes: int,
    longest: int,
    ended: int,
    steps: int,
) -> None:
    """Report the completed share, estimated from ended episodes and steps of running ones."""
    on_progress(length, min(1.0, (ended + steps / longest) / episodes))


@contextmanager
def acting_threads(env: Any, device: torch.device) -> Iterator[None]:
    """Use at most two CPU threads, and one if simulators run in worker processes.

    A step of a small model takes less time than starting a third thread.

    Args:
        env: The environment of the rollout.
        device: The device of the model.
    """
    threads = torch.get_num_threads()
    if device.type == "cpu":
        torch.set_num_threads(1 if hasattr(env, "step_async") else min(threads, 2))
    try:
        yield
    finally:
        torch.set_num_threads(threads)
