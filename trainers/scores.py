"""Rows of scores: aggregates over the episodes of a rollout."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rate.advice import command
from trainers.episode_rows import RolloutResult

# Columns of every row of scores; reserved, not allowed as names of outcomes.
_OWN = {
    *(
        "environment",
        "model",
        "which",
        "seed",
        "step",
        "seconds",
        "length",
        "episodes",
        "first_seed",
    ),
    *("success", "sem", "return", "return_sem", "steps", "invalid"),
    *("return_to_go", "rtg_outside", "rtg_outside_steps", "rtg_outside_from"),
    "online_evaluations",
}
_SHOWN = 4  # maximum number of rows named in a remark


@np.errstate(over="ignore", invalid="ignore")
def scores(
    result: RolloutResult, group: tuple[str, tuple[str, str]] | None = None
) -> dict[str, float | int | None]:
    """Returns the scores of episodes, as finite numbers or None.

    Episodes whose return or success is not finite are counted as `invalid` and excluded from all
    other scores.

    Args:
        result: The episodes.
        group: A binary outcome that divides episodes into two groups, and the groups' names.

    Returns:
        `success` and `sem` (its standard error; both None if the environment reports no success),
        `return` and `return_sem`, `steps`, `invalid`; if the range of the training data is known
        `rtg_outside` (the share of steps whose return-to-go was outside of it),
        `rtg_outside_steps` (their number) and `rtg_outside_from` (the first of them in any episode,
        counted from 0, or None); the mean of every other outcome over the episodes that have it,
        with `NAME_episodes` if these are not all; and with a group `success_NAME` or `return_NAME`
        of both groups and `imbalance`, their distance.
    """
    is_valid = np.isfinite(result.returns)
    if "success" in result.outcomes:
        is_valid = is_valid & np.isfinite(result.outcomes["success"])
    outcomes = {name: values[is_valid] for name, values in result.outcomes.items()}
    returns = result.returns[is_valid]
    success = outcomes.pop("success", None)
    row: dict[str, float | int | None] = {
        **_mean_and_error(success, "success", "sem"),
        **_mean_and_error(returns, "return", "return_sem"),
        "steps": _mean(result.lengths[is_valid]),
        "invalid": int(np.count_nonzero(~is_valid)),
        **_outside(result, is_valid),
    }
    kinds = None if group is None else outcomes.pop(group[0], None)
    row.update(_outcome_means(outcomes))
    if group is not None and kinds is not None:
        score, name = (returns, "return") if success is None else (success, "success")
        low, high = (_mean(score[kinds == kind]) for kind in (0, 1))
        row.update(zip((f"{name}_{kind}" for kind in group[1]), (low, high), strict=True))
        row["imbalance"] = None if low is None or high is None else abs(high - low)
    return row


def remarks(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Returns remarks on unusual scores, one line per kind."""
    invalid = [f"{row['invalid']} {_place(row)}" for row in rows if row.get("invalid")]
    outside = [
        f"{100 * row['rtg_outside']:.3g} % of the steps {_place(row)}, from step "
        f"{row['rtg_outside_from']} on"
        for row in rows
        if row.get("rtg_outside")
    ]
    lines = []
    if invalid:
        lines.append(
            "Some episodes had a reward, an observation or a success that is not a finite number, "
            f"and are left out of the scores: {_some(invalid)}."
        )
    if outside:
        lines.append(
            "The model was given returns-to-go beyond the range of its training data, which it "
            f"never saw: at {_some(outside)}. evaluation.return_to_go=clamp keeps them inside, and "
            f"so does hold with a target inside; `{command('evaluate', 'RUN')} --return-to-go "
            "hold` scores the same weights with it."
        )
    return lines


def _place(row: Mapping[str, Any]) -> str:
    label = " ".join(str(row[key]) for key in ("model", "which") if row.get(key))
    return f"at length {row['length']}" + (f" ({label})" if label else "")


def _some(texts: Sequence[str]) -> str:
    more = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + more


def _outside(result: RolloutResult, is_valid: NDArray[np.bool_]) -> dict[str, float | int | None]:
    """Returns how often, and from which step on, returns-to-go were outside the training range."""
    if result.outside is None or result.first_outside is None:
        return {}
    count, steps = int(result.outside[is_valid].sum()), int(result.lengths[is_valid].sum())
    first = result.first_outside[is_valid]
    return {
        "rtg_outside": count / max(steps, 1),
        "rtg_outside_steps": count,
        "rtg_outside_from": int(first[first >= 0].min()) if count else None,
    }


def _outcome_means(outcomes: Mapping[str, NDArray[Any]]) -> dict[str, float | int | None]:
    means: dict[str, float | int | None] = {}
    for key, values in outcomes.items():
        name = f"info_{key}" if key in _OWN else key
        finite = values[np.isfinite(values)]
        means[name] = _mean(finite)
        if len(finite) < len(values):
            means[f"{name}_episodes"] = len(finite)
    return means


def _mean_and_error(
    values: NDArray[Any] | None, mean: str, error: str
) -> dict[str, float | int | None]:
    """Returns the mean and the standard error under these names; None without values."""
    if values is None or not len(values):
        return {mean: None, error: None}
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return {mean: _mean(values), error: _finite(deviation / math.sqrt(len(values)))}


def _mean(values: NDArray[Any]) -> float | None:
    """Returns the mean; None without values, or if it overflows."""
    return _finite(float(np.mean(values))) if len(values) else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
