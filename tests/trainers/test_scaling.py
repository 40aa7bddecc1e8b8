"""Scales of a model from its data, and notes on data without a scale."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from gymnasium.spaces import Box

from datamodules import Episode, Store, write_store
from datamodules.episodes import DatasetError
from rate.architecture import make_config
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.model import SequenceModel
from tests.digests import renew_store
from trainers.config_learning import LossConfig, OptimizerConfig
from trainers.scaling import scale_to_data

RNG = np.random.default_rng(0)
LENGTHS = (30, 1, 55)
ONE_STEP = np.float32([0.1, np.nextafter(np.float32(0.1), np.float32(1))])


def columns(steps: int) -> np.ndarray:
    """Returns columns: varying, constant, one float32 step apart, the same at 1e6, noise."""
    offset = np.float32([1e6, np.nextafter(np.float32(1e6), np.float32(2e6))])
    return np.stack(
        [
            RNG.normal(5, 2, steps),
            np.full(steps, 0.3),
            RNG.choice(ONE_STEP, steps),
            RNG.choice(offset, steps),
            1e-9 * RNG.normal(size=steps),
        ],
        axis=1,
    ).astype(np.float32)


def make_store(path: Path, actions: Box) -> Store:
    spec = EnvironmentSpec("odd", Box(-np.inf, np.inf, (5,)), actions, target_return=1.0)
    scale = np.float32([1e3, 1e-4])
    episodes = [
        Episode(
            columns(n), scale * RNG.normal(size=(n, 2)).astype(np.float32), np.ones(n), True, False
        )
        for n in LENGTHS
    ]
    return write_store(iter(episodes), path, spec, {})


def make_model(store: Store) -> SequenceModel:
    config = make_config(context_length=4, d_model=8, num_layers=1, num_heads=2)
    return SequenceModel(config, store.spec.observation_space, store.spec.action_space)


def test_unbounded_actions_are_scaled_by_the_data(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", Box(-np.inf, np.inf, (2,)))
    model = make_model(store)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scale_to_data(model, store, normalise=False)
    actions = np.array(store.arrays["actions"], np.float64)
    np.testing.assert_allclose(model.head.unit, actions.std(0), rtol=1e-6)
    np.testing.assert_allclose(model.head.centre, actions.mean(0), rtol=1e-6)
    assert model.tokenizer.observation.std.tolist() == [1] * 5


def test_actions_are_read_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store(tmp_path / "store", Box(-np.inf, np.inf, (2,)))
    whole = store.action_moments()
    monkeypatch.setattr("datamodules.store._ROWS", 7)
    np.testing.assert_allclose(store.action_moments(), whole, rtol=1e-6)


def test_observations_that_hardly_vary_are_reported_and_kept_small(tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", Box(-1e4, 1e4, (2,)))
    model = make_model(store)
    with pytest.warns(UserWarning, match=r"4 of 5 components .* \(1, 2, 3, 4\)"):
        scale_to_data(model, store, normalise=True)
    encoder = model.tokenizer.observation
    assert model.head.unit.tolist() == [1e4, 1e4]
    assert encoder.std[0].item() == pytest.approx(store.normalisation[""][1][0])
    seen = (store.observations[:, :] - encoder.mean.numpy()) / encoder.std.numpy()
    assert np.abs(seen).max() < 6
    rollout = store.observations[0] + np.float32([0.1, 0.1, 0.1, 10, 0.1])
    assert np.abs((rollout - encoder.mean.numpy()) / encoder.std.numpy()).max() < 12


@pytest.mark.parametrize(("key", "value"), [("std", -1.0), ("std", float("nan")), ("mean", 1e999)])
def test_damaged_statistics_are_refused(key: str, value: float, tmp_path: Path) -> None:
    path = make_store(tmp_path / "store", Box(-1e4, 1e4, (2,))).path
    manifest = json.loads((path / "manifest.json").read_text())
    (entry,) = manifest["normalisation"].values()
    entry[key][2] = value
    (path / "manifest.json").write_text(json.dumps(manifest))
    renew_store(path)
    with pytest.raises(DatasetError, match=r"manifest\.json: the normalisation of the observ"):
        Store.open(path)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
@pytest.mark.parametrize(
    ("config", "name"),
    [
        (LossConfig, "loss.step_weight"),
        (LossConfig, "loss.auxiliary_state_weight"),
        (OptimizerConfig, "optimizer.learning_rate"),
        (OptimizerConfig, "optimizer.gradient_clip"),
    ],
)
def test_a_weight_that_is_not_finite_is_refused(
    config: type[LossConfig] | type[OptimizerConfig], name: str, value: float
) -> None:
    with pytest.raises(ConfigError, match=rf"{name} is {value}"):
        config(**{name.split(".")[1]: value})
