"""State carried from batch to batch: equal to whole episodes, and resumed exactly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rate.backbones.segment_transformer import SegmentState
from rate.errors import ConfigError
from tests.factories import CARRYING, K, make_batch, make_model
from tests.trainers.conftest import MakeConfig
from tests.trainers.test_resume import StopAt, same_run
from trainers.carried import CarriedState
from trainers.horizon import describe_horizon
from trainers.train import train

CARRIED = {"data__window": "consecutive", "training__segments": 1}


@pytest.mark.parametrize("name", CARRYING)
def test_carried_windows_give_the_features_of_whole_episodes(name: str) -> None:
    """Row 0 has episodes of 8 and 8 steps, row 1 one of 7 (a short last window) and one of 8."""
    model, carried = make_model(name), CarriedState()
    episodes = [make_batch(model, [8, 7], seed=1), make_batch(model, [8, 8], seed=2)]
    with torch.no_grad():
        for batch in episodes:
            expected, _ = model.features(batch)
            for start in (0, K):
                part = batch.steps(start, start + K)
                found, state = model.features(part, carried.before(model, part))
                carried.keep(state)
                mask, whole = part.mask, expected[:, start : start + K]
                torch.testing.assert_close(found[mask], whole[mask], rtol=0, atol=1e-5)


def test_the_state_passes_from_batch_to_batch_and_gradients_do_not() -> None:
    model = make_model("rate")
    batch, carried = make_batch(model, [2 * K] * 2), CarriedState()
    _, state = model.features(batch.steps(0, K), carried.before(model, batch.steps(0, K)))
    carried.keep(state)
    assert isinstance(state, SegmentState)
    assert state.memory is not None
    assert not any(tensor.requires_grad for tensor in carried.state_dict().values())
    again = CarriedState()
    again.load_state_dict(carried.state_dict())
    for each in (carried, again):
        before = each.before(model, batch.steps(K, 2 * K))
        assert isinstance(before, SegmentState)
        assert before.memory is not None
        assert torch.equal(before.memory, state.memory)


@pytest.mark.parametrize("bptt_segments", [None, 0])
def test_a_resumed_run_equals_an_uninterrupted_one(
    make_config: MakeConfig, bptt_segments: int | None
) -> None:
    settings: dict[str, Any] = {**CARRIED, "training__bptt_segments": bptt_segments}
    whole = train(make_config(logging__name="whole", **settings)).folder
    config = make_config(logging__name="parts", **settings)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    train(config, resume=folder)
    same_run(whole, folder)


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"curriculum__enabled": True}, "curriculum.enabled=true"),
        ({"data__sampling": "steps"}, "data.sampling=steps"),
        ({"training__cuda_graphs": "always", "training__accelerator": "gpu"}, "cuda_graphs=always"),
        ({"training__devices": 2}, "2 x 1 devices"),
    ],
)
def test_settings_in_the_way_are_refused(
    make_config: MakeConfig, changes: dict[str, Any], obstacle: str
) -> None:
    with pytest.raises(ConfigError, match=obstacle):
        make_config(**{**CARRIED, **changes})


def test_a_model_without_a_state_is_refused(make_config: MakeConfig) -> None:
    config = make_config(**CARRIED)
    with pytest.raises(ConfigError, match="backbone=mlp, which carries no state"):
        replace(config, model=make_model("mlp").config)


def test_the_horizon_tells_that_memory_is_carried(make_config: MakeConfig) -> None:
    config = make_config(**CARRIED)
    assert describe_horizon(config, 3).endswith("memory is carried over whole episodes")
    assert config.graph_obstacle == "data.window=consecutive"
