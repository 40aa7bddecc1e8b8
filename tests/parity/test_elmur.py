"""Public ELMUR weights have the same outputs in our backbone as in the public code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from rate.reference import load_elmur, run_elmur

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = ("elmur_states", "elmur_triples")
Fixture = tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], int]


def read(name: str) -> Fixture:
    """Constructor arguments, state dict, inputs and answers, context length."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    weights = {key: value for key, value in tensors.items() if key.startswith("weights.")}
    return json.loads(metadata["config"]), weights, tensors, int(metadata["context_length"])


def answers(fixture: Fixture, **changes: Any) -> dict[str, Tensor]:
    """The outputs of our backbone, under the fixture's keys."""
    config, weights, tensors, length = fixture
    model = load_elmur({**config, **changes}, weights)
    memory = [tensors[f"initial_memory.{layer}"] for layer in range(config["n_layer"])]
    inputs = (tensors[key] for key in ("observations", "actions", "returns_to_go"))
    found = {}
    for n, segment in enumerate(run_elmur(model, *inputs, length, memory)):
        found[f"logits.{n}"] = segment.logits
        for layer in range(config["n_layer"]):
            found[f"memory.{n}.{layer}"] = segment.memory[layer]
            found[f"position.{n}.{layer}"] = segment.position[layer]
    return found


@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_the_public_code(name: str) -> None:
    fixture = read(name)
    found = answers(fixture)
    known = [key for key in fixture[2] if key.split(".")[0] in ("logits", "memory", "position")]
    assert sorted(found) == sorted(known)
    for key in known:
        expected = fixture[2][key]
        torch.testing.assert_close(
            found[key].to(expected.dtype), expected, rtol=0, atol=1e-5, msg=lambda t, k=key: k + t
        )


def test_the_settings_matter() -> None:
    """An argument that is read and not used would pass the test above at its default."""
    fixture = read("elmur_states")
    plain = answers(fixture)
    for changes in ({"pre_lnorm": True}, {"use_lru": False}, {"lru_blend_alpha": 0.5}):
        other = answers(fixture, **changes)
        assert not torch.allclose(other["memory.2.0"], plain["memory.2.0"], atol=1e-3), changes
    without = answers(fixture, use_lru=False)
    assert without["position.3.0"].eq(-1).all()


WRONG = [
    ({"sequence_format": "sa"}, "sequence_format='sa' is not supported"),
    ({"use_moe": True}, "use_moe=True is not supported"),
    ({"pos_type": "absolute"}, "pos_type='absolute' is not supported"),
    (
        {"memory_slots": 3},
        "Not arguments of a public constructor: memory_slots=3 .did you mean memory_size",
    ),
    ({"n_head": 3}, "num_heads=3"),
    ({"memory_size": 0}, "memory_slots is 0"),
    ({"d_ff": 25}, "wrong shape"),
    ({"n_layer": 3}, "missing"),
    ({"n_layer": 1}, "unexpected"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_unknown_arguments_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    config, weights, _, _ = read("elmur_states")
    with pytest.raises(ValueError, match=message):
        load_elmur({**config, **changes}, weights)


def test_an_initial_memory_of_another_shape_is_refused() -> None:
    config, weights, tensors, length = read("elmur_states")
    model = load_elmur(config, weights)
    inputs = [tensors[key] for key in ("observations", "actions", "returns_to_go")]
    with pytest.raises(ValueError, match=r"initial_memory has the shapes \[\(2, 4, 16\)\]"):
        run_elmur(model, *inputs, length, [torch.zeros(2, 4, 16)])
