"""Observation encoders and the tokens of a step."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch import Tensor

from rate.config import ModelConfig
from rate.embeddings import ACTION, OBSERVATION, RETURN, StepEmbedding
from rate.encoders import ImageEncoder, VectorEncoder, make_encoder
from rate.errors import ConfigError
from rate.model import SequenceModel
from tests.factories import MODELS, SPACES, draw, make_batch, make_model

D = 16


@pytest.mark.parametrize("spaces", SPACES)
@pytest.mark.parametrize("part", [0, 1], ids=["observation", "action"])
def test_every_space_is_encoded_step_by_step(spaces: str, part: int) -> None:
    """`(B, T, *space)` to `(B, T, d)`; a step's code depends on that step alone."""
    space = SPACES[spaces][part]
    encoder, values = make_encoder(space, D), draw(space, 2, 5)
    with torch.no_grad():
        out = encoder(values)
        if isinstance(values, dict):
            one = encoder({key: value[1:, 3:4] for key, value in values.items()})
        else:
            one = encoder(values[1:, 3:4])
    assert out.shape == (2, 5, D)
    torch.testing.assert_close(one[0, 0], out[1, 3], rtol=0, atol=1e-6)
    assert len(out.flatten(0, 1).unique(dim=0)) > 1


@pytest.mark.parametrize(
    "space", [Discrete(5, start=-3), MultiDiscrete([3, 2, 4]), MultiDiscrete([2, 3], start=[5, -1])]
)
def test_symbols_have_codes_of_their_own(space: gym.Space[Any]) -> None:
    encoder = make_encoder(space, D)
    if isinstance(space, Discrete):
        values = torch.arange(space.start, space.start + space.n)[None]
    else:
        assert isinstance(space, MultiDiscrete)
        axes = [torch.arange(s, s + n) for s, n in zip(space.start, space.nvec, strict=True)]
        values = torch.cartesian_prod(*axes)[None]
    codes = encoder(values)[0]
    assert (torch.cdist(codes, codes) + 10 * torch.eye(len(codes))).min() > 1e-3


@pytest.mark.parametrize("space", [Discrete(3, start=2), MultiDiscrete([2, 3], start=[5, -9])])
def test_padding_need_not_be_in_the_space(space: gym.Space[Any]) -> None:
    """Padding is 0 everywhere, which a space that starts elsewhere does not have."""
    assert torch.isfinite(make_encoder(space, D)(torch.zeros(1, 2, *space.shape).long())).all()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_symbols_of_any_integer_type(dtype: torch.dtype) -> None:
    encoder, values = make_encoder(Discrete(4), D), torch.randint(4, (2, 3))
    assert torch.equal(encoder(values.to(dtype)), encoder(values))


def test_normalisation_travels_with_the_weights() -> None:
    space = Box(-1, 1, (2, 3))
    encoder = make_encoder(space, D)
    assert isinstance(encoder, VectorEncoder)
    mean, std, x = torch.randn(2, 3), torch.rand(2, 3) + 0.5, torch.randn(4, 5, 2, 3)
    expected = encoder((x - mean) / std)
    encoder.set_normalisation(mean, std)
    torch.testing.assert_close(encoder(x), expected)
    other = make_encoder(space, D)
    other.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(other(x), expected)


def test_a_component_that_never_varies_is_only_centred() -> None:
    encoder = make_encoder(Box(-1, 1, (2,)), D)
    assert isinstance(encoder, VectorEncoder)
    encoder.set_normalisation(torch.tensor([3.0, 0.0]), torch.tensor([0.0, 1.0]))
    x = torch.tensor([[[3.0, 0.5]]])
    assert torch.equal(encoder(x), encoder.linear(torch.tensor([[[0.0, 0.5]]])))


def test_vectors_of_any_type() -> None:
    encoder = make_encoder(Box(0, 9, (4,), np.uint8), D)
    values = torch.randint(10, (2, 3, 4), dtype=torch.uint8)
    assert torch.equal(encoder(values), encoder(values.double()))


def test_pixels_are_scaled_and_floats_are_not() -> None:
    encoder = make_encoder(Box(0, 255, (3, 12, 12), np.uint8), D)
    pixels = torch.randint(256, (1, 2, 3, 12, 12), dtype=torch.uint8)
    torch.testing.assert_close(encoder(pixels), encoder(pixels / 255))


@pytest.mark.parametrize("size", [(12, 10), (7, 7), (84, 84), (5, 4)])
def test_channels_first_and_last_are_the_same_image(size: tuple[int, int]) -> None:
    first, last = ImageEncoder((3, *size), D), ImageEncoder((*size, 3), D)
    last.load_state_dict(first.state_dict())
    image = torch.randint(256, (2, 3, 3, *size), dtype=torch.uint8)
    torch.testing.assert_close(last(image.movedim(2, -1)), first(image))


@pytest.mark.parametrize("size", [(1, 1), (2, 9), (9, 1), (64, 112)])
def test_images_of_any_size(size: tuple[int, int]) -> None:
    image = torch.randint(256, (2, 3, 1, *size), dtype=torch.uint8)
    assert ImageEncoder((1, *size), D)(image).shape == (2, 3, D)


def test_the_minigrid_view_has_its_channels_last() -> None:
    """7 x 7 x 3: both ends could be channels; the shorter one is."""
    assert ImageEncoder((7, 7, 3), D).channels_last
    assert not ImageEncoder((3, 7, 7), D).channels_last
    assert not ImageEncoder((4, 4, 4), D).channels_last


def test_an_image_without_channels_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"at most 16 channels.*\(40, 30, 20\)"):
        make_encoder(Box(0, 255, (40, 30, 20), np.uint8), D)


@pytest.mark.parametrize("space", [gym.spaces.Text(3), Dict(word=gym.spaces.Text(3))], ids=str)
def test_other_observation_spaces_are_refused(space: gym.Space[Any]) -> None:
    with pytest.raises(ConfigError, match=r"no encoder for the (observation|word) space"):
        make_encoder(space, D)


def test_a_dictionary_wants_a_dictionary() -> None:
    encoder = make_encoder(Dict(a=Box(-1, 1, (2,)), b=Discrete(3)), D)
    with pytest.raises(TypeError, match=r"dictionary with the keys \['a', 'b'\]"):
        encoder(torch.zeros(1, 1, 2))


def test_every_entry_of_a_dictionary_counts() -> None:
    space = SPACES["dictionary_to_bounded"][0]
    encoder, values = make_encoder(space, D), draw(space, 1, 1)
    assert isinstance(values, dict)
    before = encoder(values)
    for key, part in values.items():
        changed: dict[str, Tensor] = {**values, key: (part + 1) % 3}
        assert not torch.allclose(encoder(changed), before), key


def embedding(**changes: Any) -> StepEmbedding:
    return StepEmbedding(ModelConfig(d_model=D, **changes), Box(-1, 1, (3,)), Discrete(4)).eval()


def test_tokens_stand_in_order() -> None:
    model = make_model("rate")
    embed, batch = model.embed_steps, make_batch(model)
    tokens = model.embed(batch)
    assert tokens.shape == (3, 12, 3, D)
    assert torch.equal(tokens[:, :, RETURN], embed.returns(batch.returns_to_go))
    assert torch.equal(tokens[:, :, OBSERVATION], embed.observation(batch.observations))
    assert torch.equal(tokens[:, :, ACTION], embed.action(batch.actions))


def test_timesteps_are_one_for_all_tokens_of_a_step_and_end_with_the_table() -> None:
    embed = embedding(position="timestep", max_timestep=5)
    tokens = torch.randn(1, 1, 3, D).expand(1, 7, 3, D)
    with torch.no_grad():
        placed = embed.place(tokens, torch.tensor([[0, 1, 2, 3, 4, 5, 900]]))
    assert len(placed[0].flatten(1).unique(dim=0)) == 5
    assert torch.equal(placed[0, 4], placed[0, 6])


def test_relative_positions_leave_the_tokens_alone() -> None:
    tokens = torch.randn(1, 2, 3, D)
    assert torch.equal(embedding().place(tokens, torch.tensor([[0, 5]])), tokens)


def test_set_normalisation_reaches_vector_observations() -> None:
    model = make_model("rate")
    batch = make_batch(model)
    before = model.embed(batch)
    model.embed_steps.set_normalisation(torch.ones(3), 2 * torch.ones(3))
    after = model.embed(batch)
    assert not torch.allclose(before[:, :, OBSERVATION], after[:, :, OBSERVATION])
    assert torch.equal(before[:, :, ACTION], after[:, :, ACTION])
    assert "embed_steps.observation.mean" in model.state_dict()


def test_gpt_models_start_with_small_weights() -> None:
    model = SequenceModel(MODELS["dt"], *SPACES["vector_to_discrete"])
    weights = torch.cat([block.attention.qkv.weight.flatten() for block in model.layers])
    assert 0.015 < weights.std() < 0.025
    assert not model.layers[0].attention.qkv.bias.any()
