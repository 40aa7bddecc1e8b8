"""Cached hidden states: when they equal the steps that they were computed from."""

from __future__ import annotations

import pytest
import torch

from rate.architecture import make_config
from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import STEPS, TINY, K, make_batch, make_model, twin

CLOSE = {"rtol": 0.0, "atol": 1e-5}
BLOCKS = ("pre_norm", "trxl", "trxl_i", "gtrxl", "gpt")
LENGTHS = [STEPS, 7, K]


def cached_model(cache_length: int = 3 * STEPS, **changes: object) -> SequenceModel:
    return make_model(make_config(**{**TINY, "cache_length": cache_length, **changes}))


def one_pass(model: SequenceModel) -> SequenceModel:
    """The same weights over the whole history at once: one segment, nothing cached."""
    return twin(model, context_length=STEPS, cache_length=0)


def difference(model: SequenceModel, other: SequenceModel, batch: Batch) -> torch.Tensor:
    """Largest difference of two models' predictions at every step `(T,)`, padding left out."""
    with torch.no_grad():
        change = (model(batch)[0] - other(batch)[0]).abs().amax(-1)
    return (change * batch.mask).amax(0)


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("position", ["relative", "timestep"])
def test_a_cache_of_the_whole_history_equals_one_long_pass(block: str, position: str) -> None:
    """The cached inputs of a layer equal those of one long pass, because attention is causal.

    Relative positions have the same distances; learned timesteps are part of the tokens.
    """
    model = cached_model(block=block, position=position)
    assert difference(model, one_pass(model), make_batch(model, LENGTHS)).max() < 1e-5


def test_gradients_flow_through_the_cache_as_through_one_long_pass() -> None:
    model = cached_model()
    other, batch = one_pass(model), make_batch(model, LENGTHS)
    for each in (model, other):
        (each(batch)[0].square().sum(-1) * batch.mask).sum().backward()
    for (name, mine), theirs in zip(model.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, rtol=1e-3, atol=1e-4, msg=name)


def test_a_short_cache_forgets() -> None:
    """With 6 cached tokens the third segment no longer sees the first step of the second."""
    model = cached_model(cache_length=6)
    change = difference(model, one_pass(model), make_batch(model))
    assert change[:K].max() < 1e-5  # nothing to forget yet
    assert change[K:].min() > 1e-3


def test_a_short_cache_is_enough_where_it_covers_the_history() -> None:
    model = cached_model(cache_length=3 * K)  # one segment
    change = difference(model, one_pass(model), make_batch(model))
    assert change[: 2 * K].max() < 1e-5
    assert change[2 * K :].max() > 1e-3


def test_memory_tokens_are_not_one_long_pass() -> None:
    """Segments that read a rewritten memory see what a single segment cannot, cache or not."""
    model = cached_model(num_memory_tokens=3)
    change = difference(model, one_pass(model), make_batch(model))
    assert change[:K].max() < 1e-5  # both read the initial memory
    assert change[K:].min() > 1e-4


@pytest.mark.parametrize("cache_length", [1, 5, 3 * K, 50])
@pytest.mark.parametrize("memory", [0, 3])
def test_an_empty_cache_equals_no_cache(cache_length: int, memory: int) -> None:
    model = cached_model(cache_length, num_memory_tokens=memory)
    batch = make_batch(model, [K, 2, 1])
    assert difference(model, twin(model, cache_length=0), batch).max() < 1e-6


def test_values_of_an_empty_cache_have_no_effect() -> None:
    model = cached_model()
    batch, state = make_batch(model, LENGTHS), model.initial_state(3)
    assert state.cache is not None
    with torch.no_grad():
        expected, _ = model(batch)
        state.cache.normal_(std=100.0)
        found, _ = model(batch, state)
    torch.testing.assert_close(found[batch.mask], expected[batch.mask], **CLOSE)


@pytest.mark.parametrize("seed", range(5))
def test_the_cache_holds_the_newest_real_tokens(seed: int) -> None:
    """Against a plain loop: rows of random lengths, in segments of random real lengths."""
    size, layers, d_model = 7, TINY["num_layers"], TINY["d_model"]
    model, rng = cached_model(size), torch.Generator().manual_seed(seed)
    state, expected = model.initial_state(4), [torch.zeros(layers, 0, d_model) for _ in range(4)]
    for _ in range(3):
        real = torch.randint(0, K + 1, (4,), generator=rng)
        inputs = [torch.randn(4, 3 * K, d_model, generator=rng) for _ in range(layers)]
        mask = torch.arange(K) < real[:, None]
        state = model.backbone.advance(state, torch.zeros(4, 0, d_model), inputs, mask, [])
        for row, length in enumerate(3 * real):
            new = torch.stack(inputs, 1)[row, :, :length]
            expected[row] = torch.cat((expected[row], new), 1)[:, -size:]
    assert state.cache is not None
    assert state.cached is not None
    assert state.cached.tolist() == [row.shape[1] for row in expected]
    for row, tokens in enumerate(expected):
        assert torch.equal(state.cache[row, :, size - tokens.shape[1] :], tokens)
