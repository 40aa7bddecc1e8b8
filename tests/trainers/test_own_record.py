"""A package's record of an environment: its expert plays the data, and all commands know it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rate.errors import ConfigError
from trainers.api import train
from trainers.registry import get_environment

SMALL = {
    "model.d_model": 16,
    "model.context_length": 4,
    "model.num_heads": 1,
    "training.batch_size": 4,
    "data.num_episodes": 20,
    "data.max_length": 12,
    "data.workers": 1,
    "evaluation.episodes": 2,
    "evaluation.lengths": [12, 30],
    "evaluation.every_n_steps": 0,
    "logging.tensorboard": False,
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers `tests.own_environment`, and a folder to work in."""
    info = tmp_path / "packages" / "corridor-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corridor\nVersion: 1.0\n")
    points = "[rate.environments]\ncorridor = tests.own_environment:Record\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.chdir(tmp_path)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="cue_steps"):
        train(env="corridor", settings={**SMALL, "env.cue_stops": 3})
    assert get_environment("corridor").spec.options == {"cue_steps": 1}
