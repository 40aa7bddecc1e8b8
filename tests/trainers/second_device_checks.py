"""Training and acting on a device that is not the CPU; run by `test_second_device.py`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import lightning.pytorch
import numpy as np
import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from rate.policy import Policy
from tests.factories import SPACES, K, draw, make_batch, make_model
from tests.second_device import SECOND, SecondAccelerator, SecondDevice
from tests.trainers.sources.test_online_runs import ONLINE
from tests.trainers.test_graphs import repeat
from tests.trainers.test_training import column
from trainers import fitting, graphs
from trainers.sequence import SequenceTrainer
from trainers.train import train

# One of each kind of state and tokens; `test_gpu.py` has all models. PyTorch has separate kernels
# for gated cells on devices other than the CPU.
HERE = (
    *("rate_cache", "rmt", "armt_cache", "cached_memories", "rate_of_pairs", "dt", "universal"),
    *("adaptive_span", "elmur", "min_gru", "gated_deltanet", "mlstm", "slstm", "nbrc", "ffm"),
    *("mamba2", "shm", "lsdt", "gpt2", "mlp"),
)
ACTING = ("rate_cache", "armt_cache", "dt", "universal", "elmur", "gated_deltanet", "shm", "gpt2")
KINDS = [(name, "vector_to_discrete") for name in HERE] + [("rate", s) for s in SPACES]


def gradients(model, batch):
    model.zero_grad()
    hidden, _ = model.features(batch)
    (hidden * batch.mask[..., None]).square().mean().backward()
    return {n: p.grad.detach().clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "spaces"), KINDS)
def test_gradients_equal_those_of_the_cpu_without_waiting(name, spaces) -> None:
    model = make_model(name, spaces).train()
    batch = make_batch(model, [3 * K, 2 * K - 1, 1])
    torch.manual_seed(3)
    expected = gradients(model, batch)
    with SecondDevice() as device:
        model, batch = model.to(SECOND), batch.to(SECOND)
        gradients(model, batch)  # tables are made
        device.waits.clear()
        torch.manual_seed(3)
        found = gradients(model, batch)
        assert not device.waits
        for key, gradient in expected.items():
            torch.testing.assert_close(found.pop(key).cpu(), gradient, rtol=1e-3, atol=1e-5)
    assert not found


def act_out(model, steps, device=None):
    """Returns the actions and, for each step, the operations that waited for the device."""
    policy = Policy(model, num_envs=3, target_return=1.0)
    actions, waits = [], []
    for step in range(steps):
        if step == K + 1:
            policy.reset(np.array([True, False, True]))
        before = 0 if device is None else device.waits.total()
        seen = draw(model.observation_space, 3, seed=step)
        seen = {k: v.numpy() for k, v in seen.items()} if isinstance(seen, dict) else seen.numpy()
        actions.append(policy.act(seen, np.ones(3) if step else None))
        waits.append(0 if device is None else device.waits.total() - before)
    return actions, waits


@pytest.mark.parametrize(
    ("name", "spaces"), [kind for kind in KINDS if kind[0] in (*ACTING, "rate")]
)
def test_acting_equals_that_of_the_cpu_and_only_actions_are_waited_for(name, spaces) -> None:
    model = make_model(name, spaces)
    expected, _ = act_out(model, 3 * K + 2)
    with SecondDevice() as device:
        act_out(model.to(SECOND), 3 * K + 2)  # tables are made
        found, waits = act_out(model, 3 * K + 2, device)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    assert waits == [1] * len(waits)


@pytest.fixture
def on_second(monkeypatch: pytest.MonkeyPatch) -> Callable[[], SecondDevice]:
    """Enables the second device and makes Lightning train on it."""

    def switch_on() -> SecondDevice:
        trainer = lightning.pytorch.Trainer

        def make_trainer(**arguments: Any) -> lightning.pytorch.Trainer:
            strategy = SingleDeviceStrategy(SECOND, SecondAccelerator())  # one for each trainer
            return trainer(**{**arguments, "strategy": strategy})

        monkeypatch.setattr(fitting, "Trainer", make_trainer)
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor)
        return SecondDevice()

    return switch_on


# Changed settings, and how many of the 24 steps may wait besides those that log.
RUNS = {
    "plain": ({}, 0),
    "published": ({"training__bptt_segments": 0}, 0),
    "shown": ({"logging__progress": True}, 0),
    "graphs": ({}, 0),
    # Its batches of accuracies are read in fives.
    "curriculum": ({"curriculum__enabled": True}, 24 // 5),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_equals_that_of_the_cpu_and_waits_only_to_log(
    make_config, monkeypatch, on_second, name
) -> None:
    changes, may_wait = RUNS[name]
    changes = changes | {"training__max_steps": 24, "training__log_every_n_steps": 6}
    changes |= {"evaluation__every_n_steps": 0, "training__checkpoint_every_n_steps": 12}
    changes |= {"model__dropout": 0.0, "model__memory_noise": 0.0}  # each device draws its own
    expected = train(make_config(logging__name="cpu", **changes))
    waits: list[tuple[int, int]] = []
    training_step = SequenceTrainer.training_step

    def watched(module: SequenceTrainer, *arguments: Any) -> Any:
        waits.append((module.global_step, SecondDevice.waits.total()))
        SecondDevice.waits.clear()
        return training_step(module, *arguments)

    monkeypatch.setattr(SequenceTrainer, "training_step", watched)
    made: list[int] = []
    if name == "graphs":
        monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
        monkeypatch.setattr(graphs, "record", lambda *a: (made.append(1), repeat(*a))[1])
        changes |= {"training__compile": "never"}
    with on_second(), warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot be recorded.*")
        settings = {"training__accelerator": "auto", "training__data_device": "device", **changes}
        found = train(make_config(logging__name="second", **settings))
    assert len(made) == (name == "graphs")
    for metric in ("loss", "grad_norm"):
        one, other = (column(run.folder, metric) for run in (expected, found))
        assert other == pytest.approx(one, rel=1e-3)
    for one, other in zip(expected.rows, found.rows, strict=True):
        assert other["return"] == pytest.approx(one["return"])
    quiet = [total for step, total in waits if step > 3 and step % 6]
    assert len(quiet) >= 3
    assert sum(total > 0 for total in quiet) <= may_wait


@pytest.mark.parametrize("rule", ["r2d2", "vtrace"])
def test_a_run_in_an_environment_equals_that_of_the_cpu(
    make_config, monkeypatch, on_second, rule
) -> None:
    """The collector acts on the device, and no training step waits for it, unless it logs."""
    changes = {**ONLINE, "training__objective": rule, "training__max_steps": 8}
    changes |= {"training__log_every_n_steps": 8}
    changes |= {"model__dropout": 0.0, "model__memory_noise": 0.0}
    if rule == "r2d2":
        changes |= {"online__priority_exponent": 0.6, "loss__burn_in": 3}
    expected = train(make_config(logging__name="cpu", **changes))
    waits: list[int] = []
    training_step = SequenceTrainer.training_step

    def watched(module: SequenceTrainer, *arguments: Any) -> Any:
        SecondDevice.waits.clear()
        found = training_step(module, *arguments)
        waits.append(SecondDevice.waits.total())
        return found

    monkeypatch.setattr(SequenceTrainer, "training_step", watched)
    with on_second():
        found = train(make_config(logging__name="second", training__accelerator="auto", **changes))
    for metric in ("loss", "grad_norm", "online/steps"):
        one, other = (column(run.folder, metric) for run in (expected, found))
        assert other == pytest.approx(one, rel=1e-3)
    assert not any(waits[3:7])
