"""What the layers of transformers do, as it is shown: attention, gates, spans, depth."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.analysis.inside import attention_weights, look_inside
from rate.nn.attention import Attention
from tests.factories import MODELS, STEPS, K, make_batch, make_model

ATTENDING = [
    name
    for name, config in MODELS.items()
    if config.backbone != "public_rate"
    and any(isinstance(module, Attention) for module in make_model(name).modules())
]


def test_the_weights_are_those_of_attention() -> None:
    model = make_model("adaptive_span")
    seen = 0

    def compare(module: Attention, given: tuple[object, ...], out: Tensor) -> None:
        nonlocal seen
        x, cache, mask, steps = (*given, None)[:4]
        weights = attention_weights(module, x, cache, mask, steps)
        values = module.inputs(x, cache, mask, steps)[2]
        mixed = (weights @ values).transpose(1, 2).flatten(2)
        torch.testing.assert_close(module.out(mixed), out, rtol=0, atol=1e-5)
        seen += 1

    for module in model.modules():
        if isinstance(module, Attention):
            module.register_forward_hook(compare)
    with torch.no_grad():
        model(make_batch(model))
    assert seen == 2 * 3  # layers, segments


@pytest.mark.parametrize("name", ATTENDING)
def test_attention_is_of_past_steps_within_reach(name: str) -> None:
    model = make_model(name)
    found = look_inside(model, make_batch(model))
    assert found is not None
    shape = found.attention.shape
    assert shape == (len(found.memory), len(found.memory))
    assert (found.attention.triu(1) == 0).all()
    assert (found.attention.diagonal() > 0).all()
    total = found.attention.sum(1) + found.memory
    assert (total < 1 + 1e-5).all()
    config = model.config
    persistent = getattr(config, "persistent_vectors", 0)
    if not persistent and name != "lsdt":
        torch.testing.assert_close(total, torch.ones_like(total))
    has_memory = bool(getattr(config, "num_memory_tokens", 0))
    assert bool((found.memory > 0).all()) == has_memory
    if config.context_length == K and not config.carries_state:
        assert (found.attention.tril(-K) == 0).all()


def test_the_last_segments_alone_are_shown() -> None:
    """Memory tokens and cache come from the segments before."""
    model = make_model("rate_cache")
    batch = make_batch(model, [4 * K])
    every, last = look_inside(model, batch), look_inside(model, batch, most_steps=2 * K)
    assert every is not None
    assert last is not None
    assert (every.first, last.first) == (0, 2 * K)
    torch.testing.assert_close(last.attention, every.attention[2 * K :, 2 * K :])
    torch.testing.assert_close(last.memory, every.memory[2 * K :])


def test_openness_spans_and_depth() -> None:
    model = make_model("adaptive_span")
    found = look_inside(model, make_batch(model))
    assert found is not None
    assert found.openness.shape == (4,)  # two layers of two sub-layers
    assert found.spans is not None
    torch.testing.assert_close(found.spans, 12 * torch.stack([
        block.attention.span.share for block in model.backbone.layers
    ]))  # fmt: skip
    assert found.depth is None
    found = look_inside(shut := make_model("rezero"), make_batch(shut))
    assert found is not None
    assert (found.openness > 0).all()
    for name, parameter in shut.named_parameters():
        if name.endswith("alpha_tenth"):
            torch.nn.init.zeros_(parameter)
    found = look_inside(shut, make_batch(shut))
    assert found is not None
    assert (found.openness == 0).all()
    found = look_inside(deep := make_model("universal"), make_batch(deep))
    assert found is not None
    assert found.depth is not None
    assert found.depth.shape == (STEPS,)
    assert ((found.depth >= 1) & (found.depth <= 3)).all()


def test_a_model_without_attention_shows_nothing() -> None:
    model = make_model("gru")
    assert look_inside(model, make_batch(model)) is None
