"""Training and acting on an NVIDIA GPU: equal to the CPU, recorded, compiled and resumed."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rate.analysis.saliency import saliency
from rate.policy import Policy
from tests.factories import MODELS, SPACES, K, draw, make_batch, make_model
from tests.trainers.test_resume import StopAt, same_run
from tests.trainers.test_training import column
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.preset_files import PUBLISHED, preset_names
from trainers.train import train

GPU = torch.device("cuda", 0)
pytestmark = pytest.mark.gpu
KINDS = [(name, "vector_to_discrete") for name in MODELS] + [("rate_cache", s) for s in SPACES]
WHOLE_WINDOWS = ("dt", "dt_relative", "mlp", "transformer", "gpt2", "lsdt")  # that carry nothing
DRAWING = ("elmur", "shm")  # that draw part of their initial state or weights, as the device does
PRESETS = [name for name in preset_names("tmaze") if not name.endswith(PUBLISHED)]


@pytest.fixture(autouse=True)
def _full_precision() -> Iterator[None]:
    """Convolutions and cuDNN's cells multiply in 19 bits unless they are told not to."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def gradients(model, batch):
    model.zero_grad()
    hidden, _ = model.features(batch)
    (hidden * batch.mask[..., None]).square().mean().backward()
    return {n: p.grad.detach().cpu() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("name", "spaces"), KINDS)
def test_gradients_equal_those_of_the_cpu(name, spaces) -> None:
    model = make_model(name, spaces)
    batch = make_batch(model, [3 * K, 2 * K - 1, 1])
    expected = gradients(model, batch)
    model = model.to(GPU)
    for module in model.modules():
        if isinstance(module, torch.nn.RNNBase):
            module.train()  # cuDNN has no backward pass in evaluation
            module.dropout = 0.0
    found = gradients(model, batch.to(GPU))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def act_out(model, steps):
    policy = Policy(model, num_envs=3, target_return=1.0)
    actions = []
    for step in range(steps):
        if step == K + 1:
            policy.reset(np.array([True, False, True]))
        seen = draw(model.observation_space, 3, seed=step)
        seen = {k: v.numpy() for k, v in seen.items()} if isinstance(seen, dict) else seen.numpy()
        actions.append(policy.act(seen, np.ones(3) if step else None))
    return actions


@pytest.mark.parametrize(("name", "spaces"), KINDS)
def test_acting_equals_that_of_the_cpu(name, spaces) -> None:
    model = make_model(name, spaces)
    expected = act_out(model, 3 * K + 2)
    found = act_out(model.to(GPU), 3 * K + 2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture
def config_of(tmp_path, data_root):
    """Returns a function that makes a small run of a preset of T-Maze, without noise."""

    def make(name: str, run: str, *options: str, accelerator: str = "gpu") -> RunConfig:
        length, segments = (12, 1) if name in WHOLE_WINDOWS else (4, 3)
        tiny = [
            *(f"--model_mode={name}", f"--data.root={data_root}", "--data.num_episodes=60"),
            *(f"--model.context_length={length}", f"--training.segments={segments}"),
            *("--training.batch_size=4", "--training.max_steps=12"),
            "--training.log_every_n_steps=1",
            *("--evaluation.lengths=8", "--evaluation.selection_lengths=6"),
            *("--evaluation.episodes=4", "--evaluation.every_n_steps=6"),
            *("--logging.progress=false", "--logging.tensorboard=false"),
            *(f"--logging.output={tmp_path}", f"--logging.name={run}"),
            f"--training.accelerator={accelerator}",
        ]
        return parse("tmaze", [*tiny, *options]).config

    return make


def noiseless(config: RunConfig) -> list[str]:
    """The options that turn off noise, which each device draws as it likes."""
    noise = ("dropout", "attention_dropout", "memory_noise", "token_dropout")
    return [f"--model.{name}=0" for name in noise if getattr(config.model, name, 0)]


def same_losses(first: Path, second: Path, tolerance: float = 1e-3) -> None:
    for name, times in (("loss", 1), ("grad_norm", 10)):
        assert column(second, name) == pytest.approx(column(first, name), rel=times * tolerance)


@pytest.mark.parametrize("name", PRESETS)
def test_a_run_equals_that_of_the_cpu(config_of, name) -> None:
    """With graphs and compilation as the preset has them, and rollouts."""
    quiet = noiseless(config_of(name, "noise"))
    expected = train(config_of(name, "cpu", *quiet, accelerator="cpu"))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*cannot be (recorded|compiled).*")
        found = train(config_of(name, "gpu", *quiet))
    same_losses(expected.folder, found.folder, 0.05 if name in DRAWING else 1e-3)
    for one, other in zip(expected.rows, found.rows, strict=True):
        assert other["return"] == pytest.approx(one["return"])


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_saliency_is_that_of_the_cpu(name) -> None:
    model = make_model(name)
    batch = make_batch(model, [3 * K, 3 * K])
    expected = saliency(model, batch)
    found = saliency(model.to(GPU), batch.to(GPU))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", PRESETS)
def test_a_recorded_run_with_noise_equals_a_plain_one(config_of, name) -> None:
    options = ("--training.compile=never",)
    plain = train(config_of(name, "plain", *options, "--training.cuda_graphs=never"))
    recorded = train(config_of(name, "recorded", *options, "--training.cuda_graphs=always"))
    same_losses(plain.folder, recorded.folder)


@pytest.mark.parametrize("name", ["dt", "gru", "rate", "mamba2", "gated_deltanet", "elmur"])
def test_half_precision_learns_alike(config_of, name) -> None:
    quiet = noiseless(config_of(name, "noise"))
    full = train(config_of(name, "full", *quiet))
    half = train(config_of(name, "half", *quiet, "--training.precision=bf16-mixed"))
    assert column(half.folder, "loss") == pytest.approx(column(full.folder, "loss"), rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_a_compiled_run_equals_a_plain_one(config_of, name) -> None:
    options: Any = (*noiseless(config_of(name, "noise")), "--training.cuda_graphs=never")
    plain = train(config_of(name, "plain", *options, "--training.compile=never"))
    compiled = train(config_of(name, "compiled", *options, "--training.compile=always"))
    same_losses(plain.folder, compiled.folder, 0.05 if name in DRAWING else 1e-3)


@pytest.mark.parametrize("name", PRESETS)
def test_a_resumed_run_equals_an_uninterrupted_one(config_of, name) -> None:
    whole = train(config_of(name, "whole")).folder
    config = config_of(name, "parts", "--training.checkpoint_every_n_steps=5")
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(8))
    folder = Path(config.logging.output) / config.run_name
    train(config, resume=folder)
    same_run(whole, folder)
