"""Metrics that stay on the device until they are logged, so that steps do not synchronise."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.trainers.test_resume import same_run
from trainers.config_learning import OptimizerConfig
from trainers.errors import TrainingError
from trainers.metric_sums import MetricSums
from trainers.optimization import make_optimizer
from trainers.sequence import SequenceTrainer
from trainers.train import train

NAN = float("nan")


@pytest.fixture
def lagging(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treats the CPU as a device that the host does not wait for."""
    monkeypatch.setattr(SequenceTrainer, "_checks_each_step", False)


NAMES = ("loss", "accuracy", "last_step_accuracy")


def totals(loss: float) -> torch.Tensor:
    return torch.tensor([loss, 2.0, 1.0, 2.0, 1.0, 1.0, 2.0])


class TestMetricSums:
    def test_means_are_over_all_steps_since_the_last_reading(self) -> None:
        sums = MetricSums()
        for step, loss in enumerate((1.0, 3.0), start=1):
            sums.add(step, step - 1, sums.check_finite(totals(loss), torch.tensor(loss)), NAMES)
        assert sums.read() is None
        found = sums.metrics()
        assert found == {"loss": 1, "accuracy": 0.5, "last_step_accuracy": 1, "grad_norm": 2}
        assert sums.state_dict() == MetricSums().state_dict()

    def test_metrics_without_weight_are_omitted_except_the_loss(self) -> None:
        sums = MetricSums()
        sums.add(1, 0, sums.check_finite(torch.zeros(7), torch.tensor(0.0)), NAMES)
        assert sums.read() is None
        assert sums.metrics() == {"loss": 0, "grad_norm": 0}

    def test_a_metric_that_is_not_finite_does_not_stop_training(self) -> None:
        sums = MetricSums()
        row = totals(1.0)
        row[2] = NAN
        sums.add(1, 0, sums.check_finite(row, torch.tensor(1.0)), NAMES)
        assert sums.read() is None
        assert sums.found_inf == 0

    def test_sums_are_restored_from_their_state(self) -> None:
        both = MetricSums(), MetricSums()
        for sums in both:
            sums.add(1, 0, sums.check_finite(totals(2.0), torch.tensor(3.0)), NAMES)
            assert sums.read() is None
        both[1].load_state_dict(json.loads(json.dumps(both[0].state_dict())))
        assert both[0].state_dict() == both[1].state_dict()
        assert both[0].metrics() == both[1].metrics()

    @pytest.mark.parametrize(("loss", "norm"), [(NAN, 1.0), (float("inf"), 1.0), (1.0, NAN)])
    def test_the_first_step_that_is_not_finite_is_named(self, loss: float, norm: float) -> None:
        sums = MetricSums()
        sums.add(7, 3, sums.check_finite(totals(1.0), torch.tensor(1.0)), NAMES)
        sums.add(8, 4, sums.check_finite(totals(loss), torch.tensor(norm)), NAMES)
        sums.add(9, 5, sums.check_finite(totals(NAN), torch.tensor(NAN)), NAMES)
        failure = sums.read()
        assert failure is not None
        assert (failure.step, failure.batch) == (8, 4)

    def test_no_weight_changes_from_a_bad_step_on(self) -> None:
        model, sums = torch.nn.Linear(3, 2), MetricSums()
        optimizer, _ = make_optimizer(model, OptimizerConfig(), 10, fused=True)
        before = []
        for loss in (1.0, NAN, 1.0):
            for parameter in model.parameters():
                parameter.grad = torch.full_like(parameter, loss)
            sums.check_finite(totals(loss), torch.tensor(1.0))
            optimizer.found_inf = sums.found_inf
            optimizer.step()
            before.append([parameter.detach().clone() for parameter in model.parameters()])
        first, *others = before
        assert all(torch.equal(a, b) for after in others for a, b in zip(first, after, strict=True))
        assert all(state["step"] == 1 for state in optimizer.state.values())


@pytest.mark.parametrize("bptt_segments", [None, 0])
def test_waiting_does_not_change_results(make_config, monkeypatch, bptt_segments) -> None:
    settings = {"training__bptt_segments": bptt_segments, "training__log_every_n_steps": 3}
    at_once = train(make_config(logging__name="at-once", **settings)).folder
    monkeypatch.setattr(SequenceTrainer, "_checks_each_step", False)
    same_run(at_once, train(make_config(logging__name="later", **settings)).folder)


@pytest.mark.usefixtures("lagging")
def test_a_failure_is_reported_later_and_changes_no_weights(make_config, monkeypatch) -> None:
    """Batch 4 has a NaN and metrics are due at step 8: weights stay those after four batches."""
    from rate.batch import Batch

    seen: list[dict[str, torch.Tensor]] = []
    training_step = SequenceTrainer.training_step

    def spoil(module: SequenceTrainer, batch: Batch, index: int) -> Any:
        seen.append({name: p.detach().clone() for name, p in module.model.named_parameters()})
        if index == 4:
            batch.returns_to_go.fill_(NAN)
        return training_step(module, batch, index)

    monkeypatch.setattr(SequenceTrainer, "training_step", spoil)
    settings = {"training__log_every_n_steps": 8, "training__checkpoint_every_n_steps": 100}
    with pytest.raises(TrainingError, match="optimiser step 5, in batch 4 of the data"):
        train(make_config(evaluation__every_n_steps=0, **settings))
    assert len(seen) == 8
    assert all(torch.equal(seen[4][name], value) for name, value in seen[7].items())


@pytest.mark.usefixtures("lagging")
def test_a_failure_is_reported_before_a_save(make_config, monkeypatch) -> None:
    config = make_config(
        optimizer__learning_rate=1e30,
        optimizer__gradient_clip=0.0,
        optimizer__warmup_steps=0,
        training__log_every_n_steps=100,
        training__max_steps=100,
        training__checkpoint_every_n_steps=10,
        evaluation__every_n_steps=0,
    )
    with pytest.raises(TrainingError, match="No checkpoint was saved"):
        train(config)


class _NoReading(TorchDispatchMode):
    """Raises an error for operations that make the host wait for a GPU."""

    REFUSED = ("_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal")

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket._qualified_op_name.split("::")[1]
        if name in self.REFUSED:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


@pytest.mark.usefixtures("lagging")
@pytest.mark.parametrize("bptt_segments", [None, 1, 0])
def test_a_step_reads_nothing_from_the_device(make_config, monkeypatch, bptt_segments) -> None:
    training_step = SequenceTrainer.training_step

    def watched(*args: Any) -> Any:
        with _NoReading():
            return training_step(*args)

    monkeypatch.setattr(SequenceTrainer, "training_step", watched)
    monkeypatch.setattr(SequenceTrainer, "_log", lambda *_: None)
    config = make_config(training__bptt_segments=bptt_segments, loss__weighted_steps="last")
    train(config)


@pytest.mark.gpu
def test_a_step_on_a_gpu_does_not_synchronise(make_config, monkeypatch) -> None:
    training_step = SequenceTrainer.training_step

    def watched(module: SequenceTrainer, batch: Any, index: int) -> Any:
        # The first steps record and compare a CUDA graph, the last one logs.
        torch.cuda.set_sync_debug_mode("error" if 2 < index < 7 else "default")
        try:
            return training_step(module, batch, index)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(SequenceTrainer, "training_step", watched)
    train(make_config(training__accelerator="gpu", training__log_every_n_steps=100))
