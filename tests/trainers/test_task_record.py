"""Memory tasks in training: windows that hold an episode, data of the expert, scores."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from datamodules.oracle import OracleExpert
from datamodules.store import Store
from rate.envs.tasks import TASKS
from rate.envs.tasks.bsuite import MemoryLength
from trainers.cli import parse
from trainers.commands import collect, train
from trainers.config import RunConfig
from trainers.registry import check_run, find_environment, get_environment

SHORT = [
    *("--training.max_steps=2", "--training.batch_size=4", "--evaluation.every_n_steps=2"),
    *("--model.d_model=16", "--model.valve_heads=2", "--data.num_episodes=20"),
    *("--data.workers=1", "--evaluation.episodes=6", "--evaluation.selection_episodes=4"),
    *("--logging.progress=false", "--logging.tensorboard=false"),
]


def config_of(*options: str, task: str = "memory_length") -> RunConfig:
    return parse(task, options).config


def window(config: RunConfig) -> tuple[int | None, int, int]:
    return config.data.max_length, config.model.context_length, config.training.segments


def test_a_gymnasium_id_is_the_task() -> None:
    assert config_of(task="RATE/MemoryLength-v0") == config_of(task="memory_length")
    assert find_environment("RATE/MemoryLength-v0") is find_environment("memory_length")


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("model", ["rate", "dt", "gru", "mlp"])
def test_a_window_holds_a_whole_episode(task: str, model: str) -> None:
    config = config_of(f"--model={model}", task=task)
    environment = get_environment(task, config.env)
    _, steps, _ = environment.expert_episode(config.max_length)
    assert steps <= config.window < steps + config.model.context_length
    assert config.evaluation.lengths == config.evaluation.selection_lengths == [config.max_length]
    assert config.data.window == "start"
    check_run(config)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], (30, 11, 3)),  # 31 steps
        (["--data.max_length=89"], (89, 30, 3)),
        (["--model.context_length=10"], (30, 10, 4)),
        (["--training.segments=2"], (30, 16, 2)),
        (["--model.context_length=10", "--training.segments=2"], (19, 10, 2)),
        (
            ["--data.max_length=9", "--model.context_length=5", "--training.segments=2"],
            (9, 5, 2),
        ),
        (["--model=dt"], (30, 31, 1)),
        (["--data.max_length=1"], (1, 1, 2)),
    ],
)
def test_k_and_n_follow_from_the_length(options: list[str], expected: tuple[int, ...]) -> None:
    assert window(config_of(*options)) == expected


def test_the_target_return_is_the_experts_at_the_length() -> None:
    config = config_of("--data.max_length=12", task="endless_tmaze")
    assert (config.evaluation.target_return, config.model.return_scale) == (12, 12)
    assert config_of("--data.max_length=12").evaluation.target_return is None


def test_a_config_file_has_its_window_fitted(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("environment: memory_length\nname: rate\ndata: {max_length: 8}\n")
    assert window(config_of(f"--config={path}")) == (8, 3, 3)


def test_a_run_collects_trains_and_scores(tmp_path: Path, capsys: Any) -> None:
    folders = [f"--data.root={tmp_path / 'data'}", f"--logging.output={tmp_path / 'runs'}"]
    collect.main(["memory_size", *SHORT, *folders, "--data.max_length=3", "--env.num_bits=2"])
    assert "20 episodes, 80 steps" in capsys.readouterr().out
    (store,) = [path.parent for path in (tmp_path / "data").glob("*/manifest.json")]
    words = [*SHORT, *folders, "--data.max_length=3", "--env.num_bits=2"]
    train.train_on("RATE/MemorySize-v0", [*words, "--evaluation.lengths=3,9"])
    assert [path.parent for path in (tmp_path / "data").glob("*/manifest.json")] == [store]
    shown = capsys.readouterr().out
    assert "memory length" in shown
    assert "oracle" not in shown
    data = Store.open(store)
    assert data.arrays["rewards"].sum() == 20
    assert set(data.spec.observation_space) == {"vector", "privileged"}
    (folder,) = (tmp_path / "runs").glob("memory_size-rate-*")
    assert (folder / "evaluation.json").is_file()


def test_a_record_can_be_pickled() -> None:
    record = get_environment("memory_size", {"num_bits": 3})
    again = pickle.loads(pickle.dumps(record))
    assert again == record
    assert again.make_env(4).options.num_bits == 3


def test_the_experts_noise_is_a_share_of_its_steps() -> None:
    env, noisy, exact = MemoryLength(length=400), OracleExpert(0.5), OracleExpert()
    env.reset(seed=0, options={"context": [-1]})
    noisy.reset(env, 0)
    exact.reset(env, 0)
    actions = np.array([[noisy.act(), exact.act()] for _ in range(400)])
    assert actions[:, 1].sum() == 0
    assert 60 < actions[:, 0].sum() < 140
    noisy.reset(env, 0)
    assert [noisy.act() for _ in range(400)] == actions[:, 0].tolist()


def test_data_of_key_to_door_are_of_mixed_quality() -> None:
    config = config_of(task="key_to_door")
    assert config.data.noise == 0.75
    record = get_environment("key_to_door", {"distractor": 2})
    mixed, alone = (record.make_collector("expert", 2, noise) for noise in (config.data.noise, 0))
    episodes = [mixed.collect(seed) for seed in range(60)]
    success = np.mean([episode.outcome["success"] for episode in episodes])
    assert 0.15 < success < 0.5
    assert np.std([episode.rewards[15:17].sum() for episode in episodes]) < 1  # apples alike
    assert all(alone.collect(seed).outcome["success"] for seed in range(10))
    with pytest.raises(TypeError, match="the expert plays Key-to-Door, not MemoryLength"):
        record.expert(0.5).reset(MemoryLength(), 0)


def test_the_window_of_color_cubes_holds_what_an_expert_needs() -> None:
    config = config_of("--env.difficulty=trivial", task="color_cubes")
    assert config.max_length == 16  # the limit of steps
    assert config.window < 8 + config.model.context_length
