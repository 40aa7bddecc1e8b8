"""Rollouts during training, which select the best weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer

from rate.stopping import Stopped
from rate.weights import SavedModel, save_model
from trainers.callbacks.schedule import ScheduledCallback, best_or_none
from trainers.csv_logger import SELECTION
from trainers.environment import Environment, Length
from trainers.episode_rows import RolloutResult
from trainers.gathering import gather
from trainers.rollout import OnProgress, play_lengths, score_lengths
from trainers.scores import remarks
from trainers.sequence import SequenceTrainer
from trainers.sharding import whole_model
from trainers.shared_rollouts import joined, own_share
from trainers.stopping import StopRequest


class SelectionRollouts(ScheduledCallback):
    """Rolls out on the selection seeds periodically and at the end, and saves the best weights.

    The score is the mean success over the selection lengths (the mean return if the environment
    reports no success). Of equal scores the later one is kept, which has seen more data. Weights
    are not selected if all episodes of some length have non-finite numbers. Processes share the
    seeds, and wait for each other as long as that takes.

    Args:
        environment: The environment of the rollouts. Its simulators stay open between rollouts.
        folder: The folder of the best weights.
        max_steps: Optimiser steps of training.
        trained_range: Minimum and maximum return-to-go of the training data; None if the model
            does not use returns-to-go.
        on_progress: Called with the length and the completed share of a rollout.
        stop: The request to stop. It aborts a rollout, which is repeated when the run resumes.

    Attributes:
        is_pending: Whether the rollouts of the last step still have to run.
        best_step: Optimiser step of the best weights, or None.
        best_score: Score of the best weights.
    """

    def __init__(
        self,
        environment: Environment,
        folder: Path,
        every: int,
        max_steps: int,
        trained_range: tuple[float, float] | None = None,
        on_progress: OnProgress | None = None,
        stop: StopRequest | None = None,
    ) -> None:
        super().__init__(every, max_steps)
        self.environment, self.folder, self.on_progress = environment, folder, on_progress
        self.stop = stop or StopRequest()
        self.is_pending = False
        self.trained_range = trained_range
        self._has_warned = False
        self._vectors: dict[tuple[int, Length], Any] = {}
        self.best_step: int | None = None
        self.best_score = -float("inf")

    def act(self, trainer: Trainer, module: SequenceTrainer) -> None:
        with whole_model(module):
            self._evaluate(trainer, module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.is_pending and isinstance(pl_module, SequenceTrainer):
            self.catch_up(trainer, pl_module)

    def catch_up(self, trainer: Trainer, module: SequenceTrainer) -> None:
        """Run the rollouts that a request to stop has aborted."""
        self.is_pending = False
        self.act(trainer, module)

    def _evaluate(self, trainer: Trainer, module: SequenceTrainer) -> None:
        config, step = module.config.evaluation, trainer.global_step
        count, lengths = config.selection_episodes or config.episodes, config.selection_lengths
        seeds = range(config.selection_seed, config.selection_seed + count)
        parts = gather(self._play(module, own_share(seeds), seeds[0]))
        whole = [part for part in parts if part is not None]
        if len(whole) < len(parts):  # the state is saved after this step's callbacks
            self.is_pending = True
            return
        rows = score_lengths(self.environment, config, joined(whole), lengths=lengths, seeds=seeds)
        self._choose(trainer, module, rows, step)

    def _play(
        self, module: SequenceTrainer, seeds: Sequence[int], policy_seed: int
    ) -> list[RolloutResult] | None:
        """Returns the episodes of each length; empty without seeds, None if a signal stopped it."""
        config = module.config.evaluation
        try:
            with self.stop.interruptible():
                if not seeds:
                    return []
                return play_lengths(
                    module.model,
                    self.environment,
                    config,
                    lengths=config.selection_lengths,
                    seeds=seeds,
                    make_vector=self._vector,
                    on_progress=self._report,
                    trained_range=self.trained_range,
                    policy_seed=policy_seed,
                )
        except Stopped:
            return None

    def _choose(
        self, trainer: Trainer, module: SequenceTrainer, rows: list[dict[str, Any]], step: int
    ) -> None:
        """Log the scores, and save the weights if they are the best so far."""
        self._warn(rows, step)
        metrics = {
            f"{SELECTION}{name}@{row['length']}": row[name]
            for row in rows
            for name in ("success", "return")
            if row[name] is not None
        }
        for logger in trainer.loggers:
            logger.log_metrics(metrics, step)
        scores = [row["return"] if row["success"] is None else row["success"] for row in rows]
        known = [score for score in scores if score is not None]
        score = sum(known) / len(known) if len(known) == len(scores) else -float("inf")
        if score > -float("inf") and score >= self.best_score:
            self.best_score, self.best_step = score, step
            if trainer.is_global_zero:
                extra, decoding = (
                    {"step": step, "selection": rows},
                    module.config.evaluation.decoding,
                )
                saved = SavedModel(module.model, module.spec, decoding, extra, self.trained_range)
                save_model(saved, self.folder)

    def _report(self, length: Length, share: float) -> None:
        self.stop.check()  # simulator code may have caught the exception
        if self.on_progress is not None:
            self.on_progress(length, share)

    def _warn(self, rows: list[dict[str, Any]], step: int) -> None:
        """Warn of unusual results, once per run."""
        found = remarks(rows)
        if found and not self._has_warned:
            self._has_warned = True
            warnings.warn(
                f"In the rollouts that choose weights, at step {step}: {' '.join(found)} Later "
                "evaluations do not say so again.",
                stacklevel=2,
            )

    def _vector(self, num_envs: int, length: Length) -> Any:
        """Returns an environment that is kept open, since simulators are slow to start."""
        if (num_envs, length) not in self._vectors:
            self._vectors[num_envs, length] = self.environment.make_vector(num_envs, length)
        return self._vectors[num_envs, length]

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        self._close()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        self._close()

    def _close(self) -> None:
        for vector in self._vectors.values():
            vector.close()
        self._vectors.clear()

    def state_dict(self) -> dict[str, Any]:
        return {
            "best_step": self.best_step,
            "best_score": self.best_score,
            "is_pending": self.is_pending,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_step = best_or_none(self.folder, state_dict["best_step"])
        self.best_score = state_dict["best_score"] if self.best_step else -float("inf")
        self.is_pending = state_dict.get("is_pending", False)
