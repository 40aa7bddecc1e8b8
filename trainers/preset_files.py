"""Presets, and files of settings that override them.

A preset is a file in the folder of its environment. It contains its differences from `base.yaml`
in that folder, or from the preset named by its key `like`. The memory tasks share the generic
presets, over `any/base.yaml`, `memory_tasks.yaml` and a file of the task if there is one. Presets
with the settings of the public code, whose names end in `_published`, do not use `base.yaml`.

The folder `backbones` contains presets for all environments: their `like` names the environment's
own preset, or its quick variant (`_quick`) if there is one.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from rate.advice import command
from rate.architecture import SEGMENTS, current, settings_of
from rate.errors import ConfigError
from rate.messages import did_you_mean
from trainers.config import RunConfig
from trainers.config_files import (
    config_from_dict,
    objective_of,
    read_config_file,
    with_objective,
    with_source,
)
from trainers.data_sets import store_of
from trainers.fit_to_data import fit_to_data, fit_to_length
from trainers.registry import environment_of_run, find_environment
from trainers.tasks import TASKS, merge, preset_for_task
from trainers.yaml_files import read_yaml

PRESETS = Path(__file__).parent / "presets"
BASE = "base.yaml"  # shared settings of the presets of an environment
ANY = "any"  # the folder of presets for environments without presets of their own
RECIPES = Path(__file__).parent / "recipes"  # files of whole runs, by name
EVERYWHERE = "backbones"  # the folder of presets that every environment has
PUBLISHED = "_published"  # suffix of presets with the settings of the public code
_QUICK = "_quick"  # suffix of presets for a CPU, where the others are for a GPU
_SHOWN = 4  # names in a message


def config_path(name: str) -> Path:
    """Returns the file of `--config`: a file, or one of this project's recipes by its name.

    Raises:
        ConfigError: If there is neither.
    """
    path, known = Path(name), sorted(path.stem for path in RECIPES.glob("*.yaml"))
    if path.exists() or path.suffix:
        return path
    if name not in known:
        raise ConfigError(
            f"--config {name} is no file, and no recipe has this name.{did_you_mean(name, known)} "
            f"There are: {', '.join(known)}."
        )
    return RECIPES / f"{name}.yaml"


def has_own_presets(environment: str) -> bool:
    """Whether an environment has presets of its own."""
    is_name = environment not in (ANY, EVERYWHERE) and environment.isidentifier()
    return is_name and (PRESETS / environment).is_dir()


def preset_names(environment: str) -> list[str]:
    """Returns the names of an environment's presets: its own (or the generic), and `backbones`."""
    return sorted(_names(_folder(environment)) | _names(PRESETS / EVERYWHERE))


def _names(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.yaml") if path.name != BASE}


def _folder(environment: str) -> Path:
    return PRESETS / (environment if has_own_presets(environment) else ANY)


def preset_path(environment: str, name: str) -> Path:
    """Returns the file of a preset: the environment's own if there is one."""
    own = _folder(environment) / f"{name}.yaml"
    return own if own.is_file() else PRESETS / EVERYWHERE / f"{name}.yaml"


def load_preset(environment: str, name: str) -> dict[str, Any]:
    """Returns a preset as nested plain types.

    Raises:
        ConfigError: If the environment or the preset is unknown; the message names the closest
            match.
    """
    record = find_environment(environment)  # raises if it does not exist
    path, known = preset_path(environment, name), preset_names(environment)
    if name not in known:
        raise ConfigError(
            f"There is no preset '{name}' for {environment} (--model)."
            f"{did_you_mean(name, known)} There are: {', '.join(known)}."
        )
    preset = _read(path)
    parent = preset.pop("like", None)
    if parent is not None:
        if path.parent.name == EVERYWHERE and f"{parent}{_QUICK}" in known:
            parent = f"{parent}{_QUICK}"
        return _overlay(load_preset(environment, parent), preset)
    base = path.with_name(BASE)
    if name.endswith(PUBLISHED) or not base.is_file():
        return preset
    shared = _read(base)
    if record.preset_base:
        for file in (record.preset_base, record.name):  # the second where a task has one
            if (PRESETS / f"{file}.yaml").is_file():
                shared = _overlay(shared, _read(PRESETS / f"{file}.yaml"))
    return _overlay(shared, preset)


def _read(path: Path) -> dict[str, Any]:
    """Returns the content of a preset's file, for the caller to change."""
    return deepcopy(_content(path))


@cache
def _content(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_yaml(path)
    return content


def _overlay(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Returns a preset with changes, without settings that the new backbone does not have.

    Presets of two backbones then share all other settings: data, windows, updates.
    """
    model = base.get("model", {})
    backbone = changes.get("model", {}).get("backbone", model.get("backbone", SEGMENTS))
    for part in (base, *base.get(TASKS, {}).values()):
        if "model" in part:
            part["model"] = settings_of(backbone, part["model"])
    merge(base, changes)
    return base


def with_backbone(preset: dict[str, Any], backbone: str | None) -> tuple[dict[str, Any], list[str]]:
    """Returns a preset with another backbone, without model settings that this one does not have.

    Returns:
        The preset, and notes on the removed settings.

    Raises:
        ConfigError: If the backbone does not exist.
    """
    model = current(preset.get("model", {}))
    if backbone in (None, model.get("backbone", SEGMENTS)):
        return preset, []
    settings = settings_of(str(backbone), model)
    left_out = [name for name in model if name not in settings]
    note = f"{backbone} has no {', '.join(left_out)}: the preset's are left out."
    return {**preset, "model": settings}, [note] if left_out else []


def load_over_preset(
    path: Path, environment: str, preset: str, task: str | None
) -> tuple[RunConfig, list[str]]:
    """Returns the configuration in a file; missing settings are taken from the preset of its name.

    Args:
        path: The file; that of a run is complete.
        environment: The environment of the command.
        preset: The preset for a file without a name.
        task: The task on the command line.

    Returns:
        The configuration, and notes on its origin.

    Raises:
        ConfigError: If the file is invalid or of another environment, or if it is incomplete and
            its name is not that of a preset.
    """
    values = read_config_file(path)
    found = values.setdefault("environment", environment)
    whole = config_from_dict(values)  # raises for unknown settings and wrong values
    if found != environment:
        raise ConfigError(
            f"{path} is of {found}, not of {environment}; use: {command('train', found)}"
        )
    left_out = _left_out(values, whole.to_dict())
    if not left_out:
        return whole, []
    name = values.get("name", preset)
    shown = ", ".join(left_out[:_SHOWN]) + (", ..." if len(left_out) > _SHOWN else "")
    if name not in preset_names(environment):
        raise ConfigError(
            f"{path} leaves out {len(left_out)} settings ({shown}), and {environment} has no "
            f"preset '{name}' to take them from. Set its name to a preset "
            f"({', '.join(preset_names(environment))}) and logging.name to a name of your own."
        )
    task = task or values.get("env", {}).get("task")
    base = preset_for_task(environment, load_preset(environment, name), task)
    if whole.data.store is not None and not has_own_presets(environment):
        base = fit_to_data(base, store_of(whole), environment_of_run(whole))
    elif whole.data.store is None:
        named = {f"{part}.{key}" for part in ("model", "training") for key in values.get(part, {})}
        base = fit_to_length(base, whole, environment_of_run(whole), named)
    base = with_objective(deepcopy(base), objective_of(values))
    merged = with_source(base, whole.data.source)
    merge(merged, {**values, "name": name})
    note = f"{path} leaves out {len(left_out)} settings ({shown}): they are those of preset {name}."
    return config_from_dict(merged), [note]


def _left_out(values: dict[str, Any], whole: dict[str, Any], prefix: str = "") -> list[str]:
    """Returns the dotted names of the settings in `whole` that are missing in `values`."""
    names = []
    for name, value in whole.items():
        if name not in values:
            names.append(f"{prefix}{name}")
        elif isinstance(value, dict):
            names += _left_out(values[name], value, f"{prefix}{name}.")
    return names


def describe_differences(config: RunConfig, other: RunConfig) -> str:
    """Returns the size of two runs as text: `K = 50, N = 3, ... there; K = 15, N = 6, ... here`."""
    own, others = _size(config), _size(other)
    names = [name for name in own if name in others and own[name] != others[name]]
    there = ", ".join(others[name] for name in names)
    return f"{there}; here {', '.join(own[name] for name in names)}" if names else ""


def _size(config: RunConfig) -> dict[str, str]:
    model, training = asdict(config.model), config.training
    of_memory = {
        "num_memory_tokens": "{} memory tokens",
        "cache_length": "a cache of {}",
        "num_layers": f"{{}} layers of width {config.model.d_model}",
        "block": "block {}",
        "valve": "valve {}",
    }
    return {
        "K": f"K = {config.model.context_length}",
        "N": f"N = {training.segments}",
        **{name: word.format(model[name]) for name, word in of_memory.items() if name in model},
        "steps": f"{training.max_steps:,} updates of {training.batch_size} windows",
        "rate": f"a learning rate of {config.optimizer.learning_rate:g}",
        "data": f"episodes of length {config.max_length}",
    }
