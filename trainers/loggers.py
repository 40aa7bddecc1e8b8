"""Where metrics go: the run's own table, TensorBoard, and Weights & Biases if that is asked for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from trainers.config import RunConfig
from trainers.csv_logger import MetricsTable
from trainers.launch import is_main_process
from trainers.wandb_run import end_wandb, start_wandb

_SCORES = ("success", "return")


class Curves(TensorBoardLogger):
    """TensorBoard's curves, which have no step twice.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard")

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Have TensorBoard forget what was logged after `step`, for training goes on from there."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        writer: Any = self.experiment
        writer.flush()  # makes the file, if there is none yet
        writer.file_writer.add_event(start)


@contextmanager
def make_loggers(config: RunConfig, folder: Path) -> Iterator[list[Logger]]:
    """The loggers of a run; what they send is sent when the block ends.

    Raises:
        ConfigError: If Weights & Biases is asked for and cannot be used as it is set up.
    """
    loggers: list[Logger] = [MetricsTable(folder)]
    if config.logging.tensorboard:
        loggers.append(Curves(folder))
    if not config.logging.wandb:
        yield loggers
        return
    loggers.append(start_wandb(config, folder))
    failed = True
    try:
        yield loggers
        failed = False
    finally:
        if is_main_process():
            end_wandb(failed)


def rewind(loggers: Sequence[Logger], step: int) -> None:
    """Drop what was logged after a step that training goes on from.

    Weights & Biases takes nothing back: it shows the steps that are taken again twice.
    """
    for logger in loggers:
        if isinstance(logger, MetricsTable | Curves):
            logger.rewind(step)


def log_scores(loggers: Sequence[Logger], rows: Sequence[dict[str, Any]], step: int) -> None:
    """Log the final scores, as `last/success@90`, at the last step of training."""
    metrics = {
        f"{row['which']}/{name}@{row['length']}": row[name]
        for row in rows
        for name in _SCORES
        if row[name] is not None
    }
    for logger in loggers:
        logger.log_metrics(metrics, step)
        logger.save()
