"""Adaptive attention spans, against the equations of Sukhbaatar et al. 2019."""

from __future__ import annotations

import pytest
import torch

from rate.backbones.transformer import Transformer
from rate.nn.adaptive_span import AdaptiveSpan
from tests.factories import STEPS, make_batch, make_model


def test_masked_softmax_equals_the_normalised_mask() -> None:
    span, scores = AdaptiveSpan(2, longest=10, ramp=4).double(), torch.randn(2, 20).double()
    torch.nn.init.constant_(span.share, 0.5)
    distances = torch.arange(20)
    mask = ((4 + 5 - distances.double()) / 4).clamp(0, 1)  # m_z(x)
    expected = mask * scores.exp() / (mask * scores.exp()).sum(-1, keepdim=True)
    with torch.no_grad():
        found = (scores + span.log_mask(distances)).softmax(-1)
    torch.testing.assert_close(found, expected)
    assert (found[:, 9:] == 0).all()


def test_no_head_sees_beyond_its_span() -> None:
    """Of memory and steps, what is farther than span and ramp changes nothing."""
    model = make_model("adaptive_span", num_memory_tokens=0, valve="none", num_layers=1)
    model.backbone.get_parameter("blocks.0.attention.span.share").data.fill_(0.0)
    batch = make_batch(model)
    moved = batch.observations.clone()
    moved[:, 0] += 1
    with torch.no_grad():
        change = (
            model(batch._map(lambda x: x))[0]
            - model(type(batch)(**{**vars(batch), "observations": moved}))[0]
        )
    steps = change.abs().amax((0, 2))
    assert (steps[:3] > 1e-4).all()  # a ramp of 9 tokens, 3 steps
    assert (steps[4:] == 0).all()


def test_keys_that_no_head_looks_at_are_left_out_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make_model("adaptive_span", cache_length=200, span=150)
    spans = [block.attention.span for block in model.backbone.layers]
    for span in spans:
        span.share.data = torch.tensor([0.1, 0.2])
    assert [span.out_of_reach(200) for span in spans] == [128, 128]  # of 161 out of reach
    assert [span.out_of_reach(50) for span in spans] == [0, 0]
    batch = make_batch(model, [6 * STEPS])
    with torch.no_grad():
        found = model(batch)[0]
        monkeypatch.setattr("rate.nn.attention._may_wait", lambda x: False)
        torch.testing.assert_close(model(batch)[0], found, rtol=0, atol=1e-6)


def test_spans_are_clamped_after_an_optimiser_step() -> None:
    backbone = make_model("adaptive_span").backbone
    assert isinstance(backbone, Transformer)
    span = backbone.layers[0].attention.span
    assert span is not None
    span.share.data = torch.tensor([-0.5, 1.5])
    backbone.after_step()
    assert span.share.tolist() == [0, 1]


def test_the_loss_of_spans_is_their_mean_in_tokens() -> None:
    model = make_model("adaptive_span", span_weight=0.1)
    for block in model.backbone.layers:
        block.attention.span.share.data = torch.tensor([0.0, 0.5])
    batch = make_batch(model)
    losses = model.features_and_losses(batch)[2]
    torch.testing.assert_close(losses["span"], torch.full(batch.mask.shape, 0.1 * 2 * 12 * 0.25))
