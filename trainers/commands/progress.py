"""The display of the progress of a study's runs."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from trainers.meter import Meter


def show_reports(queue: Any, meter: Meter) -> None:
    """Show the reports of runs in a queue, for 0.2 seconds.

    Args:
        queue: Has tuples of the run's name, its phase, the completed steps and the total steps.
        meter: Shows the progress.
    """
    until = time.monotonic() + 0.2
    while (left := until - time.monotonic()) > 0:
        try:
            run, phase, done, total = queue.get(timeout=left)
        except Empty:
            return
        meter.show(phase, done, total, name=run)
