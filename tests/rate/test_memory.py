"""Memory as a value: initialisation, detach, reset, and the memory retention valves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rate.backbones.cell_settings import NBRCConfig
from rate.backbones.nbrc import NBRCCell, NBRCState
from rate.backbones.segment_transformer import SegmentState
from rate.nn.retention_valves import VALVES, BistableMRV, MemoryRetentionValve
from rate.state import State
from tests.factories import CARRYING, REMEMBERING, K, make_batch, make_model, twin


def used_state(name: str, seed: int = 0) -> State:
    """The state of three rows after a segment."""
    model = make_model(name)
    with torch.no_grad():
        return model(make_batch(model, [K, 2, 1], seed=seed))[1]


def tensors(state: State) -> dict[str, Tensor]:
    return state.tensors()


def changing(state: State) -> list[str]:
    """The names of the tensors that every segment changes.

    Cached memories change from the second segment on. Beside an associative memory, memory tokens
    do not, and its normaliser does not where all keys are known. Signs stay as they are as well.
    """
    same = {"memories"}
    if isinstance(state, SegmentState) and state.memory is not None:
        same |= {"memory"} if bool(state.memory.abs().eq(1).all()) else set()
    if isinstance(state, SegmentState) and state.association is not None:
        same |= {"memory", "association.1"}
    return [
        name
        for name, tensor in state.tensors().items()
        if tensor.is_floating_point() and tensor.numel() and name not in same
    ]


def memory_of(state: State) -> Tensor:
    assert isinstance(state, SegmentState)
    assert state.memory is not None
    return state.memory


@pytest.mark.parametrize("name", ["rate", "rmt", "rate_lstm"])
def test_memory_with_a_decay_is_a_moving_average_over_segments(name: str) -> None:
    model, decay = make_model(name), 0.7
    batch = make_batch(model, [K] * 3)
    with torch.no_grad():
        state = model(batch)[1]
        replaced = model(batch, state)[1]
        averaged = twin(model, memory_decay=decay)(batch, state)[1]
    expected = decay * memory_of(state) + (1 - decay) * memory_of(replaced)
    torch.testing.assert_close(memory_of(averaged), expected)


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_tokens_are_initialised_different(name: str) -> None:
    """Equal memory tokens would get equal updates, and stay equal for ever."""
    tokens = memory_of(make_model(name).initial_state(2))
    distances = torch.cdist(tokens[0], tokens[0]) + 10 * torch.eye(3)
    assert distances.min() > 1.0
    assert torch.equal(tokens[0], tokens[1])


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_tokens_stay_different(name: str) -> None:
    tokens = memory_of(used_state(name))
    assert (torch.cdist(tokens, tokens) + 10 * torch.eye(3)).min() > 1e-3


# The signs of a small, untrained model may be equal.
@pytest.mark.parametrize("name", [name for name in REMEMBERING if name != "rate_binary"])
def test_equal_memory_tokens_become_different(name: str) -> None:
    """The slot embedding tells equal memory tokens apart, so that they do not stay equal."""
    model = make_model(name)
    state = model.initial_state(3)
    equal = replace(state, memory=memory_of(state)[:, :1].expand(-1, 3, -1))
    with torch.no_grad():
        tokens = memory_of(model(make_batch(model, K), equal)[1])
    assert (torch.cdist(tokens, tokens) + 10 * torch.eye(3)).min() > 1e-3


@pytest.mark.parametrize("name", CARRYING)
def test_initial_states_are_fresh(name: str) -> None:
    model = make_model(name)
    state = model.initial_state(3)
    assert {t.shape[0] for t in tensors(state).values()} == {3}
    kept = {key: value.clone() for key, value in tensors(state).items()}
    for value in tensors(state).values():
        value.detach().add_(1)
    again = tensors(model.initial_state(3))
    assert all(torch.equal(value, kept[key]) for key, value in again.items())


@pytest.mark.parametrize("name", CARRYING)
def test_detach_cuts_gradients_and_keeps_values(name: str) -> None:
    model = make_model(name)
    _, state = model(make_batch(model, K))
    assert any(t.requires_grad for t in tensors(state).values())
    cut = state.detach()
    assert not any(t.requires_grad for t in tensors(cut).values())
    assert all(torch.equal(t, tensors(state)[name]) for name, t in tensors(cut).items())


@pytest.mark.parametrize("name", CARRYING)
def test_reset_touches_only_its_rows(name: str) -> None:
    state, initial = used_state(name), make_model(name).initial_state(3)
    kept = {key: value.clone() for key, value in tensors(state).items()}
    after = state.where(torch.tensor([False, True, False]), initial)
    for key, value in tensors(after).items():
        assert torch.equal(value[1], tensors(initial)[key][1]), key
        assert torch.equal(value[[0, 2]], kept[key][[0, 2]]), key
        assert torch.equal(tensors(state)[key], kept[key]), "the old state is a value"
    for key in changing(state):
        assert not torch.equal(tensors(after)[key][0], tensors(initial)[key][0]), key


@pytest.mark.parametrize("name", CARRYING)
def test_a_reset_row_equals_a_new_episode(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model, [K, 3, K])
    with torch.no_grad():
        state = used_state(name).where(torch.tensor([True, True, False]), model.initial_state(3))
        found, _ = model(batch, state)
        expected, _ = model(batch)
    torch.testing.assert_close(found[:1], expected[:1], rtol=0, atol=1e-6)
    torch.testing.assert_close(found[1, :3], expected[1, :3], rtol=0, atol=1e-6)
    assert not torch.allclose(found[2], expected[2])


@pytest.mark.parametrize("name", CARRYING)
def test_rows_and_put_are_inverses(name: str) -> None:
    state, other = used_state(name), used_state(name, seed=4)
    index = torch.tensor([2, 0])
    after = state.put(index, other.take(index))
    for key, value in tensors(after).items():
        assert torch.equal(value[[0, 2]], tensors(other)[key][[0, 2]])
        assert torch.equal(value[1], tensors(state)[key][1])


@pytest.mark.parametrize("name", CARRYING)
def test_a_row_of_padding_keeps_its_state_to_the_bit(name: str) -> None:
    model, state = make_model(name), used_state(name)
    with torch.no_grad():
        _, after = model(make_batch(model, [K, 0, 0], seed=8), state)
    for key, value in tensors(after).items():
        assert torch.equal(value[1:], tensors(state)[key][1:]), key
        if key in changing(state):
            assert not torch.equal(value[0], tensors(state)[key][0]), key


def valve(kind: str, activation: str = "none") -> MemoryRetentionValve:
    return VALVES[kind](16, 2, 0.0, activation).eval()


def random_tokens() -> tuple[Tensor, Tensor, Tensor]:
    """Memory, memory with slot embeddings, and write outputs: four rows of three tokens."""
    memory, written = torch.randn(2, 4, 3, 16)
    return memory, memory + torch.randn(3, 16), written


@pytest.mark.parametrize("kind", VALVES)
def test_valves_keep_shapes_and_rows_apart(kind: str) -> None:
    module = valve(kind)
    tokens = random_tokens()
    cell = torch.randn(4, 3, 16) if kind == "lstm" else None
    with torch.no_grad():
        new, new_cell = module(*tokens, cell)
        alone, _ = module(*(t[1:2] for t in tokens), None if cell is None else cell[1:2])
    assert new.shape == (4, 3, 16)
    assert (new_cell is None) == (kind != "lstm")
    torch.testing.assert_close(alone[0], new[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_recurrent_valves_treat_every_memory_token_alike(kind: str) -> None:
    module, cell = valve(kind), torch.randn(4, 3, 16)
    memory, addressed, written = random_tokens()
    with torch.no_grad():
        new, new_cell = module(memory, addressed, written, cell)
        for slot in range(3):
            inputs, hidden = written[:, slot], memory[:, slot]
            if kind == "gru":
                expected = module.gru(inputs, hidden)
            else:
                expected, expected_cell = module.lstm(inputs, (hidden, cell[:, slot]))
                assert new_cell is not None
                torch.testing.assert_close(new_cell[:, slot], expected_cell)
            torch.testing.assert_close(new[:, slot], expected)


def test_an_open_and_a_closed_gate() -> None:
    """The gate keeps memory where its bias is high, and replaces it where the bias is low."""
    module = valve("gated")
    tokens = random_tokens()
    with torch.no_grad():
        module.gate.bias.fill_(100.0)
        torch.testing.assert_close(module(*tokens, None)[0], tokens[0])
        module.gate.bias.fill_(-100.0)
        candidate = module(*tokens, None)[0]
    assert not torch.allclose(candidate, tokens[0])
    assert candidate.abs().max() <= 1


@pytest.mark.parametrize("kind", ["cross_attention", "cross_attention_reverse"])
def test_cross_attention_equals_torchs_own(kind: str) -> None:
    module, theirs = valve(kind), nn.MultiheadAttention(16, 2, batch_first=True)
    ours = module.attention
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat((ours.query.weight, ours.key_value.weight)))
        theirs.in_proj_bias.copy_(torch.cat((ours.query.bias, ours.key_value.bias)))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
        memory, addressed, written = random_tokens()
        found, _ = module(memory, addressed, written, None)
        queries, context = addressed, written
        if kind == "cross_attention_reverse":
            queries, context = context, queries
        expected, _ = theirs(queries, context, context)
    torch.testing.assert_close(found, expected)


def test_without_a_valve_memory_is_the_write_output() -> None:
    tokens = random_tokens()
    assert torch.equal(valve("none")(*tokens, None)[0], tokens[2])


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", torch.relu),
        ("leaky_relu", nn.functional.leaky_relu),
        ("elu", nn.functional.elu),
        ("tanh", torch.tanh),
    ],
)
def test_the_activation_is_applied_to_the_write_output(activation: str, function: Any) -> None:
    tokens = random_tokens()
    found, _ = valve("none", activation)(*tokens, None)
    assert torch.equal(found, function(tokens[2]))


def test_the_latch_is_bounded_cross_attention() -> None:
    latch, plain, tokens = valve("latch"), valve("cross_attention"), random_tokens()
    plain.load_state_dict(latch.state_dict())
    torch.testing.assert_close(latch(*tokens, None)[0], plain(*tokens, None)[0].tanh())


def test_the_bistable_valve_is_a_step_of_nbrc() -> None:
    """M is the hidden state, C the input, and every memory token a row of its own."""
    ours, (memory, addressed, written) = BistableMRV(16, 2, 0.0, "none"), random_tokens()
    cell = NBRCCell(NBRCConfig(d_model=16))
    with torch.no_grad():
        of_memory, of_written = ours.gates.weight.chunk(2, dim=1)
        cell.recurrent.weight.copy_(of_memory)
        cell.input.weight.copy_(torch.cat((of_written, ours.write.weight)))
        cell.input.bias.copy_(torch.cat((ours.gates.bias, ours.write.bias)))
        inputs = written.flatten(0, 1)[:, None]  # (B m, 1, d)
        real = torch.ones(inputs.shape[:2], dtype=torch.bool)
        _, state = cell(inputs, real, NBRCState(memory.flatten(0, 1)))
        found, _ = ours(memory, addressed, written, None)
    torch.testing.assert_close(found.flatten(0, 1), state.hidden)


def test_the_binary_valve_is_the_sign_of_the_bistable_one_with_its_gradients() -> None:
    binary, bistable = valve("binary"), valve("bistable")
    bistable.load_state_dict(binary.state_dict())
    tokens = random_tokens()
    found, expected = binary(*tokens, None)[0], bistable(*tokens, None)[0]
    assert torch.equal(found, expected.sign())
    weights = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad((found * weights).sum(), list(binary.parameters())),
        torch.autograd.grad((expected * weights).sum(), list(bistable.parameters())),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


def test_binary_memory_is_exactly_still_under_equal_segments() -> None:
    """Once it repeats, it repeats for ever: no drift, however small."""
    model = make_model("rate_binary").eval()
    batch = make_batch(model, [K])
    state = model.initial_state(1)
    seen = []
    with torch.no_grad():
        for _ in range(60):
            _, state = model.features(batch, state)
            assert isinstance(state, SegmentState)
            assert state.memory is not None
            seen.append(state.memory)
    assert seen[-1].abs().eq(1).all()
    assert torch.equal(seen[-1], seen[-2])


def test_the_bistable_valve_keeps_bits_before_any_training() -> None:
    """With nothing written, the signs of memory stay for 1,000 segments."""
    untrained, memory = BistableMRV(16, 2, 0.0, "none"), random_tokens()[0]
    signs, nothing = memory.sign(), torch.zeros_like(memory)
    with torch.no_grad():
        for parameter in (untrained.write.weight, untrained.write.bias, untrained.gates.weight):
            parameter.zero_()
        for _ in range(1000):
            memory, _ = untrained(memory, memory, nothing, None)
    assert torch.equal(memory.sign(), signs)
    assert memory.abs().min() > 0.8
