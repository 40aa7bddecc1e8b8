"""The tokens of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gymnasium.spaces import Box, Discrete

from rate.architecture import make_config
from rate.errors import ConfigError
from rate.model import SequenceModel
from rate.policy import Policy
from rate.return_condition import ReturnCondition
from rate.tokenizers import TripleTokenizer
from tests.factories import MODELS, make_batch, make_model, twin

D = 16
RETURN, OBSERVATION, ACTION = range(3)


def embedding(**changes: Any) -> TripleTokenizer:
    return TripleTokenizer(make_config(d_model=D, **changes), Box(-1, 1, (3,)), Discrete(4)).eval()


def test_tokens_stand_in_order() -> None:
    model = make_model("rate")
    embed, batch = model.tokenizer, make_batch(model)
    tokens = model.tokenizer(batch)
    assert tokens.shape == (3, 12, 3, D)
    assert torch.equal(tokens[:, :, RETURN], embed.returns(batch.returns_to_go))
    assert torch.equal(tokens[:, :, OBSERVATION], embed.observation(batch.observations))
    assert torch.equal(tokens[:, :, ACTION], embed.action(batch.actions))


@pytest.mark.parametrize("name", [name for name in MODELS if name.endswith("of_pairs")])
def test_of_decoupled_returns_the_newest_alone_matters(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model)
    assert model.tokenizer(batch).shape == (3, 12, 2, D)
    changed = batch.clone()
    changed.returns_to_go[:, 5] += 1
    with torch.no_grad():
        difference = (model(changed)[0] - model(batch)[0]).abs().amax((0, 2))
    assert difference.nonzero()[:, 0].tolist() == [5]
    blind = twin_without_condition(model)
    assert torch.equal(blind(changed)[0], blind(batch)[0])


def twin_without_condition(model: SequenceModel) -> SequenceModel:
    """The model that is not conditioned on the return-to-go, with the same weights."""
    config = replace(model.config, condition_on_return=False)
    other = SequenceModel(config, model.observation_space, model.action_space)
    weights = {k: v for k, v in model.state_dict().items() if not k.startswith("condition.")}
    other.load_state_dict(weights)
    assert other.condition is None
    return other.eval()


def test_at_the_start_of_training_features_are_normalised_and_no_more() -> None:
    condition = ReturnCondition(make_config(d_model=D))
    features = 3 + 5 * torch.randn(2, 7, D)
    found = condition(features, torch.randn(2, 7, 1))
    torch.testing.assert_close(found, torch.nn.functional.layer_norm(features, (D,)))


@pytest.mark.parametrize("position", ["timestep", "sinusoidal"])
def test_timesteps_are_one_for_all_tokens_of_a_step_and_end_with_the_table(position: str) -> None:
    embed = embedding(position=position, max_timestep=5)
    tokens = torch.randn(1, 1, 3, D).expand(1, 7, 3, D)
    with torch.no_grad():
        placed = embed.add_positions(tokens, torch.tensor([[0, 1, 2, 3, 4, 5, 900]]))
    assert len(placed[0].flatten(1).unique(dim=0)) == 5
    assert torch.equal(placed[0, 4], placed[0, 6])


def test_mirrored_timesteps_are_a_linear_map_of_each_other() -> None:
    """As they are not with embeddings that are drawn; 40 times, and a map of 16 numbers."""
    for position, linear in (("sinusoidal", True), ("timestep", False)):
        embed = embedding(position=position, max_timestep=40)
        assert embed.timestep is not None
        table = embed.timestep.weight.detach().double()
        mirror = torch.linalg.lstsq(table, table.flip(0)).solution
        assert torch.allclose(table @ mirror, table.flip(0), atol=1e-3) is linear


def test_relative_positions_leave_the_tokens_alone() -> None:
    tokens = torch.randn(1, 2, 3, D)
    assert torch.equal(embedding().add_positions(tokens, torch.tensor([[0, 5]])), tokens)


def test_set_normalisation_reaches_vector_observations() -> None:
    model = make_model("rate")
    batch = make_batch(model)
    before = model.tokenizer(batch)
    model.tokenizer.observation.set_normalisation(torch.ones(3), 2 * torch.ones(3))
    after = model.tokenizer(batch)
    assert not torch.allclose(before[:, :, OBSERVATION], after[:, :, OBSERVATION])
    assert torch.equal(before[:, :, ACTION], after[:, :, ACTION])
    assert "tokenizer.observation.mean" in model.state_dict()


@pytest.mark.parametrize("name", ["rate", "dt"])
def test_returns_are_divided_by_their_scale_and_nothing_else_is(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model)
    scaled = twin(model, return_scale=40.0)
    wide = batch._map(lambda tensor: tensor)
    wide.returns_to_go.mul_(40)
    torch.testing.assert_close(scaled.tokenizer(wide), model.tokenizer(make_batch(model)))
    other = scaled.tokenizer(make_batch(model))
    assert not torch.allclose(other[:, :, RETURN], model.tokenizer(make_batch(model))[:, :, RETURN])


@pytest.mark.parametrize("name", MODELS)
def test_policies_scale_returns_as_training_does(name: str) -> None:
    model = make_model(name)
    scaled = twin(model, return_scale=8.0)
    rng = torch.Generator().manual_seed(3)
    observations = torch.randn(7, 2, 3, generator=rng).numpy()
    rewards = torch.randn(7, 2, generator=rng).numpy()
    plain = Policy(model, num_envs=2, target_return=1.5)
    wide = Policy(scaled, num_envs=2, target_return=12.0)
    for seen, earned in zip(observations, rewards, strict=True):
        assert plain.act(seen, earned).tolist() == wide.act(seen, 8 * earned).tolist()


def test_a_scale_must_be_above_zero() -> None:
    for scale in (0.0, -1.0):
        with pytest.raises(ConfigError, match=r"model\.return_scale is .*above 0"):
            make_config(return_scale=scale)


@pytest.mark.parametrize("name", ["rate", "dt"])
def test_actions_or_returns_can_be_left_out(name: str) -> None:
    model, batch = make_model(name), make_batch(make_model(name))
    other = batch._map(torch.clone)
    other.actions.copy_((batch.actions + 1) % 4)
    other.returns_to_go.mul_(3)
    plain = twin(model)
    assert not torch.equal(plain.tokenizer(other), plain.tokenizer(batch))
    blind = twin(model, condition_on_action=False, condition_on_return=False)
    assert torch.equal(blind.tokenizer(other), blind.tokenizer(batch))
    seeing = twin(model, condition_on_action=False)
    tokens, changed = seeing.tokenizer(batch), seeing.tokenizer(other)
    assert torch.equal(tokens[:, :, ACTION], changed[:, :, ACTION])
    assert not torch.equal(tokens[:, :, RETURN], changed[:, :, RETURN])
