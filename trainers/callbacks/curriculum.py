"""Growth of the number of segments, from 1 to N."""

from __future__ import annotations

from collections import deque
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from datamodules.trajectories import TrajectoryDataModule
from trainers.config_learning import CurriculumConfig


class Curriculum(Callback):
    """Adds a segment once the actions at the ends of episodes are predicted well enough.

    The accuracies it looks at are sums over all processes, so that all of them agree. The training
    module logs the number of segments.

    Args:
        config: When to go on.
        datamodule: Where the stage is set.

    Raises:
        DatasetError: If the data cannot serve one of the stages.
    """

    def __init__(self, config: CurriculumConfig, datamodule: TrajectoryDataModule) -> None:
        self.config, self.datamodule = config, datamodule
        self.max_segments = datamodule.segments
        self.segments, self.start_step = 1, 0
        self._accuracies: deque[float] = deque(maxlen=config.window)
        for segments in range(1, self.max_segments + 1):
            datamodule.make_sampler(segments)  # fails now, not in the middle of the night

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.datamodule.stage is None:
            self.datamodule.set_curriculum(1, self.datamodule.batches_done)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.segments >= self.max_segments:
            return
        # To read these is to wait for the device, which training without a curriculum never does.
        decisive, correct = (float(outputs[name]) for name in ("decisive", "decisive_correct"))
        if decisive:
            self._accuracies.append(correct / decisive)
        learnt = (
            len(self._accuracies) == self.config.window
            and sum(self._accuracies) / len(self._accuracies) >= self.config.threshold
        )
        longest = self.config.max_steps
        if learnt or (longest is not None and trainer.global_step - self.start_step >= longest):
            self.segments += 1
            self.start_step = trainer.global_step
            self._accuracies.clear()
            self.datamodule.set_curriculum(self.segments, self.datamodule.batches_done)

    def state_dict(self) -> dict[str, Any]:
        return {
            "segments": self.segments,
            "start_step": self.start_step,
            "accuracies": list(self._accuracies),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.segments, self.start_step = state_dict["segments"], state_dict["start_step"]
        self._accuracies = deque(state_dict["accuracies"], maxlen=self.config.window)
