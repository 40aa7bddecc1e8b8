"""The public RATE architecture, as a model that can be trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rate.architecture import make_config
from rate.backbones.public_rate import PublicRATE
from rate.errors import ConfigError
from rate.reference.backbone import PublicTransformer
from rate.tokenizers import StepTokens
from tests.factories import MODELS, K, make_batch, make_model

TRIPLES = StepTokens(count=3, read=1)


@pytest.mark.parametrize("block", ["trxl", "trxl_i", "gtrxl"])
def test_outputs_are_those_of_the_public_architecture(block: str) -> None:
    config = make_config(
        backbone="public_rate", context_length=K, d_model=16, num_heads=2, block=block
    )
    assert isinstance(config, MODELS["public_rate"].__class__)
    own = PublicRATE(config, TRIPLES).double().eval()
    public = PublicTransformer(own.public, K).double().eval()
    public.load_state_dict(own.state_dict())
    tokens = torch.randn(2, K, 3, 16, dtype=torch.float64)
    mask = torch.ones(2, K, dtype=torch.bool)
    state, known = own.initial_state(2), public.initial_state(2)
    for _ in range(3):
        features, state = own(tokens, mask, state)
        expected, known = public(tokens, mask, known)
        torch.testing.assert_close(features, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(state.memory, known.memory, rtol=0, atol=1e-12)


def test_memory_tokens_start_equal_and_no_valve_trains_when_memory_is_detached() -> None:
    model = make_model("public_rate")
    memory = model.backbone.memory
    batch = make_batch(model)
    for detach_every, trained in ((1, False), (2, True)):
        model.zero_grad()
        model.features(batch, detach_every=detach_every)[0].square().sum().backward()
        grads = [weight.grad for weight in model.backbone.valve.parameters()]
        assert all((grad is not None and bool(grad.any())) == trained for grad in grads)
    fresh = PublicRATE(make_config(backbone="public_rate"), TRIPLES).memory
    assert bool((fresh == fresh[0]).all())
    assert memory.grad is not None


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"block": "rezero"}, "model.block"),
        ({"valve_activation": "elu"}, "model.valve_activation"),
        ({"valve_heads": 5}, "model.valve_heads"),
        ({"num_memory_tokens": 0}, "model.num_memory_tokens"),
        ({"block": "gtrxl", "skip_ffn": True}, "model.skip_ffn"),
    ],
)
def test_settings_without_a_public_counterpart_are_refused(
    settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigError, match=named):
        make_config(backbone="public_rate", **settings)
