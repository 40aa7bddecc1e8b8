"""Compilation of the model, and training without it where it fails."""

from __future__ import annotations

import warnings
from contextlib import nullcontext

import pytest

from datamodules.sampler import WindowSampler
from datamodules.store import Store
from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import ConfigError
from rate.model import SequenceModel
from tests.trainers.test_training import column
from trainers.sequence import SequenceTrainer
from trainers.train import train


def test_compiled_training_is_equal(make_config, monkeypatch) -> None:
    """Graphs are traced and checked, but no code is generated from them."""
    compile_segments = SequenceModel.compile_segments
    used = []

    def with_backend(model: SequenceModel, backend: str | None = "inductor") -> None:
        used.append(backend)
        compile_segments(model, backend and "aot_eager")

    monkeypatch.setattr(SequenceModel, "compile_segments", with_backend)
    settings = {"training__max_steps": 4, "training__log_every_n_steps": 1}
    settings["evaluation__every_n_steps"] = 0
    eager = train(make_config(logging__name="eager", **settings)).folder
    assert used == []
    compiled = train(
        make_config(logging__name="compiled", training__compile="always", **settings)
    ).folder
    assert used == ["inductor"]
    assert column(compiled, "loss") == pytest.approx(column(eager, "loss"), rel=1e-5)


def broken(model: SequenceModel, backend: str | None = "inductor") -> None:
    if backend is not None:
        raise RuntimeError("no compiler\n(and many lines of its innards)")


def test_a_required_compiler_that_fails_is_an_error(make_config, monkeypatch) -> None:
    monkeypatch.setattr(SequenceModel, "compile_segments", broken)
    with pytest.raises(ConfigError, match=r"RuntimeError: no compiler\). Set training.comp"):
        train(make_config(training__compile="always"))


def test_training_continues_without_a_compiler(make_config, data_root, monkeypatch) -> None:
    monkeypatch.setattr(SequenceModel, "compile_segments", broken)
    batch = WindowSampler(Store.open(data_root / "tmaze-12-60-seed0"), 4, 12, seed=1).batch(0)
    module = SequenceTrainer(make_config(), TMAZE_SPEC)
    monkeypatch.setattr(module, "_without_ddp_reducer", nullcontext)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        module._compile(batch)  # a CPU does not compile
    monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
    with pytest.warns(UserWarning, match=r"no compiler\). Training goes on"):
        module._compile(batch)
