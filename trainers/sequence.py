"""The Lightning module: one training step of a sequence model, with or without cut memory.

Optimisation is manual, for the published recipe steps the optimiser several times in a batch. In
several processes gradients are summed here and not by DDP: its reducer waits for every parameter,
and a stage of one segment leaves the retention valve out. The loss is divided by the weight of the
whole global batch before, so that the sum is the gradient that one process would have found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.hashing import hash_integers
from rate.model import SequenceModel
from rate.renamed import current_weights
from trainers.compiling import compile_model
from trainers.config import RunConfig
from trainers.config_files import config_from_dict
from trainers.distributed import sum_gradients, sum_over_processes
from trainers.errors import TrainingError
from trainers.graphs import GraphedSteps
from trainers.metric_sums import LOSS, MetricSums
from trainers.objectives import objective_class
from trainers.objectives.base import LossSums, Objective, Problem
from trainers.optimization import AdamW, make_optimizer
from trainers.randomness import seed_step
from trainers.registry import privileged_space

_RESERVED = {LOSS, "grad_norm", "learning_rate", "segments", "step"}  # of metrics, not for others


class SequenceTrainer(LightningModule):
    """Trains a `SequenceModel` on batches of windows.

    Initial weights, and the noise of each batch, depend on the seed and the batch's number alone.

    Args:
        config: The run, or what its `to_dict` gave.
        spec: The environment, or what its `to_dict` gave.

    Attributes:
        model: The model.
        objective: The learning rule.
        config: The run.
        spec: The environment.
        privileged: The space of the privileged state that batches have, if the objective wants it.
        logged: The metrics that were logged last. Lightning's own are on the device, and to read
            them is to wait for it.
    """

    def __init__(
        self, config: RunConfig | dict[str, Any], spec: EnvironmentSpec | dict[str, Any]
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.config = config if isinstance(config, RunConfig) else config_from_dict(config)
        self.spec = spec if isinstance(spec, EnvironmentSpec) else EnvironmentSpec.from_dict(spec)
        # Plain types, so that checkpoints load without running code.
        plain = {"config": self.config.to_dict(), "spec": self.spec.to_dict()}
        self.save_hyperparameters(plain, logger=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(hash_integers(self.config.training.seed))
            self.model = SequenceModel(
                self.config.model, self.spec.observation_space, self.spec.action_space
            )
            self.objective = self._make_objective()
        self._metrics: tuple[str, ...] = ()  # the objective's, once it was asked
        self._trained: list[nn.Parameter] = []
        self._metric_sums = MetricSums()
        self._row = torch.zeros(0)  # what the optimiser step comes to that is being taken
        self._learning_rate = 0.0
        self.logged: dict[str, float] = {}
        self._is_ready = False
        self._graphs: GraphedSteps | None = None

    def _make_objective(self) -> Objective:
        """The learning rule; not part of the model, whose weights leave without it."""
        kind, settings = objective_class(self.config.training.objective), self.config.loss
        self.privileged = None
        if settings.wants_privileged_state:
            self.privileged = privileged_space(self.config.environment, self.config.env)
        return kind(settings, Problem(self.model, self.spec, self.privileged))

    def configure_optimizers(self) -> Any:
        # To look for them takes longer than to clip them.
        self._trained = [p for p in self.parameters() if p.requires_grad]
        optimizer, scheduler = make_optimizer(
            self,
            self.config.optimizer,
            self.config.training.max_steps,
            fused=not self.config.training.precision.startswith("16"),
        )
        return [optimizer], [scheduler]

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """One batch: one optimiser step, or one per segment in the detached recipe.

        Returns:
            Sums over the batches of all processes, on the device: `steps`, `()`, the real steps,
            and `metrics`, `(2,)` sum and weight of each of the objective's. Whoever reads one there
            waits for it.

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

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The loss and the metrics of the objective, once a step was taken."""
        return (LOSS, *self._metrics)

    def _compile(self, batch: Batch) -> None:
        """Compile the model where the settings say so, and try it on the first batch."""
        wanted = self.config.training.compile
        if wanted == "never" or (wanted == "auto" and not self._on_gpu):
            return

        def attempt() -> None:
            for _, hidden in self._hidden(batch):
                with self._without_ddp_reducer():
                    hidden.sum().backward()  # type: ignore[no-untyped-call]

        compile_model(self.model, attempt, required=wanted == "always")

    def _make_graphs(self) -> GraphedSteps | None:
        """Graphs for batches to come, where the settings and the device allow them.

        Raises:
            ConfigError: If there must be graphs, and this is no GPU.
        """
        training = self.config.training
        if training.cuda_graphs == "always" and not self._on_gpu:
            raise ConfigError(
                f"training.cuda_graphs=always needs an NVIDIA GPU, and this run is on the "
                f"{self.device.type}. Set training.cuda_graphs=auto."
            )
        if training.cuda_graphs == "never" or training.graph_obstacle or not self._on_gpu:
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
        """What speeds up steps here, once the first was taken."""
        found = {
            "compiled": self.model.is_compiled,
            "CUDA graph": self._graphs is not None and self._graphs.in_use,
        }
        return [name for name, is_used in found.items() if is_used]

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"

    @property
    def _batch_number(self) -> int:
        """How many batches came before this one, over all epochs and interruptions."""
        return int(self.trainer.fit_loop.total_batch_idx)

    def _steps(self, batch: Batch) -> Iterator[Tensor]:
        """Take one optimiser step after another; yields the row of sums of each."""
        row = None if self._graphs is None else self._graphs(batch, self._seed)
        if row is not None:
            yield self._take(row, is_taken=True)
            return
        self._seed()
        for piece in self._hidden(batch):
            totals = self._backward(*piece)
            sum_gradients(self._trained)
            yield self._take(totals, is_taken=False)

    def _seed(self) -> None:
        """Noise depends on the batch's number, not on what was drawn before."""
        seed_step(self.config.training.seed, self._batch_number, self.global_rank, self.device)

    def _hidden(self, batch: Batch) -> Iterator[tuple[Batch, Tensor]]:
        """What to take one optimiser step on, and what heads read there, one after another."""
        training = self.config.training
        detach_every, recompute = training.bptt_segments, training.checkpoint_segments
        if detach_every != 0:
            hidden, _ = self.model.features(batch, detach_every=detach_every, recompute=recompute)
            yield batch, hidden
            return
        state, length = None, self.config.model.context_length
        for start in range(0, batch.num_steps, length):
            segment = batch.steps(start, start + length)
            hidden, state = self.model.features(segment, state, recompute=recompute)
            yield segment, hidden
            state = state.detach()

    def _backward(self, batch: Batch, hidden: Tensor) -> Tensor:
        """The gradient of the loss of all processes' batches, and what the step's row begins with.

        Returns:
            `(2 M + 3,)`: sum and weight of the loss and of each of the `M` metrics, and the number
            of real steps, over all processes.
        """
        sums = self.sums(batch, hidden)
        row = torch.cat((self.row(sums), batch.mask.sum().float()[None]))
        row = sum_over_processes(row)
        weight = row[1]
        cast("LightningOptimizer", self.optimizers()).zero_grad(set_to_none=True)
        with self._without_ddp_reducer():
            self.manual_backward(sums.loss / torch.where(weight > 0, weight, 1.0))
        return row

    def losses(self, batch: Batch) -> Iterator[Tensor]:
        """The loss `()` of one optimiser step after another, before its gradient is taken."""
        for piece in self._hidden(batch):
            yield self.sums(*piece).loss

    @staticmethod
    def row(sums: LossSums) -> Tensor:
        """`(2 M + 2,)`: sum and weight of the loss and of each of the `M` metrics."""
        metrics = [number.float() for known in sums.metrics.values() for number in known]
        return torch.stack([sums.loss.detach(), sums.weight, *metrics])

    def sums(self, batch: Batch, hidden: Tensor) -> LossSums:
        """What the objective finds in this process's batch.

        Raises:
            ConfigError: If its metrics have names that are not theirs, or others than before.
        """
        sums: LossSums = self.objective(self.model, hidden, batch)
        names, known = tuple(sums.metrics), self._metrics
        if names != known:
            objective = f"training.objective={self.config.training.objective}"
            if taken := _RESERVED & set(names):
                raise ConfigError(
                    f"{objective} has a metric '{min(taken)}', which is the name of another column."
                )
            if known:
                raise ConfigError(
                    f"{objective} has metrics {names}, but {known} in a batch before."
                )
            self._metrics = names
        return sums

    def _take(self, row: Tensor, *, is_taken: bool) -> Tensor:
        """Take the optimiser step on the gradient that is there, or count one that a graph took.

        Args:
            row: The sums that the gradient came with; from a graph all that the step came to.
            is_taken: Whether it is from a graph.

        Returns:
            What the step came to.
        """
        optimizer = cast("LightningOptimizer", self.optimizers())
        adamw = cast("AdamW", optimizer.optimizer)
        self._row, adamw.is_taken = row, is_taken
        self._learning_rate = adamw.learning_rate
        optimizer.step()
        self.objective.after_step(self.model)
        cast("LRScheduler", self.lr_schedulers()).step()
        return self._row

    def _without_ddp_reducer(self) -> AbstractContextManager[Any]:
        block = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        return cast("AbstractContextManager[Any]", block())

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clip the gradient, and change nothing where it or the loss is not finite.

        Called once gradients are unscaled and before any parameter changes. A GPU sees to that by
        itself, and training learns of it when it next reads what the steps came to.
        """
        adamw = cast("AdamW", optimizer)
        if not adamw.is_taken:
            self._row = self._metric_sums.check_finite(self._row, self._clip())
        number = self.global_step + 1
        self._metric_sums.add(number, self._batch_number, self._row, self.metric_names)
        if self._waits or not optimizer.defaults["fused"]:
            self.check()
        else:
            adamw.found_inf = self._metric_sums.found_inf

    def _clip(self) -> Tensor:
        """Clip the gradient; returns the norm it had, `()`."""
        limit = self.config.optimizer.gradient_clip or math.inf
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self._trained, limit)
        return norm

    @property
    def _waits(self) -> bool:
        """Whether every step is waited for, which costs nothing where the host does the work."""
        return self.device.type == "cpu"

    def check(self) -> None:
        """Wait for the device, and see that all its steps went well.

        Raises:
            TrainingError: If the loss or the gradient of one was not finite.
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
        """Log the means of the steps since the last time, when it is time to."""
        training, step = self.config.training, self.global_step
        if step % training.log_every_n_steps and step < training.max_steps:
            return
        self.check()
        metrics = {
            **self._metric_sums.metrics(),
            "learning_rate": self._learning_rate,
            "segments": segments,
        }
        self.logged = metrics
        for logger in self.trainer.loggers:
            logger.log_metrics(metrics, step)
        self.log_dict(metrics, logger=False)  # for callbacks

    def on_train_end(self) -> None:
        self.check()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.check()
        checkpoint["since_log"] = self._metric_sums.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["state_dict"] = current_weights(checkpoint["state_dict"], self.state_dict())
        if not isinstance(checkpoint["since_log"], dict):
            raise TrainingError(
                "The run's checkpoint is of an earlier version, whose training this one cannot "
                "go on with. Start a new run that begins with its weights: --init RUN."
            )
        self._metric_sums.load_state_dict(checkpoint["since_log"])
