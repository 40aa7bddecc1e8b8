"""Vectorised rollouts of a policy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from rate.envs.autoreset import without_autoreset
from rate.envs.row_errors import episode_note, failed_seed
from rate.errors import UserError
from rate.model import SequenceModel
from rate.policy import Policy, evaluating
from trainers.config import EvaluationConfig
from trainers.environment import Environment, Length, MakeVector
from trainers.environment_errors import environment_errors
from trainers.episode_rows import Record, RolloutResult
from trainers.gathering import gather
from trainers.playing import Game, VectorEnv
from trainers.policies import make_policy
from trainers.scores import scores
from trainers.shared_rollouts import joined, own_share

OnProgress = Callable[[Length, float], None]  # called with a length and the completed share
_GROUPS = 2  # groups of rows with worker processes: one computes actions while the other steps
_LOG = logging.getLogger(__name__)


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

    An episode that fails is repeated with its seed: its simulator dies, the environment raises an
    exception, or a reward or an observation is not finite. After `MOST_FAILURES` repetitions it
    ends, and its return is not finite.

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
        Game(policy, without_autoreset(env), record, max_steps, on_step)
        for policy, env in zip(policies, envs, strict=True)
    ]
    while games:
        try:
            games = [game for game in games if game.turn()]
        except Exception as error:
            seed = failed_seed(error)
            if seed is None:
                raise
            _LOG.warning("%r was %s, which is repeated", error, episode_note(error))
            try:
                record.fail(np.flatnonzero(np.asarray(seeds) == seed), repr(error))
            except UserError:
                raise error from error.__cause__
            for game in games:  # rows of one vector share its processes
                game.restart()
    return record.result()


def row_groups(env: Any) -> list[VectorEnv]:
    """Returns the groups of rows that alternate; one group if the environment cannot be split."""
    groups: list[VectorEnv] = env.groups(_GROUPS) if hasattr(env, "groups") else [env]
    return groups


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

    The processes of a run share the episodes out, and all return the same.

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
    seeds = range(first_seed, first_seed + (episodes or config.episodes))
    own = own_share(seeds)
    part = []
    if own:
        part = play_lengths(
            model,
            environment,
            config,
            lengths=lengths,
            seeds=own,
            make_vector=make_vector,
            on_progress=on_progress,
            trained_range=trained_range,
            policy_seed=first_seed,
        )
    results = joined(gather(part))
    return score_lengths(environment, config, results, lengths=lengths, seeds=seeds)


def play_lengths(
    model: SequenceModel,
    environment: Environment,
    config: EvaluationConfig,
    *,
    lengths: Sequence[Length],
    seeds: Sequence[int],
    make_vector: MakeVector | None = None,
    on_progress: OnProgress | None = None,
    trained_range: tuple[float, float] | None = None,
    policy_seed: int | None = None,
) -> list[RolloutResult]:
    """Returns the episodes of each length, one per seed; the arguments are those of `evaluate`.

    `policy_seed` is the seed of sampled actions; None takes the first of `seeds`.
    """
    count = len(seeds)
    num_envs = min(count, config.num_envs or environment.num_envs or count)
    if not model.config.condition_on_return:
        trained_range = None
    results = []
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
                seed=seeds[0] if policy_seed is None else policy_seed,
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
        results.append(result)
    return results


def score_lengths(
    environment: Environment,
    config: EvaluationConfig,
    results: Sequence[RolloutResult],
    *,
    lengths: Sequence[Length],
    seeds: Sequence[int],
) -> list[dict[str, Any]]:
    """Returns the row of scores of each length; the arguments are those of `evaluate`."""
    rows = []
    for length, result in zip(lengths, results, strict=True):
        played = environment.steps_at(None) if length is None else length
        known: dict[str, Any] = {"length": played, "episodes": len(seeds), "first_seed": seeds[0]}
        is_told = result.outside is not None  # the model is given returns-to-go
        if is_told or config.return_to_go != EvaluationConfig.return_to_go:
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
