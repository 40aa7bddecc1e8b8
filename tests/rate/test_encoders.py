"""Observation encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete
from torch import Tensor

from rate.encoders import ImageEncoder, VectorEncoder, distinct_frames, make_encoder
from rate.errors import ConfigError
from rate.model import SequenceModel
from tests.factories import MODELS, SPACES, draw

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
def test_symbols_have_different_embeddings(space: gym.Space[Any]) -> None:
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


def test_entries_of_a_dictionary_have_equal_scale() -> None:
    """Each entry of a dictionary has the same size in the sum, so each changes it as much."""
    space = Dict(image=Box(0, 255, (3, 36, 36), np.uint8), bit=Box(0, 1, (1,), np.float32))
    encoder = make_encoder(space, 64)
    frame = torch.randint(256, (1, 1, 3, 36, 36), dtype=torch.uint8)
    with torch.no_grad():
        parts = [encoder({"image": frame, "bit": torch.full((1, 1, 1), bit)}) for bit in (0.0, 1.0)]
    assert (parts[1] - parts[0]).norm() > 0.2 * parts[0].norm()


def test_the_embedding_of_an_image_can_be_normalised() -> None:
    frames = torch.randint(256, (1, 5, 3, 36, 36), dtype=torch.uint8)
    space = Box(0, 255, (3, 36, 36), np.uint8)
    with torch.no_grad():
        out = make_encoder(space, 64, image_norm=True)(frames)
    torch.testing.assert_close(out.std(-1, correction=0), torch.ones(1, 5), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(out.mean(-1), torch.zeros(1, 5), rtol=0, atol=1e-5)


def test_gpt_models_start_with_small_weights() -> None:
    model = SequenceModel(MODELS["dt"], *SPACES["vector_to_discrete"])
    weights = torch.cat([block.attention.qkv.weight.flatten() for block in model.backbone.layers])
    assert 0.015 < weights.std() < 0.025
    assert not model.backbone.layers[0].attention.qkv.bias.any()


def repeated(kinds: int, frames: int, shape: tuple[int, ...], seed: int = 0) -> Tensor:
    """`(frames, *shape)` uint8 of so many kinds, each of which comes up; in any order."""
    rng = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (kinds, *shape), dtype=torch.uint8, generator=rng)
    order = torch.cat([torch.arange(kinds), torch.randint(kinds, (frames - kinds,), generator=rng)])
    return images[order[torch.randperm(frames, generator=rng)]]


@pytest.mark.parametrize("shape", [(3, 8, 8), (8, 8, 3), (8,), (1, 2, 4)])
@pytest.mark.parametrize(("kinds", "frames"), [(1, 16), (5, 40), (50, 100), (7, 1000)])
def test_distinct_frames_are_one_of_each_kind(
    shape: tuple[int, ...], kinds: int, frames: int
) -> None:
    images = repeated(kinds, frames, shape)
    found = distinct_frames(images)
    assert found is not None
    first, kind_of = found
    assert len(first) == kinds == len(images[first].unique(dim=0))
    assert torch.equal(images[first][kind_of], images)


def test_frames_may_be_a_part_of_a_larger_array() -> None:
    images = repeated(4, 60, (3, 8, 8)).movedim(1, -1)[::2]  # no longer contiguous
    found = distinct_frames(images)
    assert found is not None
    assert torch.equal(images[found[0]][found[1]], images)


@pytest.mark.parametrize(
    "frames",
    [
        torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(15, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(19, 7, 7, 3, dtype=torch.uint8),  # 147 bytes are no whole number of words
        torch.zeros(19, 3, 8, 8),  # not uint8
        repeated(16, 31, (3, 8, 8)),  # most are of their own kind
    ],
    ids=["none", "few", "odd size", "floats", "all different"],
)
def test_few_or_distinct_frames_are_encoded_as_they_are(frames: Tensor) -> None:
    assert distinct_frames(frames) is None


def test_frames_with_equal_hashes_are_compared() -> None:
    """The hash is linear in the words: more of one and less of another, and it is the same."""
    factor, increment = 0x5851F42D4C957F2D, 0x14057B7EF767814F
    one, other = np.uint64(increment), np.uint64((factor + increment) % 2**64)
    # The sum of its words times these two factors is other * one - one * other = 0.
    words = np.array([[0, 0], [other, 2**64 - increment]] * 8, dtype=np.uint64)
    frames = torch.from_numpy(words.view(np.uint8).reshape(16, 1, 4, 4))
    hashes = words.view(np.int64) @ np.array([one, other]).view(np.int64)
    assert len(set(hashes.tolist())) == 1
    assert distinct_frames(frames) is None
    encoder = ImageEncoder((1, 4, 4), D)
    codes = encoder(frames[None])[0]
    assert not torch.allclose(codes[0], codes[1])
    torch.testing.assert_close(codes[:2], encoder(frames[None, :2])[0])


@pytest.mark.parametrize("shape", [(3, 12, 8), (12, 8, 3)], ids=["channels first", "channels last"])
@pytest.mark.parametrize("kinds", [1, 9, 200])
def test_encoding_distinct_frames_once_changes_neither_embeddings_nor_gradients(
    shape: tuple[int, ...], kinds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also over more frames than are encoded at once."""
    encoder = ImageEncoder(shape, D, channels=4).double()
    images = repeated(kinds, 200, shape).unflatten(0, (8, 25))
    weights = torch.randn(8, 25, D, dtype=torch.float64)

    def codes_and_gradients() -> list[Tensor]:
        encoder.zero_grad()
        codes = encoder(images)
        (codes * weights).sum().backward()
        gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
        assert len(gradients) == 8
        return [codes.detach(), *gradients]

    encoded: list[int] = []
    original = encoder._encode
    monkeypatch.setattr(
        encoder, "_encode", lambda part: (encoded.append(len(part)), original(part))[1]
    )
    once = codes_and_gradients()
    assert sum(encoded) == kinds
    assert max(encoded) <= 64
    monkeypatch.setattr("rate.encoders.distinct_frames", lambda frames: None)
    encoded.clear()
    every = codes_and_gradients()
    assert sum(encoded) == 200
    for mine, others in zip(once, every, strict=True):
        torch.testing.assert_close(mine, others, rtol=1e-10, atol=1e-10)


def test_the_width_of_image_encoders_is_a_setting() -> None:
    space = Dict(image=Box(0, 255, (3, 36, 36), np.uint8), speed=Box(-1, 1, (2,)))
    encoder = make_encoder(space, D, image_channels=6)
    shapes = [p.shape[0] for name, p in encoder.named_parameters() if "convolutions" in name]
    assert shapes == [6, 6, 12, 12, 12, 12]
    assert encoder(draw(space, 2, 3)).shape == (2, 3, D)
    config = replace(MODELS["rate"], image_channels=6)
    model = SequenceModel(config, space, Discrete(4))
    assert "convolutions.0.weight" in " ".join(model.state_dict())
    (first,) = (p for name, p in model.named_parameters() if name.endswith("convolutions.0.weight"))
    assert first.shape[0] == 6


def test_without_channels_the_embedding_is_linear_in_the_pixels() -> None:
    encoder = make_encoder(Box(0, 255, (3, 5, 5), np.uint8), D, image_channels=0)
    assert {name for name, _ in encoder.named_parameters()} == {"linear.weight", "linear.bias"}
    frames = torch.randint(0, 256, (1, 2, 3, 5, 5), dtype=torch.uint8)
    assert isinstance(encoder, ImageEncoder)
    with torch.no_grad():
        torch.testing.assert_close(encoder(frames), encoder.linear(frames.flatten(2) / 255))


def test_frames_without_channels_are_images() -> None:
    """Of bytes alone: a matrix of other numbers is no picture."""
    encoder = make_encoder(Box(0, 255, (36, 36), np.uint8), D)
    assert isinstance(encoder, ImageEncoder)
    frames = torch.randint(0, 256, (2, 3, 36, 36), dtype=torch.uint8)
    same = make_encoder(Box(0, 255, (1, 36, 36), np.uint8), D)
    same.load_state_dict(encoder.state_dict())
    torch.testing.assert_close(encoder(frames), same(frames[:, :, None]))
    assert isinstance(make_encoder(Box(-1, 1, (36, 36)), D), VectorEncoder)


def test_contrast_makes_brightness_irrelevant() -> None:
    encoder = make_encoder(Box(0, 255, (1, 36, 36), np.uint8), D, image_contrast=True)
    dark = torch.randint(0, 100, (1, 2, 1, 36, 36), dtype=torch.uint8)
    torch.testing.assert_close(encoder(dark), encoder(2 * dark + 50), rtol=1e-4, atol=1e-5)
    assert torch.isfinite(encoder(torch.zeros(1, 1, 1, 36, 36, dtype=torch.uint8))).all()


def test_frames_under_autocast_are_not_converted_to_float32() -> None:
    """And come out as if they had been: every byte is a number of bfloat16."""
    encoder = make_encoder(Box(0, 255, (3, 36, 36), np.uint8), D)
    assert isinstance(encoder, ImageEncoder)
    frames = torch.randint(0, 256, (2, 3, 3, 36, 36), dtype=torch.uint8)
    seen = []
    encoder.convolutions.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].dtype))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = encoder(frames)
        expected = encoder.linear(encoder.convolutions(frames.flatten(0, 1) * (1 / 255)))
    assert seen == [torch.bfloat16, torch.float32]
    assert torch.equal(found.flatten(0, 1), expected)
