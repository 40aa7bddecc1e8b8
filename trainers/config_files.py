"""Configurations from plain types and YAML files."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from rate import trust
from rate.architecture import config_class, current
from rate.config import ModelConfig
from rate.errors import ConfigError
from rate.renamed import current_settings
from trainers.config import RunConfig
from trainers.config_learning import BEHAVIOUR_CLONING
from trainers.config_online import ONLINE
from trainers.objectives import objective_settings
from trainers.registry import find_environment
from trainers.yaml_files import read_yaml


def config_from_dict(values: dict[str, Any]) -> RunConfig:
    """Returns the configuration of nested plain types, the inverse of `RunConfig.to_dict`.

    Raises:
        ConfigError: If a key is unknown (the message names the closest match) or a value is
            invalid.
    """
    values = with_current_names(values)
    loss = _build(objective_settings(objective_of(values)), values.get("loss", {}), "loss.")
    config: RunConfig = _build(RunConfig, {**values, "loss": loss}, "")
    settings = find_environment(config.environment).options
    if settings is None:  # its constructor checks them
        return config
    return replace(config, env=asdict(_build(settings, config.env, "env.")))


def section_types(values: dict[str, Any]) -> dict[str, type | None]:
    """Returns the sections of a configuration and the settings dataclass of each.

    Args:
        values: The configuration. Its environment, objective and backbone determine the dataclasses
            of `env`, `loss` and `model`.

    Returns:
        Section name to dataclass; None if the section accepts any setting.

    Raises:
        ConfigError: If the environment, the objective or the backbone does not exist.
    """
    types = _field_types(RunConfig)
    found = find_environment(values.get("environment", RunConfig.environment)).options
    sections: dict[str, type | None] = {"env": found}
    for field in fields(RunConfig):
        if is_dataclass(types[field.name]):
            sections[field.name] = types[field.name]
    loss, model = objective_settings(objective_of(values)), config_class(values.get("model", {}))
    return {**sections, "loss": loss, "model": model}


def with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration of an earlier version with the current names of settings."""
    current = dict(values)
    tables: dict[str, Any] = {k: v for k, v in values.items() if isinstance(v, dict)}
    environment = values.get("environment")
    if isinstance(environment, str):  # wrong types are reported later
        tables["environment"] = environment
    for section, kind in section_types(tables).items():
        if kind is not None and section in tables:
            known = [field.name for field in fields(kind)]
            current[section] = current_settings(section, tables[section], known)
    return current


def objective_of(values: dict[str, Any]) -> str:
    """Returns the objective that a configuration names; the default if it is missing or no text."""
    training = values.get("training")
    name = training.get("objective") if isinstance(training, dict) else None
    return name if isinstance(name, str) else BEHAVIOUR_CLONING


def _format_of(values: dict[str, Any]) -> str:
    """Returns the format of data that a configuration names; empty if it names none."""
    data = values.get("data")
    reading = data.get("reading") if isinstance(data, dict) else None
    name = reading.get("format") if isinstance(reading, dict) else None
    return name if isinstance(name, str) else ""


def _expert_of(values: dict[str, Any]) -> str:
    """Returns the import path of the policy that generates the data; empty if there is none."""
    data = values.get("data")
    return str(data.get("expert") or "") if isinstance(data, dict) else ""


def with_objective(values: dict[str, Any], objective: str) -> dict[str, Any]:
    """Returns a configuration with another objective; if it differs, `loss` is reset.

    With an objective that learns values, the model is not given returns-to-go.
    """
    if objective == objective_of(values):
        return values
    training = {**values.get("training", {}), "objective": objective}
    changed = {**values, "training": training, "loss": {}}
    if objective_settings(objective).bootstraps:
        changed["model"] = {**values.get("model", {}), "condition_on_return": False}
        if training.get("bptt_segments") == 0:
            training["bptt_segments"] = None
    return changed


def with_source(values: dict[str, Any], source: Any) -> dict[str, Any]:
    """Returns a configuration with another source of batches.

    Online there are no recorded data that normalise observations and order a curriculum.
    """
    if source != ONLINE:
        return values
    data = {**values.get("data", {}), "normalise": False}
    curriculum = {**values.get("curriculum", {}), "enabled": False}
    return {**values, "data": data, "curriculum": curriculum}


def load_config_file(path: Path) -> RunConfig:
    """Returns the configuration in the `config.yaml` of a run.

    Raises:
        ConfigError: If the file is missing, is not YAML, or is not a valid configuration.
    """
    values = read_config_file(path)
    if isinstance(data := values.get("data"), dict):
        data.setdefault("held_out", 0.0)  # runs older than this setting held nothing out
    with _naming(path):
        return config_from_dict(values)


def read_config_file(path: Path) -> dict[str, Any]:
    """Returns the settings in a file, which may be a subset of all settings.

    Raises:
        ConfigError: If the file is missing, is not YAML or not a table, or if it names untrusted
            code by an import path (see `rate.trust`).
    """
    values = read_yaml(path)
    if not isinstance(values, dict):
        raise ConfigError(f"{path} does not hold a configuration.")
    with _naming(path):
        trust.require_path("training.objective", objective_of(values))
        trust.require_model_code(values.get("model"))
        trust.require_path("data.reading.format", _format_of(values))
        trust.require_path("data.expert", _expert_of(values))
        return with_current_names(values)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Names the file in errors of what is set in it."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def _checked(kind: Any, value: Any, name: str) -> Any:
    """Returns `value` if it is of the annotated type `kind`.

    YAML parses 1e-3, without a decimal point, as text; it is converted where `kind` is a float.

    Raises:
        ConfigError: If the type is wrong; the message names the setting.
    """
    if float in (kind, *get_args(kind)) and isinstance(value, str):
        with suppress(ValueError):
            value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{name} is {value}; it must be a finite number.")
    if _is_of(kind, value):
        return value
    raise ConfigError(f"{name} is {value!r}; it must be {_describe(kind)}.")


def _describe(kind: Any) -> str:
    """Returns a description of a type for error messages."""
    if NoneType in get_args(kind):
        return " or ".join(
            "null" if part is NoneType else _describe(part) for part in get_args(kind)
        )
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is list:
        numbers = {int, *get_args(get_args(kind)[0])} <= {int, NoneType}
        return "a list, like [90, 900]" if numbers else "a list"
    if get_origin(kind) is dict:
        return "a table, like {name: 1}"
    words = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return words.get(kind, str(kind))


def _is_of(kind: Any, value: Any) -> bool:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_of(part, value) for part in arguments)
    if origin is Literal:
        return True  # the configuration names the choices
    if origin is list:
        return isinstance(value, list) and all(_is_of(arguments[0], item) for item in value)
    if origin is dict:
        return isinstance(value, dict)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is kind  # exact, since bool is a subclass of int


@cache
def _field_types(kind: type) -> Mapping[str, Any]:
    """Returns the annotated types of a dataclass; evaluating them takes a millisecond."""
    return get_type_hints(kind)


def _build(kind: Any, values: Any, prefix: str) -> Any:
    """Returns an instance of the dataclass `kind`; nested dataclasses are built first."""
    if isinstance(values, kind):
        return values
    if not isinstance(values, dict):
        raise ConfigError(f"{prefix.rstrip('.')} must be a table of settings, not {values!r}.")
    if kind is ModelConfig:  # each backbone has its own settings
        kind, values = config_class(values), current(values)
    types = _field_types(kind)
    for name in values:
        if name not in types:
            close = difflib.get_close_matches(str(name), types, n=1)
            hint = f"; did you mean {prefix}{close[0]}?" if close else ""
            raise ConfigError(f"There is no setting {prefix}{name}{hint}")
    arguments = {
        name: _build(types[name], value, f"{prefix}{name}.")
        if is_dataclass(types[name])
        else _checked(types[name], value, f"{prefix}{name}")
        for name, value in values.items()
    }
    try:
        return kind(**arguments)
    except TypeError as error:
        where = prefix.rstrip(".") or "the configuration"
        raise ConfigError(f"{where} has a value of a wrong type: {error}") from error
