"""Settings that cannot work are refused, by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from rate.config import Decoding, ModelConfig
from rate.errors import ConfigError
from tests.factories import MODELS

MEMORY = {"num_memory_tokens": 2}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("context", {"context": "sliding"}),
    ("block", {"block": "bert"}),
    ("position", {"position": "rotary"}),
    ("valve", {"valve": "gate", **MEMORY}),
    ("valve_activation", {"valve_activation": "gelu"}),
    ("context_length", {"context_length": 0}),
    ("context_length", {"context_length": 2.5}),
    ("context_length", {"context_length": "30"}),
    ("context_length", {"context_length": None}),
    ("d_model", {"d_model": -4}),
    ("num_layers", {"num_layers": 0}),
    ("num_heads", {"num_heads": 0}),
    ("max_timestep", {"max_timestep": 0}),
    ("d_head", {"d_head": 0}),
    ("d_ff", {"d_ff": 0}),
    ("num_memory_tokens", {"num_memory_tokens": -1}),
    ("cache_length", {"cache_length": -1}),
    ("memory_noise", {"memory_noise": -0.1}),
    ("memory_noise", {"memory_noise": float("nan")}),
    ("memory_noise", {"memory_noise": float("inf")}),
    ("dropout", {"dropout": 1.0}),
    ("dropout", {"dropout": -0.1}),
    ("dropout", {"dropout": "0.1"}),
    ("attention_dropout", {"attention_dropout": float("nan")}),
    ("num_heads", {"num_heads": 3, "d_model": 64}),
    ("d_model", {"d_model": 15, "num_heads": 1}),
    ("num_memory_tokens", {"valve": "gru"}),
    ("valve_heads", {"valve": "cross_attention", "valve_heads": 0, **MEMORY}),
    ("valve_heads", {"valve": "latch", "valve_heads": 3, **MEMORY}),
    ("valve_heads", {"valve": "cross_attention_reverse", "valve_heads": 3, **MEMORY}),
    ("num_memory_tokens", {"context": "window", **MEMORY}),
    ("cache_length", {"context": "window", "cache_length": 3}),
]


@pytest.mark.parametrize(("name", "settings"), BAD, ids=[str(settings) for _, settings in BAD])
def test_bad_settings_are_refused_by_name(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}\b"):
        ModelConfig(**settings)


def test_a_wrong_choice_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match=r"pre_norm, trxl, trxl_i, gtrxl, gpt"):
        ModelConfig(block="post")


def test_widths_follow_the_model_unless_set() -> None:
    config = ModelConfig(d_model=64, num_heads=4)
    assert (config.head_width, config.ff_width) == (16, 256)
    config = ModelConfig(d_model=64, num_heads=3, d_head=7, d_ff=100)
    assert (config.head_width, config.ff_width) == (7, 100)


def test_odd_widths_are_fine_without_relative_positions() -> None:
    assert ModelConfig(d_model=15, num_heads=3, position="timestep").head_width == 5


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_survives_plain_types(name: str) -> None:
    assert ModelConfig(**asdict(MODELS[name])) == MODELS[name]


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("method", {"method": "beam"}),
        ("temperature", {"temperature": 0.0}),
        ("temperature", {"temperature": float("nan")}),
        ("top_k", {"top_k": 0}),
    ],
)
def test_bad_decodings_are_refused_by_name(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"decoding\.{name}\b"):
        Decoding(**settings)
