"""Former names of settings, metrics, weights and stored columns, and their current names.

All aliases are defined here. A former name on a command line is accepted with a note. A former name
in a file of an earlier version (run configuration, saved model, data set) is accepted silently.
Nothing is written under a former name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Renamed:
    """The current name of a renamed setting, and of its renamed values.

    Attributes:
        name: The current name, in the same section.
        values: The renamed values, former to current.
    """

    name: str
    values: Mapping[Any, Any] = field(default_factory=dict)

    def value(self, former: Any) -> Any:
        """Returns a value under its current name."""
        return self.values.get(former, former) if isinstance(former, str) else former


SETTINGS: dict[str, Renamed] = {
    "env.hint": Renamed("privileged"),
    "loss.hint_weight": Renamed("auxiliary_state_weight"),
    "loss.decisive_steps": Renamed("weighted_steps", {"final": "last", "changes": "keyframes"}),
    "loss.decisive_span": Renamed("last_steps"),
    "loss.decisive_weight": Renamed("step_weight"),
    "evaluation.exact_window": Renamed("recompute_window"),
    "training.num_nodes": Renamed("nodes"),
}
"""Renamed settings: the former `section.name`, and the entry of the current one."""

ADDED: dict[str, Any] = {
    "env.last_action": False,
    "env.last_reward": False,
    "env.num_frames": 1,
}
"""Settings that were added to environments that had data sets, `section.name`, and the value that
changes nothing. It is left out of the digests of data sets' names, which stay the same."""

METRICS: dict[str, str] = {
    "hint_loss": "auxiliary_state_loss",
    "decisive_accuracy": "last_step_accuracy",
}
"""Renamed columns of `metrics.csv`, former to current, without the prefix `held_out/`."""

WEIGHTS: dict[str, str] = {
    "objective.hint_head.": "objective.auxiliary_head.",
    ".slots": ".slot_embedding",
    ".valve.mix.": ".valve.attention.",
    ".attention_join.": ".attention_residual.",
    ".feed_forward_join.": ".feed_forward_residual.",
    ".alpha": ".alpha_tenth",
}
"""Renamed parts of the names of weights, former to current."""

_FACTORS: dict[str, float] = {".alpha_tenth": 0.1}
"""Ends of the current names of weights whose unit has changed, and the factor of former ones."""

# The observation key of the privileged state, in data and models of this project's environments.
_PARTS = {"hint": "privileged"}
_ENVIRONMENTS = (
    *("memory_maze", "minigrid", "minigrid_memory", "popgym", "retrieval", "two_colors"),
    "vizdoom",
)
_OWN_ID = '"id": "RATE/'  # in the JSON of a Gymnasium specification


def renamed(option: str, known: Collection[str]) -> tuple[str, Renamed] | None:
    """Returns the current name of an option that was renamed.

    Args:
        option: `section.name`.
        known: All current options. An option in it is not renamed: an environment or objective of
            a user may define an option with a former name.

    Returns:
        The current `section.name` and the entry of `SETTINGS`; None if `option` was not renamed.
    """
    entry = SETTINGS.get(option)
    if entry is None or option in known:
        return None
    name = f"{option.rpartition('.')[0]}.{entry.name}"
    return (name, entry) if name in known else None


def current_settings(
    section: str, settings: Mapping[str, Any], known: Collection[str]
) -> dict[str, Any]:
    """Returns the settings of a section under their current names.

    Args:
        section: The name of the section, for example `loss`.
        settings: Values by current or former name, without the section.
        known: All current names of the section's settings, without the section.

    Returns:
        The values by current name, in the order of `settings`. If a setting is given under both
        names, the value of the current name is used.
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
    """Returns the current names of a section's renamed settings."""
    return [entry.name for name, entry in SETTINGS.items() if name.startswith(f"{section}.")]


def former_settings(section: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the settings of a section as earlier versions had them: inverts `current_settings`.

    Names of generated data sets have a digest of their settings. It is computed with the former
    names, and without settings of `ADDED` that change nothing, so that data sets of earlier
    versions are found.
    """
    former = {
        entry.name: name for name, entry in SETTINGS.items() if name.startswith(f"{section}.")
    }
    return {
        former.get(name, f"{section}.{name}").partition(".")[2]: value
        for name, value in settings.items()
        if (key := f"{section}.{name}") not in ADDED or ADDED[key] != value
    }


def current_metrics(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a row of metrics under their current names."""
    return {current_metric(name): value for name, value in row.items()}


def current_metric(name: str) -> str:
    """Returns the current name of a metric; a prefix up to `/` stays."""
    prefix, slash, metric = name.rpartition("/")
    return f"{prefix}{slash}{METRICS.get(metric, metric)}"


def current_weights(state: Mapping[str, T], known: Collection[str]) -> dict[str, T]:
    """Returns the weights of a saved model or a training state under their current names.

    Args:
        state: The weights by the names in the file.
        known: The names of the weights of the model that loads them. A name in it is not changed:
            a model of a user may define a weight with a former name.
    """
    found = {}
    for name, weight in state.items():
        current = _current_weight(name, known)
        factors = (factor for end, factor in _FACTORS.items() if current.endswith(end))
        found[current] = weight if current == name else _times(weight, next(factors, 1.0))
    return found


def _times(weight: Any, factor: float) -> Any:
    """Returns a renamed weight in its current unit."""
    return weight if factor == 1 else weight * factor


def _current_weight(name: str, known: Collection[str]) -> str:
    if name in known:
        return name
    names = (name.replace(former, current) for former, current in WEIGHTS.items())
    return next((current for current in names if current in known), name)


def current_environment(spec: Any) -> Any:
    """Returns the plain form of an `EnvironmentSpec` under current names.

    Only specifications of this project's environments are changed. The order of the observation
    keys is kept, since encoders depend on it.

    Args:
        spec: The result of `EnvironmentSpec.to_dict`, possibly of an earlier version.
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
    """Returns the manifest of a data set, possibly of an earlier version, under current names."""
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
    """Whether a specification is of this project's environments that have a privileged state."""
    name = str(spec.get("name", "")).partition("-")[0]
    return name in _ENVIRONMENTS or _OWN_ID in str(spec.get("recorded", ""))
