"""Names of runs, built from the settings that differ from the preset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from trainers.config import RunConfig

# Settings that distinguish models, and the part of a run's name for a changed value.
_WORDS: dict[str, Callable[[Any], str]] = {
    "model.backbone": lambda value: str(value).rpartition(":")[2],
    "model.block": str,
    "model.num_memory_tokens": "nmt{}".format,
    "model.cache_length": "cache{}".format,
    "model.valve": lambda value: "no-valve" if value == "none" else str(value),
    "model.skip_ffn": lambda value: "no-ffn" if value else "ffn",
    "training.objective": lambda value: str(value).rpartition(":")[2].lower(),
    "data.source": str,
    "training.bptt_segments": lambda value: "bptt-all" if value is None else f"bptt{value}",
    "curriculum.enabled": lambda value: "curriculum" if value else "no-curriculum",
    "env.privileged": lambda value: "privileged" if value else "no-privileged",
}


def named_by_changes(config: RunConfig, base: RunConfig) -> RunConfig:
    """Returns the run with a name that lists its changes of `base`, unless `logging.name` is set.

    Args:
        config: The run.
        base: The preset, or the configuration that the options of the command line changed.
    """
    if config.logging.name != base.logging.name:
        return config
    new, old = config.to_dict(), base.to_dict()
    if config.is_online:  # which has no curriculum
        old["curriculum"] = new["curriculum"]
    words = []
    for setting, word in _WORDS.items():
        section, name = setting.split(".")
        if name in new[section] and (value := new[section][name]) != old[section].get(name):
            words.append(word(value))
    if not words:
        return config
    name = "-".join([config.label, *words])
    return replace(config, logging=replace(config.logging, name=name))
