"""Invalid settings are refused by name."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from typing import Any, get_args

import pytest

from rate.architecture import BACKBONES, config_class, make_config
from rate.backbones import settings
from rate.config import Decoding
from rate.errors import ConfigError
from rate.nn.blocks import BLOCKS
from rate.nn.retention_valves import ACTIVATIONS, VALVES
from tests.factories import MODELS

MEMORY = {"num_memory_tokens": 2}
BAD: list[tuple[str, dict[str, Any]]] = [
    ("backbone", {"backbone": "sliding"}),
    ("tokenizer", {"tokenizer": "quadruples"}),
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
    ("memory_decay", {"memory_decay": 1.0, "num_memory_tokens": 2}),
    ("memory_decay", {"memory_decay": 0.5}),
    ("memory_decay", {"memory_decay": 0.5, "num_memory_tokens": 2, "associative_size": 4}),
    ("dropout", {"dropout": 1.0}),
    ("dropout", {"dropout": -0.1}),
    ("dropout", {"dropout": "0.1"}),
    ("attention_dropout", {"attention_dropout": float("nan")}),
    ("tie_layers", {"d_model": 15, "num_heads": 3, "position": "timestep", "tie_layers": True}),
    ("halting_threshold", {"halting_threshold": 1.0}),
    ("ponder_weight", {"ponder_weight": -0.1}),
    ("span", {"span": 4, "position": "timestep"}),
    ("interleaved", {"backbone": "mlp", "interleaved": True}),
    ("cached_memories", {"cached_memories": 2}),
    ("associative_size", {"associative_size": 2}),
    ("associative_size", {"associative_size": 2, "valve": "gru", **MEMORY}),
    ("associative_size", {"associative_size": 2, "cached_memories": 1, **MEMORY}),
    ("span_ramp", {"span": 4, "span_ramp": 0}),
    ("persistent_vectors", {"persistent_vectors": -1}),
    ("conv_width", {"backbone": "lsdt", "conv_width": 64}),
    ("conv_width", {"backbone": "lsdt", "conv_width": 30}),
    ("conv_kernel", {"backbone": "lsdt", "conv_kernel": 0}),
    ("num_heads", {"num_heads": 3, "d_model": 64}),
    ("d_model", {"d_model": 15, "num_heads": 1}),
    ("num_memory_tokens", {"valve": "gru"}),
    ("valve_heads", {"valve": "cross_attention", "valve_heads": 0, **MEMORY}),
    ("valve_heads", {"valve": "latch", "valve_heads": 3, **MEMORY}),
    ("valve_heads", {"valve": "cross_attention_reverse", "valve_heads": 3, **MEMORY}),
]


@pytest.mark.parametrize(("name", "given"), BAD, ids=[str(given) for _, given in BAD])
def test_bad_settings_are_refused_by_name(name: str, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"model\.{name}\b"):
        make_config(**given)


def test_a_wrong_choice_lists_the_right_ones() -> None:
    with pytest.raises(ConfigError, match=r"pre_norm, trxl, trxl_i, gtrxl, .*, gpt"):
        make_config(block="post")


def test_widths_follow_the_model_unless_set() -> None:
    config = make_config(d_model=64, num_heads=4)
    assert (config.head_width, config.ff_width) == (16, 256)
    config = make_config(d_model=64, num_heads=3, d_head=7, d_ff=100)
    assert (config.head_width, config.ff_width) == (7, 100)


def test_odd_widths_are_fine_without_relative_positions() -> None:
    assert make_config(d_model=15, num_heads=3, position="timestep").head_width == 5


@pytest.mark.parametrize(
    ("choices", "made"),
    [(settings.Block, BLOCKS), (settings.Valve, VALVES), (settings.Activation, ACTIVATIONS)],
)
def test_choices_of_settings_are_the_registered_names(choices: Any, made: dict[str, Any]) -> None:
    assert get_args(choices) == tuple(made)


def test_our_settings_are_those_of_our_backbones() -> None:
    for name in BACKBONES.own_names():
        kind = config_class({"backbone": name})
        assert kind is BACKBONES.get(name).Config
        assert kind.backbone == name


def test_settings_are_known_without_pytorch() -> None:
    """A wrong command line is told in half the time that PyTorch takes to be imported."""
    code = "import rate.architecture as a, sys; a.make_config(backbone='elmur', d_model=16); "
    found = subprocess.run(
        [sys.executable, "-c", code + "print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == "False"


@pytest.mark.parametrize("name", MODELS)
def test_a_configuration_survives_plain_types(name: str) -> None:
    assert make_config(**asdict(MODELS[name])) == MODELS[name]


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
