"""Vectorised rollouts of a policy, and the scores made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray

from rate.model import SequenceModel
from rate.policy import Policy
from trainers.config import EvaluationConfig
from trainers.entries import EnvironmentEntry, MakeVector

VectorEnv = gymnasium.vector.VectorEnv[Any, Any, Any]
OnProgress = Callable[[int, float], None]  # told of a length, and the share that is done


@dataclass(frozen=True)
class RolloutResult:
    """A number of episodes.

    Attributes:
        returns: `(E,)` float64, undiscounted sums of rewards.
        lengths: `(E,)` int64, actions taken.
        outcomes: What the environment said of each episode at its end, `(E,)` float64 by name; for
            example `success`. An episode that was cut has 0.
    """

    returns: NDArray[np.float64]
    lengths: NDArray[np.int64]
    outcomes: dict[str, NDArray[np.float64]] = field(default_factory=dict)


class _Rows:
    """The rows of a vector environment, and the episode that each of them plays."""

    def __init__(self, num_envs: int, num_episodes: int) -> None:
        self.returns, self.lengths = np.zeros(num_episodes), np.zeros(num_episodes, dtype=np.int64)
        self.outcomes: dict[str, NDArray[np.float64]] = {}
        self.episode = np.arange(num_envs)
        self.running = np.ones(num_envs, dtype=bool)
        self.next = num_envs

    def add(self, rewards: NDArray[Any], restarted: NDArray[Any]) -> None:
        """Count a step. A row whose simulator was restarted begins its episode again."""
        played = self.episode[self.running & ~restarted]
        self.returns[played] += rewards[self.running & ~restarted]
        self.lengths[played] += 1
        self.forget(restarted)

    def forget(self, restarted: NDArray[Any]) -> None:
        """Count nothing of the episodes under way in these rows: they begin again."""
        again = self.episode[self.running & restarted]
        self.returns[again], self.lengths[again] = 0.0, 0

    def end(self, ended: NDArray[np.bool_], info: dict[str, Any]) -> NDArray[np.bool_]:
        """Note how rows ended; returns those that go on with another episode, `(N,)` bool."""
        for name, values in info.items():
            if name.startswith("_") or np.asarray(values).dtype.kind not in "biuf":
                continue
            known = self.outcomes.setdefault(name, np.zeros(len(self.returns)))
            known[self.episode[ended]] = np.asarray(values, dtype=np.float64)[ended]
        self.running &= ~ended
        rows = np.flatnonzero(ended)[: max(len(self.returns) - self.next, 0)]
        self.episode[rows] = np.arange(self.next, self.next + len(rows))
        self.next += len(rows)
        again = np.zeros_like(ended)
        again[rows] = True
        self.running |= again
        return again

    def pick(self, seeds: Sequence[int]) -> list[int]:
        """The seeds of the rows' episodes."""
        return [int(seeds[i]) for i in self.episode.tolist()]

    def progress(self) -> tuple[int, int]:
        """Episodes that have ended, and the steps of those that have not."""
        running = self.episode[self.running]
        return self.next - len(running), int(self.lengths[running].sum())


def rollout(
    policy: Policy,
    env: VectorEnv,
    seeds: Sequence[int],
    max_steps: int | None = None,
    on_step: Callable[[int, int], None] | None = None,
) -> RolloutResult:
    """Play an episode of every seed; a row that has finished goes on with the next one.

    Args:
        policy: With as many rows as the environment; it starts new episodes in all of them.
        env: Without autoreset, so that rows that have nothing left to play wait for the others.
            It may begin an episode again, and then says so in `info["restarted"]`.
        seeds: Of the episodes, at least as many as rows.
        max_steps: Steps after which the episodes that still run are cut; None waits for the end.
        on_step: Told the number of episodes that have ended and the steps of those that have not,
            after every step.
    """
    rows, nobody = _Rows(env.num_envs, len(seeds)), np.zeros(env.num_envs, dtype=bool)
    # Gymnasium's vector environments take a list; its annotation of the base class does not say so.
    observations, _ = env.reset(seed=rows.pick(seeds))  # type: ignore[arg-type]
    policy.reset()
    actions = policy.act(observations)
    step = 0
    while True:
        observations, rewards, terminated, truncated, info = env.step(actions)
        step += 1
        fresh = np.asarray(info.pop("restarted", nobody), dtype=bool)
        rows.add(rewards, fresh)
        again = rows.end(rows.running & (terminated | truncated), info)
        if on_step is not None:
            on_step(*rows.progress())
        if not rows.running.any() or step == max_steps:
            return RolloutResult(rows.returns, rows.lengths, rows.outcomes)
        if again.any():
            observations, info = env.reset(seed=rows.pick(seeds), options={"reset_mask": again})  # type: ignore[arg-type]
            restarted = np.asarray(info.get("restarted", nobody), dtype=bool)
            rows.forget(restarted)
            fresh = fresh | again | restarted
        if fresh.any():
            policy.reset(fresh)
        actions = policy.act(observations, rewards)


def evaluate(
    model: SequenceModel,
    environment: EnvironmentEntry,
    config: EvaluationConfig,
    *,
    lengths: Sequence[int],
    first_seed: int,
    episodes: int | None = None,
    make_vector: MakeVector | None = None,
    on_progress: OnProgress | None = None,
) -> list[dict[str, Any]]:
    """Score a model by rollouts: a row per length.

    Training's random state is left alone, and the model stays in the mode it is in.

    Args:
        model: The model.
        environment: Its environment, whose target return is asked for unless the settings have one.
        config: Episodes, target return and decoding.
        lengths: What lengths are, the environment says.
        first_seed: Episode `i` of each length has the seed `first_seed + i`.
        episodes: Instead of the settings' number of episodes.
        make_vector: Instead of the environment's own; what it makes is not closed here.
        on_progress: Told the length and the share of its episodes that is done, every so often.

    Returns:
        A row of scores for each length; see `scores`.
    """
    count = episodes or config.episodes
    seeds = range(first_seed, first_seed + count)
    num_envs = min(count, config.num_envs or environment.num_envs or count)
    target = config.target_return
    rows = []
    for length in lengths:
        env = (make_vector or environment.make_vector)(num_envs, length)
        policy = Policy(
            model,
            num_envs=num_envs,
            target_return=environment.spec.target_return if target is None else target,
            decoding=config.decoding,
            seed=first_seed,
            exact_window=config.exact_window,
        )
        report = None
        if on_progress is not None:
            report = partial(_tell, on_progress, length, count, environment.steps_at(length))
        try:
            with _one_thread(policy.device):
                result = rollout(policy, env, seeds, on_step=report)
        finally:
            if make_vector is None:
                env.close()
        rows.append({"length": length, "episodes": count, **scores(result, environment.group)})
    return rows


def _tell(
    on_progress: OnProgress, length: int, episodes: int, longest: int, ended: int, steps: int
) -> None:
    """Translate episodes and steps into a share of the whole."""
    on_progress(length, min(1.0, (ended + steps / longest) / episodes))


def scores(
    result: RolloutResult, group: tuple[str, tuple[str, str]] | None = None
) -> dict[str, float | None]:
    """The scores of a number of episodes.

    Args:
        result: The episodes.
        group: An outcome that tells two kinds of episodes apart, and their names.

    Returns:
        `success` and `sem` (its standard error; both None where the environment tells no success),
        `return` and `return_sem`, `steps`, the mean of every other outcome; and with a group
        `success_NAME` or `return_NAME` of both kinds and `imbalance`, their distance.
    """
    success = sem = None
    outcomes = dict(result.outcomes)
    score, name = result.returns, "return"
    if "success" in outcomes:
        score, name = outcomes.pop("success"), "success"
        success, sem = _mean_and_sem(score)
    mean_return, return_sem = _mean_and_sem(result.returns)
    row = {"success": success, "sem": sem, "return": mean_return, "return_sem": return_sem}
    row["steps"] = float(np.mean(result.lengths))
    kinds = None if group is None else outcomes.pop(group[0], None)
    row.update({key: float(np.mean(values)) for key, values in outcomes.items()})
    if group is not None and kinds is not None:
        means = [float(np.mean(score[kinds == k])) if (kinds == k).any() else None for k in (0, 1)]
        row.update(zip((f"{name}_{kind}" for kind in group[1]), means, strict=True))
        low, high = means
        row["imbalance"] = None if low is None or high is None else abs(high - low)
    return row


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
