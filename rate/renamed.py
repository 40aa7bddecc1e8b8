"""Former names of settings, metrics and stored columns, and how they are read.

This is the only place that knows them. A name that a person types on a command line is read with a
note; what an earlier version wrote to disk (configurations of runs, saved models, data sets) is
read silently. Nothing is written under a former name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Renamed:
    """What became of a setting.

    Attributes:
        name: Its name today, in the same section.
        values: Those of its values that have other names today, former to current.
    """

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)

    def value(self, former: Any) -> Any:
        """A value under its current name."""
        return self.values.get(former, former) if isinstance(former, str) else former


SETTINGS: dict[str, Renamed] = {
    "env.hint": Renamed("privileged"),
    "loss.hint_weight": Renamed("auxiliary_state_weight"),
    "loss.decisive_steps": Renamed("weighted_steps", {"final": "last", "changes": "keyframes"}),
    "loss.decisive_span": Renamed("last_steps"),
    "loss.decisive_weight": Renamed("step_weight"),
    "evaluation.exact_window": Renamed("recompute_window"),
}
"""By their former names, `section.name`."""

METRICS: dict[str, str] = {
    "hint_loss": "auxiliary_state_loss",
    "decisive_accuracy": "last_step_accuracy",
}
"""Columns of `metrics.csv`, former to current; `held_out/` may stand before them."""

WEIGHTS: dict[str, str] = {
    "objective.hint_head.": "objective.auxiliary_head.",
    ".slots": ".slot_embedding",
    ".valve.mix.": ".valve.attention.",
    ".attention_join.": ".attention_residual.",
    ".feed_forward_join.": ".feed_forward_residual.",
}
"""Parts of names of weights, former to current."""

# The part of observations that is the privileged state, in data and models of the environments of
# this project.
_PARTS = {"hint": "privileged"}
_ENVIRONMENTS = (
    *("memory_maze", "minigrid", "minigrid_memory", "popgym", "retrieval", "two_colors"),
    "vizdoom",
)
_OWN_ID = '"id": "RATE/'  # in the JSON of a Gymnasium specification


def renamed(option: str, known: Collection[str]) -> tuple[str, Renamed] | None:
    """The current name of an option, if it is a former one.

    Args:
        option: `section.name`.
        known: The options there are. An environment or objective of a user may have one of a
            former name, which is then its own.

    Returns:
        The option's current name and its entry; None where it is not a former name.
    """
    entry = SETTINGS.get(option)
    if entry is None or option in known:
        return None
    name = f"{option.rpartition('.')[0]}.{entry.name}"
    return (name, entry) if name in known else None


def current_settings(
    section: str, settings: Mapping[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """The settings of a section under their current names.

    Args:
        section: Its name, for example `loss`.
        settings: What a file or a caller gives.
        known: The names of all its settings today, without the section.

    Returns:
        Them, in their order. Where a setting is given under both names, the current one counts.
    """
    options = {f"{section}.{name}" for name in known}
    current: dict[str, Any] = {}
    for name, value in settings.items():
        found = renamed(f"{section}.{name}", options)
        if found is None:
            current[name] = value
        elif found[1].name not in settings:
            current[found[1].name] = found[1].value(value)
    return current


def current_names(section: str) -> list[str]:
    """The current names of the settings of a section that had others."""
    return [entry.name for name, entry in SETTINGS.items() if name.startswith(f"{section}.")]


def former_settings(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of `current_settings`.

    Names of generated data sets have a digest of their settings: it is taken under the names that
    they had first, so that data sets made by earlier versions are found.
    """
    former = {
        entry.name: name for name, entry in SETTINGS.items() if name.startswith(f"{section}.")
    }
    return {former.get(k, f"{section}.{k}").partition(".")[2]: v for k, v in settings.items()}


def current_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of metrics under their current names."""
    return {current_metric(name): value for name, value in row.items()}


def current_metric(name: str) -> str:
    """The current name of a metric, with what stands before it."""
    place, slash, metric = name.rpartition("/")
    return f"{place}{slash}{METRICS.get(metric, metric)}"


def current_weights(state: Mapping[str, T], known: Collection[str]) -> dict[str, T]:
    """The weights of a saved model or of a training state under their current names.

    Args:
        state: The weights, as a file has them.
        known: The names of the weights of the model that they are for. A model of a user may have
            a weight of a former name, which is then its own.
    """
    return {_current_weight(name, known): weight for name, weight in state.items()}


def _current_weight(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    names = (name.replace(former, current) for former, current in WEIGHTS.items())
    return next((current for current in names if current in known), name)


def current_environment(spec: Any) -> Any:
    """The plain form of an `EnvironmentSpec`, as an earlier version wrote it, under current names.

    Only specifications of this project's environments are changed. The order of the parts of an
    observation stays: encoders go by it.
    """
    if not isinstance(spec, dict) or not _is_own(spec):
        return spec
    current = dict(spec)
    space = spec.get("observation_space")
    if isinstance(space, dict) and isinstance(space.get("spaces"), dict):
        parts = {_PARTS.get(key, key): part for key, part in space["spaces"].items()}
        current["observation_space"] = {**space, "spaces": parts}
    if isinstance(options := spec.get("options"), dict):
        current["options"] = current_settings("env", options, current_names("env"))
    return current


def current_manifest(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a data set, as an earlier version wrote it, under current names."""
    environment = manifest["environment"]
    current = current_environment(environment)
    if current is environment:
        return manifest
    tables = {name: _current_columns(manifest[name]) for name in ("arrays", "normalisation")}
    provenance = current_settings("env", manifest["provenance"], current_names("env"))
    return {**manifest, **tables, "environment": current, "provenance": provenance}


def _current_columns(table: Mapping[str, Any]) -> dict[str, Any]:
    current = {}
    for name, value in table.items():
        array, slash, part = name.partition("/")
        current[f"{array}{slash}{_PARTS.get(part, part)}"] = value
    return current


def _is_own(spec: Mapping[str, Any]) -> bool:
    """Whether a specification is of an environment of this project that has a privileged state."""
    name = str(spec.get("name", "")).partition("-")[0]
    return name in _ENVIRONMENTS or _OWN_ID in str(spec.get("recorded", ""))
