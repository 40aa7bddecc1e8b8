"""Defaults of command lines that omit options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from datamodules import Episode, write_store
from datamodules.episodes import DatasetError
from datamodules.store import Store
from datamodules.trajectories import TrajectoryDataModule
from rate.envs.mujoco import MujocoOptions, mujoco_spec
from rate.envs.spec import EnvironmentSpec
from trainers.cli import Command, parse
from trainers.defaults import settings_of_store


def walker(options: dict[str, object]) -> EnvironmentSpec:
    spec = mujoco_spec(MujocoOptions("walker2d"))
    return EnvironmentSpec(spec.name, spec.observation_space, spec.action_space, 0.0, options)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of Walker2d, whose spaces are those of HalfCheetah."""
    steps = 40
    observations = np.zeros((steps, 17), dtype=np.float32)
    actions, rewards = np.zeros((steps, 6), dtype=np.float32), np.ones(steps)
    episode = Episode(observations, actions, rewards, terminated=False, truncated=True)
    options = {"task": "walker2d", "version": "v5", "score_100": 99.0, "score_0": None}
    write_store([episode], tmp_path / "walker", walker(options), {"source": "a test"})
    return tmp_path / "walker"


def of(*arguments: str) -> Command:
    return parse("mujoco", list(arguments))


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ([], "rate_quick"),
        (["--dataset", "hopper-expert-sac"], "rate_quick"),
        (["--env.task", "hopper"], "rate_quick"),
        (["--dataset", "hopper-expert-v2"], "rate"),
        (["--dataset", "mujoco/hopper/expert-v0"], "rate"),
        (["--env_id", "6"], "rate"),
        (["--model_mode", "DT"], "dt"),
        (["--model_mode", "RATE"], "rate"),
    ],
)
def test_a_small_model_is_the_default_for_collected_data(arguments: list[str], preset: str) -> None:
    assert of(*arguments).config.name == preset


def test_a_run_of_hours_on_a_cpu_is_reported() -> None:
    (note,) = of("--model_mode=DT", "--training.accelerator=cpu").notes
    assert note.startswith("128 million steps of data")
    assert note.endswith(
        "--training.accelerator gpu, or train a model for a CPU: --model_mode dt_quick."
    )
    short = of("--model_mode=DT", "--training.accelerator=cpu", "--training.max_steps=1000")
    assert short.notes == []
    assert of("--model_mode=DT", "--training.accelerator=gpu").notes == []


def test_a_store_names_its_environment(store: Path) -> None:
    command = of("--model_mode=DT_quick", f"--data.store={store}")
    assert command.config.env["task"] == "walker2d"
    assert (command.config.env["version"], command.config.env["score_100"]) == ("v5", 99.0)
    assert "env.task=walker2d, env.version=v5, env.score_100=99.0" in command.notes[0]
    said = of("--model_mode=DT_quick", f"--data.store={store}", "--env.version=v4")
    assert (said.config.env["task"], said.config.env["version"]) == ("walker2d", "v4")


def test_a_store_does_not_set_the_observations_of_a_model() -> None:
    spec = walker({"privileged": True, "random_length": True})
    assert settings_of_store("minigrid", spec) == {"random_length": True}


def test_a_store_of_another_environment_sets_nothing(store: Path) -> None:
    spec = Store.open(store).spec
    assert settings_of_store("popgym", spec) == {}  # though both have tasks
    assert settings_of_store("CartPole-v1", spec) == {}


def test_a_store_of_a_users_environment_sets_its_settings() -> None:
    spec = replace(walker({"size": 3}), name="their:Env")
    assert settings_of_store("their:Env", spec) == {"size": 3}


def test_data_of_another_task_with_the_same_spaces_are_refused(store: Path) -> None:
    wanted = walker({"task": "halfcheetah", "version": "v5"})
    with pytest.raises(DatasetError, match=r"the data are of walker2d, but env.task is halfcheeta"):
        TrajectoryDataModule(store, 2, 4, 1, seed=0, spec=wanted)
    TrajectoryDataModule(store, 2, 4, 1, seed=0, spec=walker({"task": "walker2d"}))
