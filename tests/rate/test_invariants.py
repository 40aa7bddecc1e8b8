"""Invariants of every model: causality, padding, gradients, purity."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rate.backbones.segment_transformer import SegmentState
from rate.batch import Batch
from rate.model import SequenceModel
from rate.state import State
from tests.factories import (
    CARRYING,
    MODELS,
    REMEMBERING,
    SPACES,
    STEPS,
    K,
    make_batch,
    make_model,
    noisy,
    rows_of,
    twin,
    with_padding,
)

every_model = pytest.mark.parametrize("name", MODELS)
every_space = pytest.mark.parametrize("spaces", SPACES)
EXACT = {"rtol": 0.0, "atol": 1e-6}
LENGTHS = [STEPS, 7, 1, K, 10]


def remembered(state: State) -> dict[str, Tensor]:
    """The tensors of a state, with invalid cache entries set to 0."""
    found = state.tensors()
    if isinstance(state, SegmentState) and state.cache is not None and state.cached is not None:
        size = state.cache.shape[2]
        valid = torch.arange(size, 0, -1) <= state.cached[:, None]
        found["cache"] = state.cache * valid[:, None, :, None]
    return found


def assert_same_state(found: State, expected: State, atol: float = 1e-6) -> None:
    expected_tensors = remembered(expected)
    for name, tensor in remembered(found).items():
        torch.testing.assert_close(tensor, expected_tensors[name], rtol=atol, atol=atol)


def total_loss(model: SequenceModel, batch: Batch, **kwargs: int) -> Tensor:
    predictions, _ = model(batch, **kwargs)
    return (model.head.loss(predictions, batch.actions) * batch.mask).sum()


def poked(batch: Batch, name: str) -> Batch:
    """`STEPS` + 1 copies of a row; copy t + 1 differs in field `name` at step t alone."""
    copies = rows_of(batch, torch.zeros(STEPS + 1, dtype=torch.int64))
    changed = getattr(copies, name).clone()
    step = torch.arange(STEPS)
    if name == "actions":
        changed[step + 1, step] = (changed[step + 1, step] + 1) % 4
    else:
        changed[step + 1, step] += 1.5
    return replace(copies, **{name: changed})


@every_model
@pytest.mark.parametrize("what", ["observations", "returns_to_go", "actions"])
def test_predictions_are_causal(name: str, what: str) -> None:
    model = make_model(name)
    with torch.no_grad():
        predictions, _ = model(poked(make_batch(model), what))
    change = (predictions[1:] - predictions[:1]).abs().amax(-1)  # (poked step, predicted step)
    unread = what != "observations" and model.config.tokenizer == "observations"
    if unread or (name == "mlp" and what == "actions"):
        assert change.max() == 0, "it must not see that"
        return
    # An action is what its own step predicts: it may be seen only by later steps.
    unseen = torch.ones(STEPS, STEPS, dtype=torch.bool).tril(0 if what == "actions" else -1)
    assert change[unseen].max() <= EXACT["atol"]
    first_seen = change.diagonal(1 if what == "actions" else 0)
    if what == "actions":  # the next step sees it, if it is in the same segment
        first_seen = first_seen[[t for t in range(STEPS - 1) if (t + 1) % K]]
    if what != "actions" or model.config.context_length > 1:
        assert first_seen.min() > 1e-4, "the test pokes at something the model never looks at"


@every_model
def test_values_of_padding_have_no_effect(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model, LENGTHS)
    other = with_padding(batch, make_batch(model, LENGTHS, seed=9))
    assert not torch.equal(batch.returns_to_go, other.returns_to_go)
    with torch.no_grad():
        (found, state), (expected, expected_state) = model(other), model(batch)
    torch.testing.assert_close(found[batch.mask], expected[batch.mask], **EXACT)
    assert_same_state(state, expected_state)


@every_model
@pytest.mark.parametrize("extra", [1, K, 2 * K + 1])
def test_the_amount_of_padding_has_no_effect(name: str, extra: int) -> None:
    model = make_model(name)
    batch = make_batch(model, LENGTHS)
    longer = with_padding(batch, make_batch(model, LENGTHS, steps=STEPS + extra, seed=9))
    with torch.no_grad():
        (found, state), (expected, expected_state) = model(longer), model(batch)
    torch.testing.assert_close(found[:, :STEPS][batch.mask], expected[batch.mask], **EXACT)
    assert_same_state(state, expected_state)


@every_model
def test_rows_of_a_batch_are_independent(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model, LENGTHS)
    with torch.no_grad():
        together, together_state = model(batch)
        for row, length in enumerate(LENGTHS):
            alone, state = model(rows_of(batch, slice(row, row + 1)).steps(0, length))
            torch.testing.assert_close(alone[0], together[row, :length], rtol=0, atol=1e-5)
            assert_same_state(state, together_state.take(torch.tensor([row])), atol=1e-5)


@every_space
def test_spaces_are_causal_and_ignore_padding(spaces: str) -> None:
    model = make_model("rate_cache", spaces)
    batch = make_batch(model, [STEPS, 6, 3])
    other = with_padding(batch, make_batch(model, [STEPS, 6, 3], steps=STEPS + K, seed=5))
    with torch.no_grad():
        expected, state = model(batch)
        found, other_state = model(other)
        start, _ = model(batch.steps(0, 6))
    torch.testing.assert_close(found[:, :STEPS][batch.mask], expected[batch.mask], **EXACT)
    torch.testing.assert_close(start[0], expected[0, :6], rtol=0, atol=1e-5)
    assert_same_state(other_state, state, atol=1e-5)


def without_gradient(model: SequenceModel) -> list[str]:
    return [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.any()
    ]


@every_model
def test_every_parameter_is_trained(name: str) -> None:
    model = make_model(name).train()
    total_loss(model, make_batch(model)).backward()
    # Neither a window of one step nor an MLP sees an earlier action.
    unused = ["tokenizer.action.embedding.weight"] if name in ("window_of_one", "mlp") else []
    assert without_gradient(model) == unused


@every_space
def test_every_parameter_is_trained_in_every_space(spaces: str) -> None:
    model = make_model("rate", spaces).train()
    total_loss(model, make_batch(model)).backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("name", REMEMBERING)
def test_the_valve_has_no_gradient_if_bptt_is_cut_at_every_segment(name: str) -> None:
    """Only later segments train what a segment writes: with truncated BPTT of one segment, none do.

    The gradient still reaches the learned initial memory, which the first segment reads, and all
    that a segment needs to predict its own actions. Cuts further apart train the valve again.
    """
    model = make_model(name)
    valve = [f"backbone.valve.{n}" for n, _ in model.backbone.valve.named_parameters()]
    total_loss(model, make_batch(model), detach_every=1).backward()
    assert without_gradient(model) == valve
    model.zero_grad()
    total_loss(model, make_batch(model), detach_every=2).backward()
    assert without_gradient(model) == []


@pytest.mark.parametrize("name", CARRYING)
def test_a_later_loss_reaches_an_earlier_segment(name: str) -> None:
    """Gradients flow through the state between segments; `detach_every` cuts them."""
    model = make_model(name)
    batch = make_batch(model)
    for detach_every, reaches in ((None, True), (3, True), (1, False)):
        assert isinstance(batch.observations, Tensor)
        seen = batch.observations.clone().requires_grad_()
        predictions, _ = model(replace(batch, observations=seen), detach_every=detach_every)
        predictions[:, K:].sum().backward()
        assert seen.grad is not None
        assert bool(seen.grad[:, :K].any()) == reaches


@pytest.mark.parametrize("name", [name for name in MODELS if name != "rate_binary"])  # steps
def test_the_gradient_over_all_segments_equals_finite_differences(name: str) -> None:
    """Along a random direction in all weights, against finite differences: nothing is cut."""
    model = make_model(name).double()
    batch, parameters = make_batch(model, [STEPS, 9, 6]), list(model.parameters())
    batch = replace(batch, returns_to_go=batch.returns_to_go.double())
    directions = [torch.randn_like(p) for p in parameters]

    def value() -> Tensor:
        return (model(batch)[0].sin().sum(-1) * batch.mask).sum()

    gradients = torch.autograd.grad(value(), parameters, allow_unused=True)
    pairs = zip(gradients, directions, strict=True)
    slope = sum(float((g * d).sum()) for g, d in pairs if g is not None)
    values, step = [], 1e-6
    for sign in (1, -2):
        with torch.no_grad():
            for parameter, direction in zip(parameters, directions, strict=True):
                parameter.add_(direction, alpha=sign * step)
            values.append(float(value()))
    assert (values[0] - values[1]) / (2 * step) == pytest.approx(slope, rel=1e-3, abs=1e-3)


@every_model
def test_forward_is_a_pure_function(name: str) -> None:
    """Same inputs, same outputs; the model is unchanged, and memory is a value."""
    model = make_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    buffers = {key: value.clone() for key, value in model.named_buffers()}
    batch = make_batch(model)
    with torch.no_grad():
        first, state = model(batch)
        kept = {key: value.clone() for key, value in remembered(state).items()}
        second, _ = model(batch)
        later, _ = model(batch, state)
        again, _ = model(batch, state)
    assert torch.equal(first, second)
    assert torch.equal(later, again)
    assert torch.equal(later, first) == (name not in CARRYING)
    for key, value in remembered(state).items():
        assert torch.equal(value, kept[key]), f"state.{key} changed under our feet"
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(torch.equal(value, buffers[key]) for key, value in model.named_buffers())


@pytest.mark.parametrize("name", CARRYING)
def test_segments_in_several_calls_equal_one_call(name: str) -> None:
    """Folding over segments in one call equals calling with the state of the call before."""
    model = make_model(name)
    batch = make_batch(model, [STEPS, 9, 2])
    with torch.no_grad():
        expected, expected_state = model(batch)
        first, state = model(batch.steps(0, K))
        second, state = model(batch.steps(K, STEPS), state)
    torch.testing.assert_close(torch.cat((first, second), 1), expected, **EXACT)
    assert_same_state(state, expected_state)


@every_model
def test_evaluation_has_no_noise(name: str) -> None:
    model = make_model(name)
    other, batch = noisy(model), make_batch(model)
    with torch.no_grad():
        assert torch.equal(other(batch)[0], model(batch)[0])
        other.train()
        assert not torch.allclose(other(batch)[0], other(batch)[0]), "training has its noise"


@pytest.mark.parametrize("name", REMEMBERING)
def test_memory_noise_is_added_in_training_to_rows_with_real_steps(name: str) -> None:
    model = make_model(name, memory_noise=1.0)
    batch = make_batch(model, [2 * K, K, 1])
    quiet = twin(model, memory_noise=0.0)
    with torch.no_grad():
        _, state = quiet(batch.steps(0, K))
        _, after = model.train()(batch.steps(K, 2 * K), state)
        _, expected = quiet(batch.steps(K, 2 * K), state)
    assert isinstance(after, SegmentState)
    assert isinstance(expected, SegmentState)
    assert torch.equal(after.memory[1:], expected.memory[1:])  # rows of padding: untouched
    assert (after.memory[0] - expected.memory[0]).std() > 0.3


@every_model
def test_bfloat16_autocast_stays_finite_and_close(name: str) -> None:
    model = make_model(name).train()
    batch = make_batch(model, [STEPS, 5, 1])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = total_loss(model, batch)
        torch.manual_seed(0)
        predictions, _ = model(batch)
    loss.backward()
    torch.manual_seed(0)
    exact, _ = model(batch)
    assert torch.isfinite(predictions).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    if name not in ("rate_bistable", "rate_binary"):  # rounding may fall to the other side
        real = batch.mask
        torch.testing.assert_close(predictions[real].float(), exact[real], rtol=0.2, atol=0.3)


def test_attention_masks_cached_in_inference_mode_work_in_training() -> None:
    """Masks are kept between calls; Lightning evaluates in inference mode, then trains on."""
    model = make_model("rate_cache", context_length=3, num_memory_tokens=2).train()
    batch = make_batch(model)
    with torch.inference_mode():
        model(batch)
    total_loss(model, batch).backward()
    assert without_gradient(model) == []
