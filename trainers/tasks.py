"""Task-specific settings in the presets of environments with many tasks.

A preset may have a table `tasks` that maps patterns of task names to settings. All matching entries
are applied in order. If the episodes of a task are shorter than the training window, the number of
segments or the context length is reduced.
"""

from __future__ import annotations

import math
from copy import deepcopy
from fnmatch import fnmatchcase
from typing import Any

from rate.config import ModelConfig
from rate.errors import ConfigError
from trainers.registry import find_environment, get_environment

TASKS = "tasks"


def preset_for_task(environment: str, preset: dict[str, Any], task: str | None) -> dict[str, Any]:
    """Returns a preset with the settings for one task.

    Args:
        environment: The environment; its settings have a field `task`.
        preset: The preset; one without a table of tasks is returned unchanged.
        task: The task's name; None takes the environment's default.

    Raises:
        ConfigError: If there is no such task.
    """
    if TASKS not in preset:
        return preset
    settings = find_environment(environment).options
    if settings is None:
        raise ConfigError(f"{environment} has no tasks; its preset must not have a table of them.")
    options = settings(**({} if task is None else {"task": task}))
    merged = deepcopy(preset)
    for pattern, changes in merged.pop(TASKS).items():
        if fnmatchcase(options.task, pattern):
            merge(merged, changes)
    entry = get_environment(environment, {"task": options.task})
    _fit(merged, entry.steps_at(merged["data"]["max_length"]))
    merged["env"] = {**merged.get("env", {}), "task": options.task}
    merged.setdefault("logging", {})["name"] = f"{options.task}-{merged['name']}"
    return merged


def merge(into: dict[str, Any], changes: dict[str, Any]) -> None:
    """Update a table in place with `changes`, recursively."""
    for name, value in changes.items():
        if isinstance(value, dict) and isinstance(into.get(name), dict):
            merge(into[name], value)
        else:
            into[name] = value


def _fit(preset: dict[str, Any], steps: int) -> None:
    """Limit the window to episodes of `steps` steps."""
    model, training = preset["model"], preset["training"]
    context = min(model.get("context_length", ModelConfig.context_length), steps)
    model["context_length"] = context
    training["segments"] = min(training["segments"], math.ceil(steps / context))
