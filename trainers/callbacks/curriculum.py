"""Growth of the number of segments, from 1 to N."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from datamodules.trajectories import TrajectoryDataModule
from rate.errors import ConfigError
from trainers.config_learning import CurriculumConfig

_METRIC = "last_step_accuracy"


class Curriculum(Callback):
    """Adds a segment when the accuracy at the ends of episodes reaches the threshold.

    Accuracies are sums over all processes, so that all processes advance together. The training
    module logs the number of segments. Reading accuracies waits for the device, so they are read
    only when a stage may be complete.

    Args:
        config: The settings of the curriculum.
        datamodule: The data module whose number of segments is set.

    Raises:
        DatasetError: If the data have no episodes for one of the stages.
        ConfigError: After the first batch, if the objective has no metric of the accuracy at the
            ends of episodes.
    """

    def __init__(self, config: CurriculumConfig, datamodule: TrajectoryDataModule) -> None:
        self.config, self.datamodule = config, datamodule
        self.max_segments = datamodule.segments
        self.segments, self.start_step = 1, 0
        self._accuracies: deque[float] = deque(maxlen=config.window)
        self._unread: list[Tensor] = []  # counts still on the device
        for segments in range(1, self.max_segments + 1):
            datamodule.make_sampler(segments)  # raises now instead of during training

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.datamodule.stage is None:
            self.datamodule.set_curriculum(1, self.datamodule.batches_done)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.segments >= self.max_segments:
            return
        if _METRIC not in outputs["metrics"]:
            raise ConfigError(
                f"curriculum.enabled needs the metric '{_METRIC}' to tell when a stage is learnt, "
                "and training.objective does not have it; set curriculum.enabled=false."
            )
        self._unread.append(outputs["metrics"][_METRIC])
        longest = self.config.max_steps
        is_over = longest is not None and trainer.global_step - self.start_step >= longest
        if is_over or (
            len(self._unread) >= self._least_batches() and self._has_reached_threshold()
        ):
            self.segments += 1
            self.start_step = trainer.global_step
            self._accuracies.clear()
            self._unread.clear()
            self.datamodule.set_curriculum(self.segments, self.datamodule.batches_done)

    def _least_batches(self) -> int:
        """Returns the least number of batches until the stage may end, assuming full accuracy."""
        known = list(self._accuracies)
        return next(
            n
            for n in range(1, self.config.window + 1)
            if self._reaches_threshold(known + n * [1.0])
        )

    def _has_reached_threshold(self) -> bool:
        self._read()
        return self._reaches_threshold(list(self._accuracies))

    def _reaches_threshold(self, accuracies: list[float]) -> bool:
        window = self.config.window
        mean = sum(accuracies[-window:]) / window
        return len(accuracies) >= window and mean >= self.config.threshold

    def _read(self) -> None:
        """Transfer the unread counts from the device. Waits for the device."""
        if self._unread:
            for correct, weight in torch.stack(self._unread).cpu().tolist():
                if weight:
                    self._accuracies.append(correct / weight)
            self._unread.clear()

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return {
            "segments": self.segments,
            "start_step": self.start_step,
            "accuracies": list(self._accuracies),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.segments, self.start_step = state_dict["segments"], state_dict["start_step"]
        self._accuracies = deque(state_dict["accuracies"], maxlen=self.config.window)
