"""Fixtures: configurations of tiny T-Maze runs, and their data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from datamodules.tmaze import generate_tmaze
from trainers.config import RunConfig
from trainers.config_files import config_from_dict

MakeConfig = Callable[..., RunConfig]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a data root with sixty oracle episodes of at most 12 observations."""
    root = tmp_path_factory.mktemp("tmaze")
    generate_tmaze(root, 12, num_episodes=60)
    return root


@pytest.fixture
def make_config(tmp_path: Path, data_root: Path) -> MakeConfig:
    """Returns a function that makes a configuration of a tiny run in `tmp_path`, with changes."""
    tiny: dict[str, Any] = {
        "model": {
            "context_length": 4,
            "d_model": 16,
            "num_layers": 1,
            "num_heads": 2,
            "num_memory_tokens": 2,
            "valve": "cross_attention",
            "memory_noise": 0.1,
            "dropout": 0.1,
        },
        "data": {"root": str(data_root), "num_episodes": 60},
        "training": {
            "segments": 3,
            "batch_size": 4,
            "max_steps": 8,
            "log_every_n_steps": 2,
            "checkpoint_every_n_steps": 3,
        },
        "evaluation": {
            "every_n_steps": 4,
            "lengths": [8],
            "selection_lengths": [6],
            "episodes": 4,
        },
        "logging": {"output": str(tmp_path / "runs"), "progress": False, "tensorboard": False},
    }

    def make(**changes: Any) -> RunConfig:
        settings = {section: dict(values) for section, values in tiny.items()}
        for name, value in changes.items():
            section, option = name.split("__")
            settings.setdefault(section, {})[option] = value
        return replace(config_from_dict(settings))

    return make
