"""Training steps in CUDA graphs: equal results, and the fallback where recording fails."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError
from tests.trainers.test_resume import StopAt, same_run
from tests.trainers.test_training import column
from trainers import graphs
from trainers.config import RunConfig
from trainers.errors import TrainingError
from trainers.sequence import SequenceTrainer
from trainers.train import train

OFF = {"training__accelerator": "auto", "training__compile": "never"}
Recording = tuple[Callable[[], None], Tensor, list[Tensor | None]]


def repeat(function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Recording:
    """Emulates a graph on a CPU: replays write to the tensors of the recording."""
    result = function()
    gradients = [parameter.grad for parameter in parameters]

    def again() -> None:
        result.copy_(function())
        for kept, parameter in zip(gradients, parameters, strict=True):
            if kept is not None:
                kept.copy_(parameter.grad)

    return again, result, gradients


def lose_the_update(function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Recording:
    """Emulates a graph that computes gradients but does not update parameters."""
    again, result, gradients = repeat(function, parameters)

    def without() -> None:
        before = [parameter.detach().clone() for parameter in parameters]
        again()
        for parameter, old in zip(parameters, before, strict=True):
            parameter.data.copy_(old)

    return without, result, gradients


def keep(function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Recording:
    """Emulates a graph with stale inputs: every replay returns the first batch's gradient."""
    result = function().clone()
    gradients = [None if p.grad is None else p.grad.clone() for p in parameters]
    kept = [None if gradient is None else gradient.clone() for gradient in gradients]

    def again() -> None:
        for gradient, first in zip(gradients, kept, strict=True):
            if gradient is not None:
                gradient.copy_(first)

    return again, result, gradients


def refuse(function: Callable[[], Tensor], parameters: list[nn.Parameter]) -> Recording:
    try:
        raise RuntimeError("operation not permitted when stream is capturing\n(and its stack)")
    finally:  # CUDA ends a recording that failed with an error of its own
        raise RuntimeError("operation failed due to a previous error during capture")


@pytest.fixture
def with_graphs(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Returns a function that replaces CUDA by one of the above and returns the recordings."""
    made: list[int] = []

    def put(record: Callable[..., Recording]) -> list[int]:
        def counted(*args) -> Recording:
            made.append(len(args[1]))
            return record(*args)

        monkeypatch.setattr(graphs, "record", counted)
        monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
        return made

    return put


@pytest.fixture
def plain(make_config) -> Callable[..., Path]:
    """Returns a function that trains without graphs, for comparison."""
    return lambda **settings: (
        train(
            make_config(logging__name="plain", training__cuda_graphs="never", **OFF, **settings)
        ).folder
    )


CURRICULUM = {"curriculum__enabled": True, "curriculum__max_steps": 3}
# The learning rate of a graph is a float32. These values are exact in float32, and differ.
EXACT = {
    "optimizer__learning_rate": 2.0**-10,
    "optimizer__warmup_steps": 4,
    "optimizer__schedule": "constant",
}


@pytest.mark.parametrize(("settings", "shapes"), [({}, 1), (CURRICULUM, 3)])
def test_recorded_steps_are_equal(make_config, plain, with_graphs, settings, shapes) -> None:
    expected = plain(**EXACT, **settings)
    made = with_graphs(repeat)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot be recorded.*")
        folder = train(make_config(logging__name="graphs", **OFF, **EXACT, **settings)).folder
    assert len(made) == shapes
    same_run(expected, folder)


def test_a_run_with_graphs_is_resumed(make_config, with_graphs) -> None:
    with_graphs(repeat)
    whole = train(make_config(logging__name="whole", **OFF, **EXACT)).folder
    config = make_config(logging__name="parts", **OFF, **EXACT)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    checkpoint = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    for group in checkpoint["optimizer_states"][0]["param_groups"]:
        assert isinstance(group["lr"], float)
        assert not group["capturable"]
    train(config, resume=folder)
    same_run(whole, folder)


def test_graphs_change_no_weight_after_a_bad_step(make_config, with_graphs, monkeypatch) -> None:
    """The device runs ahead of the host, which detects the error when metrics are due."""
    seen = []
    training_step = SequenceTrainer.training_step

    def spoil(module: SequenceTrainer, batch: Batch, index: int) -> dict[str, Tensor]:
        seen.append(module.optimizers().optimizer.changed_tensors())
        seen[-1] = [tensor.detach().clone() for tensor in seen[-1]]
        if index == 4:
            batch.returns_to_go.fill_(float("nan"))
        return training_step(module, batch, index)

    with_graphs(repeat)
    monkeypatch.setattr(SequenceTrainer, "_checks_each_step", False)
    monkeypatch.setattr(SequenceTrainer, "training_step", spoil)
    settings = {"training__log_every_n_steps": 8, "training__checkpoint_every_n_steps": 100}
    with pytest.raises(TrainingError, match="optimiser step 5, in batch 4 of the data"):
        train(make_config(evaluation__every_n_steps=0, **OFF, **settings))
    assert len(seen) == 8
    assert not all(torch.equal(*pair) for pair in zip(seen[3], seen[4], strict=True))
    assert all(torch.equal(*pair) for pair in zip(seen[4], seen[7], strict=True))


@pytest.mark.parametrize(("record", "off"), [(keep, "gradient"), (lose_the_update, "update")])
def test_a_graph_with_other_results_is_detected(
    make_config, plain, with_graphs, record, off
) -> None:
    expected = plain()
    assert len(with_graphs(record)) == 0
    with pytest.warns(UserWarning, match=rf"{off} is off by .*\). Training goes on without"):
        folder = train(make_config(logging__name="graphs", **OFF)).folder
    same_run(expected, folder)


def test_training_continues_if_recording_fails(make_config, plain, with_graphs) -> None:
    expected = plain()
    made = with_graphs(refuse)
    with pytest.warns(UserWarning, match=r"is capturing\). Training goes on without") as warned:
        folder = train(make_config(logging__name="graphs", **OFF)).folder
    assert len([w for w in warned if "recorded" in str(w.message)]) == len(made) == 1
    same_run(expected, folder)


@pytest.mark.filterwarnings("ignore:.*cannot be recorded")
@pytest.mark.parametrize(("record", "paths"), [(repeat, ["CUDA graph"]), (refuse, [])])
def test_the_way_of_running_steps_is_reported(
    make_config, with_graphs, monkeypatch, record, paths
) -> None:
    fast_paths = []
    monkeypatch.setattr(
        SequenceTrainer, "on_train_end", lambda self: fast_paths.append(self.fast_paths)
    )
    with_graphs(record)
    train(make_config(**OFF))
    assert fast_paths == [paths]


def test_graphs_that_are_required_and_fail_are_an_error(make_config, with_graphs) -> None:
    with_graphs(refuse)
    with pytest.raises(ConfigError, match=r"is capturing.*Set training.cuda_graphs=never"):
        train(make_config(training__cuda_graphs="always", **OFF))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_graphs_that_are_required_need_a_gpu(make_config) -> None:
    with pytest.raises(ConfigError, match="needs an NVIDIA GPU, and this run is on the cpu"):
        train(make_config(training__cuda_graphs="always", **OFF))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("accelerator", "cpu"),
        ("devices", 2),
        ("bptt_segments", 0),
        ("checkpoint_segments", True),
        ("precision", "16-mixed"),
    ],
)
def test_a_conflicting_setting_is_refused_or_disables_graphs(make_config, setting, value) -> None:
    settings = {"training__accelerator": "auto", f"training__{setting}": value}
    config: RunConfig = make_config(**settings)
    assert f"{setting}={str(value).lower()}" in (config.training.graph_obstacle or "")
    with pytest.raises(ConfigError, match=f"does not go with training.{setting}"):
        make_config(training__cuda_graphs="always", **settings)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_graphs_on_a_gpu_are_equal(make_config, precision) -> None:
    settings = {**OFF, "training__accelerator": "gpu", "training__precision": precision}
    expected = train(make_config(training__cuda_graphs="never", logging__name="plain", **settings))
    found = train(make_config(training__cuda_graphs="always", logging__name="graphs", **settings))
    pairs = (column(run.folder, "loss") for run in (expected, found))
    assert next(pairs) == pytest.approx(next(pairs), rel=1e-3)
