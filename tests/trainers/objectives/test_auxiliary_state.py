"""Prediction of the privileged state as an auxiliary loss, in training only."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from rate.batch import Batch
from rate.errors import ConfigError
from rate.weights import load_model
from tests.factories import make_batch, make_model
from trainers.config import RunConfig
from trainers.config_files import config_from_dict
from trainers.objectives.auxiliary_state import AuxiliaryStateHead
from trainers.registry import check_run, get_environment, privileged_space
from trainers.train import train


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("auxiliary")


def make_config(root: Path, name: str, environment: str = "retrieval", **loss: float) -> RunConfig:
    settings = {
        "environment": environment,
        "model": {
            "context_length": 4,
            "d_model": 16,
            "num_layers": 1,
            "num_heads": 2,
            "num_memory_tokens": 2,
        },
        "data": {"root": str(root), "num_episodes": 30, "max_length": 12, "workers": 1},
        "training": {"segments": 3, "batch_size": 8, "max_steps": 6, "log_every_n_steps": 1},
        "evaluation": {"every_n_steps": 0, "lengths": [8], "episodes": 4},
        "loss": loss,
        "logging": {
            "output": str(root / "runs"),
            "name": name,
            "progress": False,
            "tensorboard": False,
        },
    }
    return config_from_dict(settings)


def with_privileged_state(batch: Batch, low: float, high: float) -> Batch:
    """Returns the batch with a privileged state: `low` in even rows, `high` in odd ones."""
    odd = (torch.arange(batch.batch_size) % 2).view(-1, 1, 1)
    privileged = low + (high - low) * odd.float()
    return replace(batch, privileged=privileged.expand(-1, batch.num_steps, 2))


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (3.0, 7.0)])
def test_the_loss_is_a_cross_entropy_for_every_range(low: float, high: float) -> None:
    batch = with_privileged_state(make_batch(make_model("rate"), [4, 4], 4), low, high)
    head = AuxiliaryStateHead(Box(low, high, (2,), np.float32), 8)
    with torch.no_grad():
        head.linear.weight.zero_()
        head.linear.bias.fill_(1.0)
    losses = head.loss(torch.randn(2, 4, 8), batch)
    assert losses.shape == (2, 4)
    assert losses[0, 0].item() == pytest.approx(math.log(1 + math.e))
    assert losses[1, 0].item() == pytest.approx(math.log(1 + math.exp(-1)))


def test_a_constant_part_is_finite_and_an_unbounded_one_refused() -> None:
    batch = with_privileged_state(make_batch(make_model("rate"), [4, 4], 4), 2.0, 2.0)
    fixed = AuxiliaryStateHead(Box(2, 2, (2,), np.float32), 8)
    assert fixed.loss(torch.randn(2, 4, 8), batch).isfinite().all()
    with pytest.raises(ConfigError, match="no bounds"):
        AuxiliaryStateHead(Box(-np.inf, np.inf, (2,), np.float32), 8)


def test_the_first_parts_alone_can_be_predicted() -> None:
    batch = with_privileged_state(make_batch(make_model("rate"), [4, 4], 4), 0.0, 1.0)
    space, features = Box(0, 1, (2,), np.float32), torch.randn(2, 4, 8)
    head = AuxiliaryStateHead(space, 8, parts=1)
    assert head.linear.out_features == 1
    losses = head.loss(features, batch)
    assert batch.privileged is not None
    other = batch.privileged.clone()
    other[..., 1:] = 1 - other[..., 1:]
    torch.testing.assert_close(head.loss(features, replace(batch, privileged=other)), losses)
    other[..., :1] = 1 - other[..., :1]
    assert (head.loss(features, replace(batch, privileged=other)) != losses).all()


def test_more_parts_than_there_are_are_refused_at_the_start(root: Path) -> None:
    config = make_config(root, "none", "memory_length", auxiliary_state_weight=1.0)
    loss = replace(config.loss, auxiliary_state_parts=99)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match=r"loss\.auxiliary_state_parts=99, .* has \d+ parts"):
        check_run(replace(config, loss=loss))


def test_a_privileged_state_without_bounds_is_refused_at_the_start() -> None:
    pytest.importorskip("mazelib", reason="POPGym is not installed (extra popgym)")
    with pytest.raises(
        ConfigError, match=r"loss\.auxiliary_state_weight.*no privileged state with bounds"
    ):
        privileged_space("popgym", {"task": "PositionOnlyCartPoleEasy"})


def test_a_batch_without_a_privileged_state_is_refused() -> None:
    batch = make_batch(make_model("rate"), [4], 4)
    with pytest.raises(ValueError, match="no privileged state"):
        AuxiliaryStateHead(Box(0, 1, (2,), np.float32), 8).loss(torch.randn(1, 4, 8), batch)


def test_it_trains_the_model_and_is_not_saved_with_it(root: Path) -> None:
    """Runs with and without it save weights of the same names and shapes, with other values."""
    plain = train(make_config(root, "plain")).folder / "checkpoints" / "last"
    told = (
        train(make_config(root, "told", auxiliary_state_weight=0.5)).folder / "checkpoints" / "last"
    )
    weights = [load_model(path).model.state_dict() for path in (plain, told)]
    assert weights[0].keys() == weights[1].keys()
    assert not torch.equal(weights[0]["backbone.memory"], weights[1]["backbone.memory"])
    assert load_model(told).spec.observation_space == load_model(plain).spec.observation_space


def test_a_resumed_run_equals_an_uninterrupted_one(root: Path) -> None:
    """The training state holds the head that predicts the privileged state."""
    config = make_config(root, "whole", auxiliary_state_weight=0.5)
    config = replace(config, optimizer=replace(config.optimizer, schedule="constant"))
    half = replace(config, logging=replace(config.logging, name="half"))
    short = replace(half, training=replace(half.training, max_steps=3))
    folders = [train(config).folder, train(half, resume=train(short).folder).folder]
    rows = [list(csv.DictReader((f / "metrics.csv").open())) for f in folders]
    assert [row["loss"] for row in rows[0]] == [row["loss"] for row in rows[1]]


def test_batches_have_the_privileged_state_only_on_request(root: Path) -> None:
    entry = get_environment("retrieval")
    store = next(root.glob("retrieval-12-30-*/manifest.json")).parent
    for wanted in (False, True):
        data = TrajectoryDataModule(
            store, 4, 4, 3, seed=0, spec=entry.spec, with_privileged_state=wanted
        )
        batch = data.make_sampler(None).batch(0)
        assert isinstance(batch.observations, torch.Tensor)
        assert (batch.privileged is not None) == wanted
    whole = Store.open(store)
    assert isinstance(whole.observations, dict)
    chosen = int(data.make_sampler(None).episodes(0)[0])
    first = whole.observations["privileged"][whole.offsets[chosen]]
    assert batch.privileged is not None
    assert np.array_equal(batch.privileged[0, 0].numpy(), first)


def test_an_environment_without_a_privileged_state_is_refused(root: Path) -> None:
    with pytest.raises(ConfigError, match=r"loss\.auxiliary_state_weight is set, but tmaze"):
        check_run(make_config(root, "none", "tmaze", auxiliary_state_weight=1.0))
