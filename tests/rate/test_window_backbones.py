"""LSDT, GPT-2 and persistent vectors against their equations; the cost of a step of ELMUR."""

from __future__ import annotations

import pytest
import torch

from rate.backbones.elmur import ELMUR
from rate.backbones.gpt2 import GPT2
from rate.backbones.lsdt import DynamicConvolution
from rate.nn.attention import Attention
from rate.nn.elmur_attention import SelfAttention
from tests.factories import K, make_model


def test_a_dynamic_convolution_equals_its_equation() -> None:
    """Also where taps are out of reach: these are left out after the softmax."""
    convolution = DynamicConvolution(6, num_heads=2, kernel=3).double()
    x = torch.randn(1, 5, 6, dtype=torch.float64)
    reaches = torch.ones(5, 3, dtype=torch.bool)
    reaches[4, 0] = False
    with torch.no_grad():
        value, gate = convolution.input(x[0]).chunk(2, dim=-1)
        u = value * gate.sigmoid()
        expected = torch.zeros(5, 6, dtype=torch.float64)
        for i in range(5):
            weights = convolution.weights(x[0, i]).view(2, 3).softmax(-1)
            for j in range(3):
                at = i - 2 + j
                if at >= 0 and reaches[i, j]:
                    expected[i] += weights[:, j].repeat_interleave(3) * u[at]
        found = convolution(x, reaches)[0]
        torch.testing.assert_close(found, convolution.out(expected))


def test_persistent_vectors_are_further_keys_and_values() -> None:
    attention = Attention(8, 2, 4, relative=False, persistent=3).double()
    queries, keys, values = torch.randn(3, 1, 2, 5, 4, dtype=torch.float64)
    bias = torch.randn(1, 1, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        scores = torch.cat((
            queries @ attention.persistent_keys.mT / 2,
            queries @ keys.mT / 2 + bias,
        ), dim=-1)  # fmt: skip
        weights = scores.softmax(-1)
        mixed = weights[..., :3] @ attention.persistent_values + weights[..., 3:] @ values
        expected = attention.out(mixed.transpose(1, 2).flatten(2))
        torch.testing.assert_close(attention.attend(queries, keys, values, bias), expected)


def test_a_step_of_gpt2_is_one_token_of_what_is_known() -> None:
    backbone = make_model("gpt2").backbone
    assert isinstance(backbone, GPT2)
    tokens = torch.randn(2, K, 3, 16)  # return-to-go, observation, action
    with torch.no_grad():
        found = backbone._joined(tokens)
        assert found.shape == (2, K, 1, 16)
        for t in range(K):
            action = tokens[:, t - 1, 2] if t else torch.zeros(2, 16)
            parts = torch.cat((action, tokens[:, t, 0], tokens[:, t, 1]), dim=-1)
            torch.testing.assert_close(found[:, t, 0], backbone.input(parts.relu()))


def test_a_step_of_elmur_computes_its_own_tokens_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_model("elmur").backbone
    assert isinstance(backbone, ELMUR)
    computed, heads = [], SelfAttention.heads

    def counted(self: SelfAttention, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        computed.append(x.shape[1])
        return heads(self, x)

    monkeypatch.setattr(SelfAttention, "heads", counted)
    decoder = backbone.make_decoder(2)
    with torch.no_grad():
        for _ in range(K + 1):
            decoder.step(torch.randn(2, 3, 16))
    layers = backbone.config.num_layers
    assert (
        computed == [3] * K * layers + [1] * layers + [3] * layers
    )  # the last action of a segment
