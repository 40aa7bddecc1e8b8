"""Linear probes and saliency of models whose memory is known."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from rate.analysis.probes import FEATURES, held_out_accuracy, labels_of, probe
from rate.analysis.saliency import saliency
from rate.analysis.states import disturbed, follow, memory_parts, memory_rows, written_memory
from rate.backbones.segment_transformer import SegmentState
from rate.backbones.step_recurrent import StepState
from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import CARRYING, MODELS, STEPS, K, make_batch, make_model

EPISODES = 40


def cued(model: SequenceModel, steps: int = STEPS) -> tuple[Batch, Tensor]:
    """Equal episodes but for a large bit in the first observation, and the bits `(B, T)`."""
    batch = make_batch(model, [steps]).take(torch.zeros(EPISODES, dtype=torch.int64))
    bits = torch.arange(EPISODES) % 2
    assert isinstance(batch.observations, Tensor)
    observations = batch.observations.clone()
    observations[:, 0, 0] = 3.0 * (2 * bits - 1)
    return replace(batch, observations=observations), bits[:, None].expand(-1, steps)


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(200) % 3
    noise = torch.randn(200, 50, generator=rng)
    memory = noise + 5 * torch.randn(3, 50, generator=rng)[labels]
    assert held_out_accuracy(memory, labels) == 1
    assert abs(held_out_accuracy(noise, labels) - 1 / 3) < 0.1
    assert held_out_accuracy(memory * 1e-6, labels) == 1  # of any scale
    assert held_out_accuracy(memory[:, :1] * 0, labels) <= 0.4


def test_too_few_episodes_have_no_accuracy() -> None:
    assert math.isnan(held_out_accuracy(torch.randn(7, 3), torch.arange(7) % 2))
    assert math.isnan(held_out_accuracy(torch.randn(20, 3), torch.zeros(20)))


@pytest.mark.parametrize("name", MODELS)
def test_a_probe_finds_a_bit_where_the_model_carries_it(name: str) -> None:
    """Untrained memories hold a large bit for one segment; windows and MLPs lose it."""
    model = make_model(name)
    batch, bits = cued(model)
    report = probe(model, batch, {"bit": bits})
    assert report.majority == {"bit": 0.5}
    assert all(
        len(values) == STEPS // model.config.context_length
        for values in report.accuracy["bit"].values()
    )
    parts = report.accuracy["bit"]
    if name in CARRYING:
        assert max(values[0] for part, values in parts.items() if part != FEATURES) == 1
    else:
        assert list(parts) == [FEATURES]
        assert parts[FEATURES][-1] < 0.8
    if model.config.context_length > 1 and name != "mlp":
        assert parts[FEATURES][0] == 1


def test_episodes_that_have_ended_are_left_out() -> None:
    model = make_model("gru")
    batch, bits = cued(model)
    ended = torch.zeros_like(batch.terminated)
    ended[5:, K] = True  # 5 episodes run on
    batch = replace(batch, terminated=ended, truncated=torch.zeros_like(ended))
    found = probe(model, batch, {"bit": bits}).accuracy["bit"][FEATURES]
    assert not math.isnan(found[0])
    assert all(math.isnan(value) for value in found[1:])


def test_labels_are_the_discrete_components() -> None:
    batch = make_batch(make_model("gru"), [STEPS] * 4)
    first = torch.tensor([[0.0, 1.0, 0.5], [0.0, -1.0, 0.1], [0.0, 1.0, 7.0], [0.0, 1.0, 3.0]])
    assert isinstance(batch.observations, Tensor)
    observations = batch.observations.clone()
    observations[:, 0] = first
    privileged = torch.randn(4, STEPS, 2)
    privileged[..., 0] = (privileged[..., 0] > 0).float()
    found = labels_of(replace(batch, observations=observations, privileged=privileged))
    assert list(found) == ["privileged 0", "first observation 1", "first observation 2"]
    assert torch.equal(found["privileged 0"], privileged[..., 0].long())
    assert found["first observation 1"].tolist() == [[b] * STEPS for b in (1, 0, 1, 1)]


@pytest.mark.parametrize("name", CARRYING)
def test_a_disturbance_changes_what_is_remembered_and_nothing_else(name: str) -> None:
    model = make_model(name)
    states = [state for state, _ in follow(model, make_batch(model, [STEPS] * 2))]
    state = states[-1]
    rng = torch.Generator().manual_seed(0)
    for key, part in disturbed(state, 0.0, rng).tensors().items():
        assert torch.equal(part, state.tensors()[key])
    changed = {
        key
        for key, part in disturbed(state, 1.0, rng).tensors().items()
        if not torch.equal(part, state.tensors()[key])
    }
    remembered = set(memory_parts(state))
    if isinstance(state, SegmentState) and state.memory is not None:
        remembered = {"memory"} if state.association is None else {"association.0"}
    assert changed == remembered
    assert "late" not in changed or not isinstance(state, StepState)
    rows = memory_rows(state)
    if isinstance(state, SegmentState):
        written = written_memory(state)
        assert (rows is None) == (written is None)
        if rows is not None and written is not None:
            assert torch.equal(rows.flatten(), written.flatten())
    else:
        assert rows is not None
        size = sum(part.square().sum() for part in memory_parts(state).values())
        torch.testing.assert_close(rows.square().sum(), size)


@pytest.mark.parametrize("name", MODELS)
def test_saliency_is_the_gradient_of_the_last_prediction(name: str) -> None:
    model = make_model(name)
    batch = make_batch(model, [STEPS] * 2)
    shares = saliency(model, batch)
    assert all(parameter.grad is None for parameter in model.parameters())
    tokens: list[Tensor] = []
    hook = model.tokenizer.register_forward_hook(lambda *args: tokens.append(args[-1]))
    past = batch
    if not model.config.carries_state:  # the window that acting has
        past = batch.steps(STEPS - model.config.context_length, STEPS)
    predictions, _ = model(past)
    hook.remove()
    (gradient,) = torch.autograd.grad(0.5 * predictions[:, -1].square().sum(), tokens)
    sizes = gradient.flatten(2).norm(dim=-1).double()
    expected = (sizes / sizes.sum(1, keepdim=True)).mean(0)
    torch.testing.assert_close(shares[STEPS - past.num_steps :], expected, rtol=1e-3, atol=1e-6)
    assert shares[: STEPS - past.num_steps].sum() == 0
    assert shares.sum().item() == pytest.approx(1)
