"""What figures have in common: Matplotlib without a display, and PNGs that are written whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rate.files import atomic_path
from trainers.commands.outputs import output_errors

_NAMES = {"success": "success rate"}


def metric_name(metric: str) -> str:
    """Returns the name of a column of scores or metrics, as a label of axes."""
    return _NAMES.get(metric, metric.replace("_", " "))


def save(figure: Any, path: Path) -> None:
    """Write a figure as a PNG, atomically, and close it.

    Raises:
        ConfigError: If it cannot be written.
    """
    try:
        with output_errors(path), atomic_path(path) as draft:
            figure.savefig(draft, dpi=150, format="png")
    finally:
        pyplot().close(figure)


def pyplot() -> Any:
    """Returns `matplotlib.pyplot` with a backend that draws into files."""
    import matplotlib as mpl

    mpl.use("Agg")  # no display is needed
    import matplotlib.pyplot as plt

    return plt
