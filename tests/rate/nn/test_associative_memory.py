"""The associative memory of ARMT, against its equations."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rate.backbones.segment_transformer import SegmentTransformer
from rate.nn.associative_memory import AssociativeMemory, dpfp
from tests.factories import K, make_batch, make_model

OPEN = 50.0  # of a gate


@pytest.fixture
def memory() -> AssociativeMemory:
    torch.manual_seed(0)
    memory = AssociativeMemory(8, 5).double()
    torch.nn.init.normal_(memory.value.weight)
    return memory


def test_dpfp_equals_its_definition() -> None:
    x = torch.randn(5)
    parts = [max(float(v), 0.0) for v in (*x, *-x)]
    expected = [parts[i] * parts[i - shift] for shift in (1, 2, 3) for i in range(10)]
    torch.testing.assert_close(dpfp(x), torch.tensor(expected))


@torch.no_grad()
def test_reading_and_writing_equal_the_equations(memory: AssociativeMemory) -> None:
    matrix, normaliser = torch.randn(1, 8, 30).double(), torch.rand(1, 30).double()
    tokens, x = torch.randn(1, 3, 8).double(), torch.randn(1, 1, 8).double()
    query = dpfp(memory.query(x))[0, 0]
    read = matrix[0] @ query / (normaliser[0] @ query + 1e-5)
    torch.testing.assert_close(memory.read(x, matrix, normaliser)[0, 0], x[0, 0] + read)
    new_matrix, new_normaliser = matrix[0].clone(), normaliser[0].clone()
    for token in tokens[0]:
        key = dpfp(memory.key(token))
        known = normaliser[0] @ key
        change = memory.value(token) - matrix[0] @ key / (known + 1e-5)
        new_matrix += memory.gate(token).sigmoid() * torch.outer(change, key)
        new_normaliser += (1 - known / (key @ key + 1e-5)).clamp(0, 1) * key
    found = memory.write(tokens, matrix, normaliser)
    torch.testing.assert_close(found[0][0], new_matrix)
    torch.testing.assert_close(found[1][0], new_normaliser)


@torch.no_grad()
def test_a_second_write_replaces_the_first(memory: AssociativeMemory) -> None:
    """The delta rule: of two tokens of equal keys, the later value is what is read."""
    torch.nn.init.constant_(memory.gate.bias, OPEN)
    memory.query.weight.copy_(memory.key.weight)
    first = torch.randn(1, 1, 8).double()
    away = torch.linalg.svd(memory.key.weight)[2][-1]  # what keys do not see
    second = first + away

    def value_after(*writes: Tensor) -> Tensor:
        state = memory.initial(1)
        for token in writes:
            state = memory.write(token, *state)
        return memory.read(first, *state) - first

    torch.testing.assert_close(value_after(first), memory.value(first), rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(
        value_after(first, second), memory.value(second), rtol=1e-3, atol=1e-3
    )


def test_a_new_model_reads_nothing() -> None:
    memory, x = AssociativeMemory(8, 5), torch.randn(2, 3, 8)
    assert torch.equal(memory.read(x, *memory.write(x, *memory.initial(2))), x)


def test_the_memory_tokens_of_armt_are_the_same_in_every_segment() -> None:
    model = make_model("armt")
    with torch.no_grad():
        _, state = model(make_batch(model))
    assert isinstance(model.backbone, SegmentTransformer)
    assert torch.equal(state.memory, model.backbone.memory.expand(3, -1, -1))
    assert state.association[0].abs().max() > 0


def test_the_last_memories_are_kept_in_their_order() -> None:
    model = make_model("cached_memories")
    batch, state, seen = make_batch(model, [4 * K] * 3), model.initial_state(3), []
    for segment in range(4):
        seen.append(state.memory)
        with torch.no_grad():
            _, state = model(batch.steps(segment * K, (segment + 1) * K), state)
    assert torch.equal(state.memories, torch.cat(seen[-2:], dim=1))
