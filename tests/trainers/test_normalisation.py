"""Observations are normalised by statistics of the data, which are saved in the weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from datamodules.store import Store
from rate.weights import load_model
from tests.trainers.conftest import MakeConfig
from trainers.config_files import config_from_dict
from trainers.train import train


def observation_encoder(folder: Path) -> Any:
    return load_model(folder / "checkpoints" / "last").model.tokenizer.observation


def assert_carries(encoder: Any, statistics: tuple[Any, Any]) -> None:
    mean, std = statistics
    assert encoder.mean.tolist() == mean.tolist()
    assert encoder.std.tolist() == [value or 1.0 for value in std.tolist()]


def run(root: Path, options: dict[str, Any]) -> Path:
    """Trains on Associative Retrieval, with the cue as part of a dictionary if it is visible."""
    settings = {
        "environment": "retrieval",
        "env": options,
        "model": {"context_length": 4, "d_model": 16, "num_layers": 1, "num_heads": 2},
        "data": {"root": str(root), "num_episodes": 9, "max_length": 12, "workers": 1},
        "training": {"batch_size": 2, "max_steps": 1},
        "evaluation": {"every_n_steps": 0, "selection_lengths": [], "lengths": [5]},
        "logging": {"output": str(root), "progress": False, "tensorboard": False},
    }
    settings["data"]["normalise"] = True
    return train(config_from_dict(settings)).folder


def test_a_vector(make_config: MakeConfig, data_root: Path) -> None:
    folder = train(make_config(data__normalise=True)).folder
    store = Store.open(data_root / "tmaze-12-60-seed0")
    assert_carries(observation_encoder(folder), store.normalisation[""])


def test_the_vectors_of_a_dictionary(tmp_path: Path) -> None:
    encoder = observation_encoder(run(tmp_path, {"privileged": True}))
    (manifest,) = tmp_path.glob("*/manifest.json")
    statistics = Store.open(manifest.parent).normalisation
    assert "privileged" in statistics
    for key, found in statistics.items():
        assert_carries(encoder.encoders[encoder.keys.index(key)][0], found)
