"""Fixtures: short runs, made by the commands themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from trainers.commands import train

# Options that make a run short. All tests share one data set.
SHORT = [
    *("--training.max_steps=2", "--training.batch_size=4", "--data.num_episodes=40"),
    *("--evaluation.lengths=9,40", "--evaluation.selection_lengths=9", "--evaluation.episodes=4"),
    *("--evaluation.every_n_steps=2", "--logging.progress=false", "--logging.tensorboard=false"),
]


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="session")
def short(data_root: Path) -> list[str]:
    """Returns the options that make a run short."""
    return [*SHORT, f"--data.root={data_root}"]


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, short: list[str]) -> Callable[[str], Path]:
    """Returns the folder of a finished run of a preset, trained at first use and read-only."""
    output = tmp_path_factory.mktemp("runs")

    def run(mode: str) -> Path:
        folder = output / f"tmaze-{mode}-1"
        if not folder.exists():
            train.train_on("tmaze", ["--model_mode", mode, f"--logging.output={output}", *short])
        return folder

    return run
