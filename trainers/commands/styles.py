"""Line styles of figures. A model has the same colour in every figure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from trainers.environment import BASELINES

# The colour-blind safe palette of Okabe and Ito, then colours of Paul Tol.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_OTHERS = ("#882255", "#44AA99", "#332288", "#999933", "#AA4499", "#661100")
_MODELS = dict(
    zip(
        ("rate", "dt", "rmt", "trxl", "dtxl", "dt_relative", "expert", "random"),
        COLOURS,
        strict=True,
    )
) | {
    "oracle_dt": "#7F3B08", "rate_bistable": "#E7298A", "rate_binary": "#1B3FE0",
    "lstm": "#882255", "gru": "#44AA99", "elmur": "#661100", "gated_deltanet": "#117733",
    "min_gru": "#999933", "mlstm": "#AA4499", "slstm": "#332288", "nbrc": "#DDAA33",
    "ffm": "#6699CC", "mamba2": "#B2182B", "shm": "#5AAE61", "mlp": "#BBBBBB",
}  # fmt: skip
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)))

Dash = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """The style of a line.

    Attributes:
        colour: The colour of the model.
        marker: The marker, which differs between the lines of a figure; empty for baselines.
        dash: The dash pattern, which differs between consecutive lines.
    """

    colour: str
    marker: str
    dash: Dash


def styles(names: Iterable[str]) -> dict[str, Style]:
    """Returns the style of each line of a figure, by name.

    Args:
        names: Models, or runs with the name of a model as a part (`tmaze-rate-1`).
    """
    found: dict[str, Style] = {}
    names = list(dict.fromkeys(names))
    for index, name in enumerate(names):
        model = _model(name)
        # Other names have a colour by their hash: the same in all figures, but not unique.
        other = _OTHERS[zlib.crc32(name.encode()) % len(_OTHERS)]
        colour = other if model is None else _MODELS[model]
        is_baseline = name in BASELINES
        found[name] = Style(
            colour,
            "" if is_baseline else _MARKERS[index % len(_MARKERS)],
            ":" if is_baseline else _DASHES[index % len(_DASHES)],
        )
    return found


def _model(name: str) -> str | None:
    """Returns the model of a line: the name, or the first of its parts that is a model, or None."""
    return next((part for part in (name, *name.split("-")) if part in _MODELS), None)
