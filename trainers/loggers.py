"""The loggers of metrics: the run's own table, TensorBoard, and optionally Weights & Biases."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from rate.files import sync
from trainers.config import RunConfig
from trainers.csv_logger import MetricsTable
from trainers.launch import is_main_process
from trainers.wandb_run import end_wandb, start_wandb

_SCORES = ("success", "return")


class Curves(TensorBoardLogger):
    """A TensorBoard logger whose curves contain no step twice after a resume.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, name="", version="tensorboard")

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Send values to the thread that writes them.

        Raises:
            OSError: If that thread failed, for example on a full disk.
        """
        try:
            super().log_metrics(metrics, step)
        except ValueError as error:  # which tells of a value that cannot be logged
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    @rank_zero_only
    def save(self) -> None:
        """Write pending metrics to the disk.

        Raises:
            OSError: As `log_metrics`.
        """
        super().save()
        for file in Path(self.log_dir).glob("events.*"):
            sync(file)

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Discard the metrics after `step`, from which training continues."""
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog

        start = Event(step=step + 1, session_log=SessionLog(status=SessionLog.START))
        writer: Any = self.experiment
        writer.flush()  # creates the file if it does not exist
        writer.file_writer.add_event(start)


@contextmanager
def _write_errors_in_the_main_thread() -> Iterator[None]:
    """Omits the traceback of a failed writer's thread, whose error `Curves` raises."""
    before = threading.excepthook

    def show(failed: threading.ExceptHookArgs) -> None:
        if not isinstance(failed.exc_value, OSError):
            before(failed)

    threading.excepthook = show
    try:
        yield
    finally:
        threading.excepthook = before


@contextmanager
def make_loggers(config: RunConfig, folder: Path) -> Iterator[list[Logger]]:
    """Yields the loggers of a run; all metrics have been sent when the context ends.

    Raises:
        ConfigError: If Weights & Biases is enabled and its setup does not work.
    """
    loggers: list[Logger] = [MetricsTable(folder)]
    if config.logging.tensorboard:
        loggers.append(Curves(folder))
    if not config.logging.wandb:
        with _write_errors_in_the_main_thread():
            yield loggers
        return
    loggers.append(start_wandb(config, folder))
    failed = True
    try:
        with _write_errors_in_the_main_thread():
            yield loggers
        failed = False
    finally:
        if is_main_process():
            end_wandb(failed)


def rewind(loggers: Sequence[Logger], step: int) -> None:
    """Discard the metrics after a step from which training continues.

    Weights & Biases cannot delete metrics: repeated steps appear twice there.
    """
    for logger in loggers:
        if isinstance(logger, MetricsTable | Curves):
            logger.rewind(step)


def save_durably(loggers: Sequence[Logger]) -> None:
    """Write pending metrics; those of the run's table and of TensorBoard are on the disk then."""
    for logger in loggers:
        logger.save()
        if isinstance(logger, MetricsTable) and logger.path.is_file():
            sync(logger.path)


def log_scores(loggers: Sequence[Logger], rows: Sequence[dict[str, Any]], step: int) -> None:
    """Log the final scores at the last step of training, with names such as `last/success@90`."""
    metrics = {
        f"{row['which']}/{name}@{row['length']}": row[name]
        for row in rows
        for name in _SCORES
        if row[name] is not None
    }
    for logger in loggers:
        logger.log_metrics(metrics, step)
    save_durably(loggers)
