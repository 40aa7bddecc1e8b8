"""Fixtures: configurations of tiny runs of T-Maze and of a user's environment, and their data."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.episodes import Episode
from datamodules.tmaze import generate_tmaze
from datamodules.writing import write_store
from tests.rate.envs.test_own import MODULE
from trainers.config import RunConfig
from trainers.config_files import config_from_dict
from trainers.registry import get_environment

MakeConfig = Callable[..., RunConfig]
WALK = "their_envs:Walk"  # an environment of `user_module`


@pytest.fixture(autouse=True)
def _short_filler(monkeypatch: pytest.MonkeyPatch) -> None:
    """At their ends, runs measure their memory after few segments, which takes less time."""
    monkeypatch.setattr("trainers.retention.FILLER", (0, 1))


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


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a user's user_module."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "their_envs.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.fixture
def walks(tmp_path: Path, user_module: Path) -> Path:
    """A store of episodes of the user's environment of size 4; every other step is forward."""
    spec = get_environment(WALK).spec

    def episode(number: int) -> Episode:
        actions = np.arange(8) % 2 if number % 2 else np.ones(4, dtype=np.int64)
        places = np.cumsum(actions) - actions
        seen = np.stack([places / 4, np.zeros(len(actions))], axis=1).astype(np.float32)
        return Episode(seen, actions, actions.astype(np.float32), True, False, number)

    path = tmp_path / "walks"
    write_store(
        map(episode, range(12)), path, replace(spec, target_return=4.0), {"source": "a test"}
    )
    return path


@pytest.fixture
def walk_config(make_config: MakeConfig, walks: Path) -> RunConfig:
    changes: dict[str, Any] = {"evaluation__lengths": [6], "evaluation__selection_lengths": [5]}
    made = make_config(data__store=str(walks), training__segments=2, **changes)
    return replace(made, environment=WALK, env={"size": 4})
