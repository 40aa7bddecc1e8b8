"""Unusual spaces in data, stores, training and actions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from lightning.pytorch import Trainer

from datamodules.compatibility import check_actions, unsupported_spaces
from datamodules.episodes import DatasetError, Episode, observation_items, observation_spaces
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from datamodules.writing import write_store
from rate.encoders import VectorEncoder
from rate.envs.spec import EnvironmentSpec
from rate.policy import Policy
from rate.weights import SavedModel, load_model, save_model
from tests.trainers.conftest import MakeConfig
from trainers.scaling import scale_to_data
from trainers.sequence import SequenceTrainer

STEPS, EPISODES, KINDS = 12, 12, 3
SPACES: dict[str, tuple[gymnasium.Space[Any], gymnasium.Space[Any]]] = {
    "start": (Discrete(4, start=-3), Discrete(5, start=2)),
    "bits": (MultiBinary([2, 3]), MultiBinary(4)),
    "whole numbers": (Box(-9, 9, (2, 2), np.int64), Box(-2, 3, (2, 2), np.int64)),
    "one number": (Box(-1, 1, (), np.float32), Box(-2, 5, (), np.float32)),
    "matrices": (Box(-1, 1, (2, 3), np.float32), Box(-2, 5, (3, 2), np.float32)),
    "unbounded": (Box(-np.inf, np.inf, (2, 3)), Box(-np.inf, np.inf, (2, 2))),
    "dictionary": (
        Dict(z=MultiBinary(3), a=Box(-1, 1, (), np.float32), d=Discrete(4, start=-3)),
        MultiDiscrete([[3, 2], [2, 4]], start=[[4, -1], [0, 7]]),
    ),
}


def elements(space: gymnasium.Space[Any]) -> list[Any]:
    """Returns a few elements of a space."""
    space.seed(1)
    return [space.sample() for _ in range(KINDS)]


def episodes(spec: EnvironmentSpec) -> tuple[list[Episode], list[Any]]:
    """Returns episodes with one right action for each observation, and these actions."""
    seen = {
        key: np.array(elements(part))
        for key, part in observation_spaces(spec.observation_space).items()
    }
    done = elements(spec.action_space)
    made, rng = [], np.random.default_rng(0)
    for seed in range(EPISODES):
        kinds = rng.integers(0, KINDS, STEPS)
        found = {key: values[kinds] for key, values in seen.items()}
        observations = found if isinstance(spec.observation_space, Dict) else found[""]
        rewards = np.ones(STEPS, np.float32)
        made.append(Episode(observations, np.array(done)[kinds], rewards, False, True, seed))
    return made, done


@pytest.mark.parametrize("name", SPACES)
def test_every_space_trains_saves_and_acts(
    name: str, make_config: MakeConfig, tmp_path: Path
) -> None:
    spec = EnvironmentSpec("any", *SPACES[name], float(STEPS))
    data, done = episodes(spec)
    store = write_store(data, tmp_path / "store", spec, {"source": "a test"})
    assert unsupported_spaces(store.spec) == []
    for mine, theirs in zip(data, map(store.episode, range(EPISODES)), strict=True):
        np.testing.assert_array_equal(theirs.actions, mine.actions)
        for key, array in observation_items(theirs.observations).items():
            np.testing.assert_array_equal(array, observation_items(mine.observations)[key])
    config = make_config(
        model__d_model=32,
        model__dropout=0.0,
        model__memory_noise=0.0,
        training__max_steps=60,
        optimizer__learning_rate=0.01,
        optimizer__warmup_steps=0,
    )
    module = SequenceTrainer(config, spec)
    datamodule = TrajectoryDataModule(store.path, 6, 4, 3, 0, spec=spec)
    quiet: Any = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    Trainer(
        accelerator="cpu", max_steps=60, max_epochs=-1, enable_checkpointing=False, **quiet
    ).fit(module, datamodule=datamodule)
    save_model(SavedModel(module.model, spec), tmp_path / "model")
    policy = Policy(load_model(tmp_path / "model").model, num_envs=1, target_return=STEPS)
    rewards, right = None, 0
    for step in range(STEPS):
        rows = {key: a[step : step + 1] for key, a in _items(data[0]).items()}
        action = policy.act(rows if isinstance(spec.observation_space, Dict) else rows[""], rewards)
        rewards = np.ones(1)
        assert action.shape == (1, *(spec.action_space.shape or ()))
        assert action.dtype == spec.action_space.dtype
        nearest = min(done, key=lambda other: np.abs(action[0] - np.asarray(other)).max())
        right += bool(np.array_equal(nearest, data[0].actions[step]))
    assert right >= STEPS - 1


def _items(episode: Episode) -> dict[str, Any]:
    return observation_items(episode.observations)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3), (2, 1, 2, 2)], ids=str)
def test_numbers_of_any_shape_are_normalised(
    shape: tuple[int, ...], make_config: MakeConfig, tmp_path: Path
) -> None:
    spec = EnvironmentSpec("any", Box(-np.inf, np.inf, shape), Discrete(2), 1.0)
    store = write_store(episodes(spec)[0], tmp_path / "store", spec, {})
    model = SequenceTrainer(make_config(), spec).model
    scale_to_data(model, store, normalise=True)
    seen, encoder = store.arrays["observations"], model.tokenizer.observation
    assert isinstance(encoder, VectorEncoder)
    flat = seen.reshape(len(seen), -1)
    np.testing.assert_allclose(encoder.mean, flat.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(encoder.std, flat.std(axis=0), rtol=1e-5)
    assert torch.isfinite(encoder(torch.from_numpy(seen[:6].reshape(2, 3, *shape).copy()))).all()


def test_unsupported_spaces_are_reported() -> None:
    seen, done = Box(-1, 1, (20, 20, 20)), Box(0, 2**40, (2,), np.int64)
    notes = unsupported_spaces(EnvironmentSpec("any", seen, done, 1.0))
    assert len(notes) == 2
    assert "at most 16 channels" in notes[0]
    assert "1,099,511,627,777 whole numbers" in notes[1]


def test_actions_of_several_kinds_of_spaces(tmp_path: Path) -> None:
    spec = EnvironmentSpec("any", Discrete(3), MultiBinary(2), 1.0)
    store = write_store(episodes(spec)[0], tmp_path / "store", spec, {})
    same = MultiDiscrete([2, 2])
    assert Store.open(store.path).spec == spec
    check_actions(store, replace(spec, action_space=same))
    for other in (MultiDiscrete([2, 3]), MultiDiscrete([2, 2], start=[0, 1]), Discrete(4)):
        with pytest.raises(DatasetError, match="the action_space of the data is MultiBinary"):
            check_actions(store, replace(spec, action_space=other))


def test_gradients_are_finite_if_padding_is_no_valid_action() -> None:
    from tests.factories import make_batch, make_model

    model = make_model("rate", "bits_to_started")
    batch = make_batch(model, [3, 12])
    batch.actions[0, 3:] = 99
    predictions, _ = model(batch)
    losses = model.head.loss(predictions, batch.actions)
    losses.masked_fill(~batch.mask, 0).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
