"""Progress of a study's runs on the screen."""

from __future__ import annotations

import time
from queue import Empty
from typing import Any

from trainers.meter import Meter


def show_reports(queue: Any, meter: Meter) -> None:
    """Show what runs report through a queue, for a fifth of a second.

    Args:
        queue: Of a run's name, the phase that it is in, and what is done of that and in all.
        meter: Shows it.
    """
    until = time.monotonic() + 0.2
    while (left := until - time.monotonic()) > 0:
        try:
            run, phase, done, total = queue.get(timeout=left)
        except Empty:
            return
        meter.show(phase, done, total, name=run)
