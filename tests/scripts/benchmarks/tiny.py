"""Configurations of the benchmark that are small enough for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from scripts.benchmarks.configurations import Configuration
from scripts.benchmarks.published import CONFIGURATIONS


def tiny(name: str, **changes: Any) -> Configuration:
    """A configuration with its own encoders, but short, narrow and without dropout."""
    own = CONFIGURATIONS[name]
    small = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_head": 8, "d_ff": 16}
    size = {"context_length": 5, "dropout": 0.0, "attention_dropout": 0.0}
    model = replace(own.model, **{**small, **size, **changes})  # type: ignore[arg-type]
    return replace(own, model=model, episode_length=3 * own.segments * 5)
