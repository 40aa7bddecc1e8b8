"""The Python API: an environment class and arrays become a run and a policy."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from rate.errors import ConfigError
from rate.weights import WeightsError
from trainers.api import Dataset, Run, train
from trainers.environment_objects import register_object

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "model.d_model": 16,
    "model.num_heads": 2,
    "training.batch_size": 4,
    "evaluation.episodes": 3,
    "evaluation.every_n_steps": 0,
    "logging.tensorboard": False,
}
STEPS = 6


class Recall(gym.Env[Any, Any]):
    """The last action has to repeat the first observation."""

    observation_space = gym.spaces.Box(-1, 1, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def __init__(self, steps: int = STEPS, title: str = "") -> None:
        self.steps, self.title = steps, title

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.clue, self.time = int(self.np_random.integers(2)), 0
        return np.array([2 * self.clue - 1, 0], np.float32), {}

    def step(self, action: Any) -> Any:
        self.time += 1
        ended = self.time == self.steps
        reward = float(ended and int(action) == self.clue)
        seen = np.array([0, self.time / self.steps], np.float32)
        return seen, reward, ended, False, {"success": reward} if ended else {}


def recalled(number: int = 60, steps: int = STEPS) -> list[dict[str, Any]]:
    """Returns episodes in which all actions but the last are random."""
    chance, episodes = np.random.default_rng(0), []
    for clue in np.arange(number) % 2:
        seen = np.zeros((steps, 2), np.float32)
        seen[0, 0], seen[:, 1] = 2 * clue - 1, np.arange(steps) / steps
        actions = chance.integers(2, size=steps)
        actions[-1] = clue
        ended = np.arange(steps) == steps - 1
        episodes.append(
            {"observations": seen, "actions": actions, "rewards": 1.0 * ended, "terminated": ended}
        )
    return episodes


def small(tmp_path: Path, **more: Any) -> dict[str, Any]:
    """Returns the arguments of a small run below a folder."""
    settings = {**SMALL, "data.root": str(tmp_path / "data"), **more.pop("settings", {})}
    known = {"steps": 3, "output": tmp_path / "runs", "progress": False, "settings": settings}
    return {**known, **more}


def test_a_class_and_arrays_become_a_run_whose_policy_remembers(tmp_path: Path) -> None:
    chosen = {"model.d_model": 32, "training.batch_size": 32, "loss.weighted_steps": "last"}
    given = small(tmp_path, steps=120, settings={**chosen, "optimizer.warmup_steps": 10})
    run = train(env=Recall, data=recalled(), model="rate", **given)
    assert run.folder.name.endswith("test_api-Recall-rate-1")
    assert run.config.model.context_length * run.config.training.segments == STEPS
    (row,) = run.evaluate(episodes=30)
    assert (row["episodes"], row["success"]) == (30, 1.0)

    policy, env = run.policy(num_envs=1), Recall()
    observation, _ = env.reset(seed=4)
    rewards = None
    for _ in range(STEPS):
        (action,) = policy.act(observation[None], rewards)
        observation, reward, *_ = env.step(action)
        rewards = np.array([reward])
    assert reward == 1.0


def test_settings_are_those_of_the_command_line(tmp_path: Path) -> None:
    settings = {"env.steps": 4, "env.title": "3", "evaluation.lengths": [4, 2]}
    given = small(tmp_path, seed=5, name="mine", settings=settings)
    run = train(Recall, recalled(steps=4), "dt", **given)
    config = run.config
    assert (config.training.seed, config.training.max_steps, config.name) == (5, 3, "dt")
    assert config.env == {"steps": 4, "title": "3"}  # a string stays a string
    assert run.folder.name.endswith("-mine-5")
    assert [row["length"] for row in run.scores] == [4, 2]
    assert run.environment().spec.options == config.env


def test_a_run_is_reopened_and_resumed(tmp_path: Path) -> None:
    data = Dataset.from_arrays(recalled(), tmp_path / "data")
    run = train(Recall, data, "rmt", **small(tmp_path))
    assert Run.open(str(run.folder)) == run
    assert train(Recall, data, "rmt", **small(tmp_path, resume=True)) == run  # the run has finished
    longer = train(Recall, data, "rmt", **small(tmp_path, resume=True, steps=5))
    assert longer == run
    assert longer.load().extra["step"] == 5
    with pytest.raises(ConfigError, match="no weights 'best'; it has last"):
        run.policy(which="best")
    with pytest.raises(WeightsError):
        Run.open(tmp_path)


def test_data_without_an_environment_train_a_policy(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "mine.npz",
        **{name: np.concatenate([part[name] for part in recalled()]) for name in recalled()[0]},
        truncated=np.zeros(60 * STEPS, bool),
    )
    run = train(data=tmp_path / "mine.npz", model="trxl", **small(tmp_path))
    assert run.folder.name == "mine.npz-trxl-1"
    assert run.policy(num_envs=3).act(np.zeros((3, 2), np.float32)).shape == (3,)
    with pytest.raises(ConfigError, match="trained on data alone"):
        run.evaluate()


def test_an_environment_of_the_project_makes_its_data(tmp_path: Path) -> None:
    settings = {"data.num_episodes": 20, "evaluation.lengths": [9]}
    run = train("tmaze", model="rmt", **small(tmp_path, settings=settings))
    assert (run.folder.name, run.config.environment) == ("tmaze-rmt-1", "tmaze")


def test_invalid_arguments_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"There is no option --model\.dmodel"):
        train(Recall, recalled(), settings={"model.dmodel": 3}, output=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="There is neither an environment nor data"):
        train(output=tmp_path, progress=False)
    with pytest.raises(ConfigError, match="env is Recall; it must be a name"):
        train(Recall(), recalled(), output=tmp_path)
    with pytest.raises(ConfigError, match="There is no preset 'rat'"):
        train(Recall, recalled(), "rat", output=tmp_path, progress=False)


def test_a_class_that_other_processes_cannot_import_is_warned_of() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert register_object("CartPole-v1") == "CartPole-v1"
        assert register_object(Recall).endswith("test_api:Recall")
    with pytest.warns(UserWarning, match=r"known to this process alone: .* top level"):
        assert register_object(lambda: Recall()).endswith(
            "test_api:"  # as much as it has of a name
            "test_a_class_that_other_processes_cannot_import_is_warned_of"
        )


SCRIPT = """\
import gymnasium as gym
import numpy as np

from trainers.api import train


class Masked(gym.ObservationWrapper):
    def __init__(self):
        super().__init__(gym.make("CartPole-v1"))
        self.observation_space = gym.spaces.Box(-5, 5, (2,), np.float32)

    def observation(self, observation):
        return observation[::2]


{guard}
    ones, many = np.ones(40), np.zeros((40, 2))
    data = {{"observations": many, "actions": np.arange(40) % 2, "rewards": ones,
            "episode": np.arange(40) // 10}}
    settings = {{"model.d_model": 16, "training.batch_size": 4, "evaluation.episodes": 2}}
    run = train(Masked, data, "rmt", steps=2, settings=settings)
    print(run.folder)
"""


GUARDED = 'if __name__ == "__main__":'


@pytest.mark.parametrize("guard", [pytest.param(GUARDED, marks=pytest.mark.long), "if True:"])
def test_the_run_of_a_script_is_evaluated_from_its_folder(guard: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(SCRIPT.format(guard=guard), encoding="utf-8")
    known = {**os.environ, "PYTHONPATH": str(ROOT)}
    how: dict[str, Any] = {"cwd": tmp_path, "env": known, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, "mine.py"], **how, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "runs/mine-Masked-rmt-1\n"
    is_advised = "an import of mine.py runs it again" in done.stderr
    assert is_advised == (guard == "if True:")
    if is_advised:
        return
    command = ["trainers.commands.main", "evaluate", "runs/mine-Masked-rmt-1", "--episodes=1"]
    done = subprocess.run([sys.executable, "-m", *command], **how, check=False)
    assert done.returncode == 0, done.stderr
    assert "Return by episode length" in done.stdout
