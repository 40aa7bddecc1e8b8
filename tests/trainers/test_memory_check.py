"""The estimate of the memory of a training step, and its check before training."""

from __future__ import annotations

import warnings
from importlib.util import find_spec

import pytest
import torch

from datamodules import data_device, memory
from rate.errors import ConfigError
from trainers import memory_check
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.memory_check import StepMemory, check_memory, step_memory
from trainers.registry import get_environment
from trainers.sequence import SequenceTrainer
from trainers.train import train


def memory_of(config: RunConfig) -> StepMemory:
    entry = get_environment(config.environment, config.env, frame_stack=config.data.frame_stack)
    return step_memory(config, entry.spec)


def config_of(environment: str, *words: str) -> RunConfig:
    return parse(environment, [*words, "--training.accelerator=cpu"]).config


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ("tmaze", ["--model_mode=RATE"]),
        ("tmaze", ["--model_mode=DT"]),
        ("tmaze", ["--model_mode=TrXL"]),
        ("minigrid", ["--model_mode=RATE", "--training.segments=2"]),
        ("mujoco", ["--model_mode=RATE_quick"]),
    ],
)
def test_a_batch_takes_the_estimated_memory(environment: str, words: list[str]) -> None:
    """Compares the estimate with the tensors that autograd keeps for three windows."""
    if any(find_spec(name) is None for name in ("minigrid", "mujoco")):
        pytest.skip("Minigrid and MuJoCo are not installed here")
    config = config_of(environment, *words)
    entry = get_environment(environment, config.env, frame_stack=config.data.frame_stack)
    module = SequenceTrainer(config, entry.spec)
    one = memory_check._empty_batch(config, entry.spec, module)
    three = one._map(lambda tensor: tensor.expand(3, *tensor.shape[1:]).clone())
    memory = step_memory(config, entry.spec)
    data = sum(tensor.nbytes for tensor in three.tensors())
    real = data + memory_check._saved_bytes(module, three)
    # Tensors that all windows share, like positions, are counted for each window.
    assert real <= 3 * memory.window <= 1.3 * real
    # A layer keeps at least its inputs: 3 tokens per step in float32.
    model = config.model
    assert memory.window > config.window * 3 * model.d_model * 4 * 4 * model.num_layers
    assert memory.of(7) == memory.fixed + 7 * memory.window


def test_fewer_kept_activations_take_less_memory() -> None:
    plain = memory_of(config_of("tmaze"))
    recomputed = memory_of(config_of("tmaze", "--training.checkpoint_segments=true"))
    detached = memory_of(config_of("tmaze", "--training.bptt_segments=0"))
    half = memory_of(config_of("tmaze", "--training.precision=bf16-mixed"))
    longer = memory_of(config_of("tmaze", "--training.segments=18"))
    assert recomputed.window < plain.window / 4
    assert detached.window < plain.window / 4
    assert half.window < plain.window * 0.8
    assert longer.window == pytest.approx(2 * plain.window, rel=0.15)
    assert plain.fixed == recomputed.fixed


def test_a_step_that_does_not_fit_is_refused_with_its_size(make_config, monkeypatch) -> None:
    config = config_of("tmaze", "--training.batch_size=100000")
    spec = get_environment("tmaze").spec
    window = step_memory(config, spec).window
    monkeypatch.setattr(memory_check, "free_memory", lambda device: 1000 * window)
    with pytest.raises(ConfigError) as caught:
        check_memory(config, spec)
    message = str(caught.value)
    assert message.startswith("training.batch_size=100000 takes about ")
    assert f"{100_000 * window / 1e9:.0f}" in message.split(" GB", maxsplit=1)[0]
    assert "About 66" in message  # of 1000, with room for peaks
    assert "training.checkpoint_segments=true" in message


def test_a_step_that_may_not_fit_is_warned_of(monkeypatch) -> None:
    config = config_of("tmaze", "--training.batch_size=64")
    spec = get_environment("tmaze").spec
    need = step_memory(config, spec).of(64)
    monkeypatch.setattr(memory_check, "free_memory", lambda device: int(1.2 * need))
    with pytest.warns(UserWarning, match="windows are sure to fit"):
        check_memory(config, spec)
    monkeypatch.setattr(memory_check, "free_memory", lambda device: 2 * need)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_memory(config, spec)


def test_a_run_that_does_not_fit_leaves_no_files_and_no_data(make_config, tmp_path) -> None:
    config = make_config(
        training__batch_size=1 << 30, data__root=str(tmp_path / "data"), data__max_length=20
    )
    with pytest.raises(ConfigError, match="batch_size=1073741824 takes about"):
        train(config)
    assert not (tmp_path / "data").exists()


def test_the_estimate_uses_no_random_numbers() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    memory_of(config_of("tmaze", "--model.dropout=0.1"))
    assert torch.equal(torch.rand(2), wanted)


def test_the_memory_of_a_machine_and_of_a_container(monkeypatch, tmp_path) -> None:
    free = memory.available_memory()
    assert free is None or 1 << 20 < free < 1 << 60
    monkeypatch.setattr(memory, "_machine_memory", lambda: 100)
    monkeypatch.setattr(memory, "_container_memory", lambda: 70)
    assert memory.available_memory() == 70
    monkeypatch.setattr(memory, "_container_memory", lambda: None)
    assert data_device.free_memory(torch.device("cpu")) == 100
    monkeypatch.setattr(memory, "_machine_memory", lambda: None)
    assert data_device.free_memory(torch.device("cpu")) is None
