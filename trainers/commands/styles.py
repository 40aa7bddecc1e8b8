"""How models look in figures: a model has one colour, in every figure."""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from trainers.environment import BASELINES

# Okabe and Ito's colours, told apart by all eyes, then some of Paul Tol's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
_OTHERS = ("#882255", "#44AA99", "#332288", "#999933", "#AA4499", "#661100")
_MODELS = dict(
    zip(
        ("rate", "dt", "rmt", "trxl", "dtxl", "dt_relative", "expert", "random"),
        COLOURS,
        strict=True,
    )
) | {"oracle_dt": "#7F3B08"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_DASHES = ("-", (0, (6, 2)), (0, (6, 2, 1.5, 2)), (0, (3, 1.5)))

Dash = str | tuple[float, tuple[float, ...]]


@dataclass(frozen=True)
class Style:
    """How a line looks.

    Attributes:
        colour: The model's.
        marker: Another one for every line of a figure; none for those that learn nothing.
        dash: Other dashes than its neighbours', through which a line below is seen.
    """

    colour: str
    marker: str
    dash: Dash


def styles(names: Iterable[str]) -> dict[str, Style]:
    """The style of every line of a figure.

    Args:
        names: What the lines are of: models, or runs that are called after one (`tmaze-rate-1`).
    """
    found: dict[str, Style] = {}
    names = list(dict.fromkeys(names))
    for index, name in enumerate(names):
        model = _model(name)
        # Of any other name the same one everywhere, which two names may share.
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
    """The model that a line is of: its name, or the longest part of it between hyphens."""
    return next((part for part in (name, *name.split("-")) if part in _MODELS), None)
