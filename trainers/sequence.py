"""The Lightning module: one training step of a sequence model, with or without detached memory.

Optimisation is manual, since the published detached recipe takes several optimiser steps per batch.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, cast

import torch
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.renamed import current_weights
from trainers.carried import CarriedState
from trainers.config import RunConfig
from trainers.distributed import clip_gradients, sum_gradients
from trainers.errors import TrainingError
from trainers.graphs import GraphedSteps
from trainers.losses import LossModule
from trainers.metric_sums import MetricSums
from trainers.optimization import AdamW, make_optimizer
from trainers.randomness import seed_step


class SequenceTrainer(LossModule):
    """Trains a `SequenceModel` on batches of windows.

    The noise of each batch depends only on the seed and the index of the batch.

    Args:
        config: The run, or the result of its `to_dict`.
        spec: The environment, or the result of its `to_dict`.

    Attributes:
        logged: The metrics that were logged last. Reading Lightning's copy on the device would wait
            for the device.
    """

    def __init__(
        self, config: RunConfig | dict[str, Any], spec: EnvironmentSpec | dict[str, Any]
    ) -> None:
        super().__init__(config, spec)
        self.automatic_optimization = False
        self._trained: list[nn.Parameter] = []
        self._metric_sums = MetricSums()
        self._row = torch.zeros(0)  # the sums of the current optimiser step
        self._learning_rate = 0.0
        self.logged: dict[str, float] = {}
        is_carried = self.config.data.window == "consecutive"
        self._carried = CarriedState() if is_carried else None
        self._is_ready = self._warned = False
        self._graphs: GraphedSteps | None = None

    def configure_optimizers(self) -> Any:
        # Cached, since collecting them takes longer than clipping.
        self._trained = [p for p in self.parameters() if p.requires_grad]
        optimizer, scheduler = make_optimizer(
            self,
            self.config.optimizer,
            self.config.training.max_steps,
            fused=not self.config.training.precision.startswith("16"),
        )
        return [optimizer], [scheduler]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Train on one batch: one optimiser step, or one per segment in the detached recipe.

        Returns:
            Sums over all processes, on the device: `steps`, `()`, the number of real steps, and
            `metrics`, the sum and weight `(2,)` of each metric of the objective. Reading one waits
            for the device.

        Raises:
            TrainingError: If the loss or its gradient is not finite. No parameter has changed.
        """
        if not self._is_ready:
            self._compile(batch)
            self._graphs = self._make_graphs()
            self._is_ready = True
        segments = math.ceil(batch.num_steps / self.config.model.context_length)
        rows = []
        for row in self._steps(batch):
            rows.append(row)
            self._log(segments)
        total = rows[0] if len(rows) == 1 else torch.stack(rows).sum(0)
        names = self.metric_names
        metrics = {name: total[2 * n : 2 * n + 2] for n, name in enumerate(names)}
        return {"steps": total[2 * len(names)], "metrics": metrics}

    def _make_graphs(self) -> GraphedSteps | None:
        """Returns CUDA graphs for later batches, if the settings and the device allow them.

        Raises:
            ConfigError: If graphs are required, and the device is not a GPU.
        """
        training = self.config.training
        if training.cuda_graphs == "always" and not self._on_gpu:
            raise ConfigError(
                f"training.cuda_graphs=always needs an NVIDIA GPU, and this run is on the "
                f"{self.device.type}. Set training.cuda_graphs=auto."
            )
        if training.cuda_graphs == "never" or self.config.graph_obstacle or not self._on_gpu:
            return None
        optimizer = cast("AdamW", self.optimizers(use_pl_optimizer=False))

        def compute(batch: Batch) -> Tensor:
            (totals,) = (self._backward(*piece) for piece in self._hidden(batch))
            row = self._metric_sums.check_finite(totals, self._clip())
            optimizer.found_inf = self._metric_sums.found_inf
            return row

        return GraphedSteps(compute, optimizer, required=training.cuda_graphs == "always")

    @property
    def fast_paths(self) -> list[str]:
        """Returns the optimisations in use, such as CUDA graphs; complete after the first batch."""
        found = {
            "compiled": self.model.is_compiled,
            "CUDA graph": self._graphs is not None and self._graphs.in_use,
        }
        return [name for name, is_used in found.items() if is_used]

    @property
    def _batch_number(self) -> int:
        """The number of batches before this one, over all epochs and interruptions."""
        return int(self.trainer.fit_loop.total_batch_idx)

    def _steps(self, batch: Batch) -> Iterator[Tensor]:
        """Take the optimiser steps of a batch; yields the row of sums of each."""
        row = None if self._graphs is None else self._graphs(batch, self._seed)
        if row is not None:
            yield self._take(row, is_taken=True)
            return
        self._seed()
        for piece in self._hidden(batch, self._carried):
            totals = self._backward(*piece)
            sum_gradients(self._trained)
            yield self._take(totals, is_taken=False)

    def _seed(self) -> None:
        """Seed noise by the number of the batch, so that it does not depend on earlier batches."""
        seed_step(self.config.training.seed, self._batch_number, self.global_rank, self.device)

    def _take(self, row: Tensor, *, is_taken: bool) -> Tensor:
        """Take the optimiser step on the current gradient, or count one that a graph has taken.

        Args:
            row: The sums of the step; from a graph with the norm of the gradient.
            is_taken: Whether a graph has taken the step.

        Returns:
            The row of sums, with the norm of the gradient.
        """
        optimizer = cast("LightningOptimizer", self.optimizers())
        adamw = cast("AdamW", optimizer.optimizer)
        self._row, adamw.is_taken = row, is_taken
        self._learning_rate = adamw.learning_rate
        optimizer.step()
        self.model.backbone.after_step()
        self.objective.after_step(self.model)
        cast("LRScheduler", self.lr_schedulers()).step()
        return self._row

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, and make no update if it or the loss is not finite.

        Lightning calls this after gradients are unscaled and before any parameter changes. On a
        GPU the fused optimiser skips the update by itself, and the host learns of it at the next
        transfer of sums.
        """
        adamw = cast("AdamW", optimizer)
        if not adamw.is_taken:
            self._row = self._metric_sums.check_finite(self._row, self._clip())
        number = self.global_step + 1
        self._metric_sums.add(number, self._batch_number, self._row, self.metric_names)
        if self._checks_each_step or not optimizer.defaults["fused"]:
            self.check()
        else:
            adamw.found_inf = self._metric_sums.found_inf

    def _clip(self) -> Tensor:
        """Clip the gradient; returns its norm before, `()`."""
        limit = self.config.optimizer.gradient_clip or math.inf
        return clip_gradients(self._trained, limit)

    @property
    def _checks_each_step(self) -> bool:
        """Whether to check each step immediately, which costs nothing on a CPU."""
        return self.device.type == "cpu"

    def check(self) -> None:
        """Wait for the device, and check that all steps so far were finite.

        Raises:
            TrainingError: If the loss or the gradient of a step was not finite.
        """
        has_scaler = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        failure = self._metric_sums.read(may_overflow=has_scaler)
        if failure is None:
            return
        saved = getattr(self.trainer.checkpoint_callback, "last_saved", None)
        raise TrainingError(
            f"The loss is {failure.loss} and the norm of its gradient {failure.norm} at optimiser "
            f"step {failure.step}, in batch {failure.batch} of the data (counted from 0). "
            "Nothing was updated with it. "
            + (f"The last good checkpoint is {saved}. " if saved else "No checkpoint was saved. ")
            + "Lower optimizer.learning_rate or optimizer.gradient_clip, or look for values in "
            "the data that are not finite."
        )

    def _log(self, segments: int) -> None:
        """Log the means over the steps since the last row, every `log_every_n_steps` steps."""
        training, step = self.config.training, self.global_step
        if step % training.log_every_n_steps and step < training.max_steps:
            return
        self.check()
        metrics = {
            **self._metric_sums.metrics(),
            "learning_rate": self._learning_rate,
            "segments": segments,
        }
        self._warn_once(self.objective.warning(metrics), step)
        self.logged = metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step)
        self.log_dict(metrics, logger=False)  # for callbacks

    def _warn_once(self, what: str, step: int) -> None:
        """Warn of what is wrong with the training, the first time that something is."""
        if what and not self._warned:
            self._warned = True
            if self.trainer.is_global_zero:
                warnings.warn(f"At optimiser step {step}, {what}", stacklevel=2)

    def on_train_end(self) -> None:
        self.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check()
        checkpoint["since_log"] = self._metric_sums.state_dict()
        if self._carried is not None:
            checkpoint["carried"] = self._carried.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = current_weights(checkpoint["state_dict"], self.state_dict())
        if not isinstance(checkpoint["since_log"], dict):
            raise TrainingError(
                "The run's checkpoint is of an earlier version, whose training this one cannot "
                "go on with. Start a new run that begins with its weights: --init RUN."
            )
        self._metric_sums.load_state_dict(checkpoint["since_log"])
        if self._carried is not None:
            self._carried.load_state_dict(checkpoint["carried"])
