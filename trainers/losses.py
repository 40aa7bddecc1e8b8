"""The loss of a sequence model on a batch, and its gradient, over all processes.

Gradients of several processes are summed here and not by DDP: its reducer waits for every
parameter, and a curriculum stage of one segment does not use the retention valve. The loss is
divided by the weight of the whole global batch first, so that the sum is the gradient that one
process with the whole batch would have.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from torch import Tensor

from rate.backbones.base import Losses
from rate.batch import Batch
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.hashing import hash_integers
from rate.model import SequenceModel
from trainers.carried import CarriedState
from trainers.compiling import compile_model
from trainers.config import RunConfig
from trainers.config_files import config_from_dict
from trainers.distributed import sum_over_processes
from trainers.metric_sums import LOSS
from trainers.objectives import objective_class
from trainers.objectives.base import LossSums, Objective, Problem
from trainers.registry import privileged_space

_RESERVED = {LOSS, "grad_norm", "learning_rate", "segments", "step"}  # of metrics, not for others


class LossModule(LightningModule):
    """A `SequenceModel` and its objective: computes losses and gradients, takes no step.

    Initial weights depend on the seed alone.

    Args:
        config: The run, or the result of its `to_dict`.
        spec: The environment, or the result of its `to_dict`.

    Attributes:
        model: The model.
        objective: The learning rule.
        config: The run.
        spec: The environment.
        privileged: The space of the privileged state in batches, if the objective wants it.
        priorities: `LossSums.priorities` of the last step, on the device.
    """

    def __init__(
        self, config: RunConfig | dict[str, Any], spec: EnvironmentSpec | dict[str, Any]
    ) -> None:
        super().__init__()
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
        self.priorities: Tensor | None = None
        self._metrics: tuple[str, ...] = ()  # names, known after the first batch

    def _make_objective(self) -> Objective:
        """Returns the learning rule. It is not part of the saved model."""
        kind, settings = objective_class(self.config.training.objective), self.config.loss
        self.privileged = None
        if settings.wants_privileged_state:
            self.privileged = privileged_space(self.config.environment, self.config.env)
        return kind.make(settings, Problem(self.model, self.spec, self.privileged))

    def _compile(self, batch: Batch) -> None:
        """Compile the model if the settings say so, and try it on the first batch."""
        mode = self.config.training.compile
        is_plain = self._on_gpu and not self.config.training.is_sharded
        if mode == "never" or (mode == "auto" and not is_plain):
            return

        def attempt() -> None:
            for _, hidden, _ in self._hidden(batch):
                with self._without_ddp_reducer():
                    hidden.sum().backward()  # type: ignore[no-untyped-call]

        compile_model(self.model, attempt, required=mode == "always")

    @property
    def metric_names(self) -> tuple[str, ...]:
        """The names of the loss and of the objective's metrics, complete after the first batch."""
        return (LOSS, *self._metrics)

    def _hidden(
        self, batch: Batch, carried: CarriedState | None = None
    ) -> Iterator[tuple[Batch, Tensor, Losses]]:
        """Yields the steps of an optimiser step, their features `(B, T, d)` and the model's losses.

        One optimiser step per batch; with `bptt_segments=0`, the published detached recipe, one per
        segment, whose memory comes detached from the segment before.

        Args:
            batch: The batch.
            carried: The state from the batch before, which is replaced by the state after this one;
                None starts every window from the initial state.
        """
        before = None if carried is None else carried.before(self.model, batch)
        training = self.config.training
        detach_every, recompute = training.bptt_segments, training.checkpoint_segments
        if detach_every != 0:
            hidden, state, losses = self.model.features_and_losses(
                batch, before, detach_every=detach_every, recompute=recompute
            )
            if carried is not None:
                carried.keep(state)
            yield batch, hidden, losses
            return
        length = self.config.model.context_length
        for start in range(0, batch.num_steps, length):
            segment = batch.steps(start, start + length)
            hidden, state, losses = self.model.features_and_losses(
                segment, before, recompute=recompute
            )
            yield segment, hidden, losses
            before = state.detach()
        if carried is not None and before is not None:
            carried.keep(before)

    def _backward(self, batch: Batch, hidden: Tensor, losses: Losses) -> Tensor:
        """Compute the gradient of the global batch's loss; returns the row of sums of the step.

        Returns:
            `(2 M + 3,)`: sum and weight of the loss and of each of the `M` metrics, and the number
            of real steps, over all processes.
        """
        sums = self.sums(batch, hidden, losses)
        self.priorities = sums.priorities
        row = torch.cat((self.row(sums), batch.mask.sum().float()[None]))
        row = sum_over_processes(row)
        weight = row[1]
        cast("LightningOptimizer", self.optimizers()).zero_grad(set_to_none=True)
        with self._without_ddp_reducer():
            self.manual_backward(sums.loss / torch.where(weight > 0, weight, 1.0))
        return row

    def losses(self, batch: Batch) -> Iterator[Tensor]:
        """Yields the loss `()` of each optimiser step of a batch, with its graph."""
        for piece in self._hidden(batch):
            yield self.sums(*piece).loss

    @staticmethod
    def row(sums: LossSums) -> Tensor:
        """Returns `(2 M + 2,)`: sum and weight of the loss and of each of the `M` metrics."""
        metrics = [number.float() for known in sums.metrics.values() for number in known]
        return torch.stack([sums.loss.detach(), sums.weight, *metrics])

    def sums(self, batch: Batch, hidden: Tensor, losses: Losses) -> LossSums:
        """Returns the sums of the objective and of the model's own losses, of this process.

        Raises:
            ConfigError: If a metric has a reserved name, or the names differ from those of earlier
                batches.
        """
        sums: LossSums = self.objective(self.model, hidden, batch)
        sums = sums.with_losses(losses, batch.mask)
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

    def _without_ddp_reducer(self) -> AbstractContextManager[Any]:
        block = getattr(self.trainer.strategy, "block_backward_sync", nullcontext)
        return cast("AbstractContextManager[Any]", block())

    @property
    def _on_gpu(self) -> bool:
        return self.device.type == "cuda"
