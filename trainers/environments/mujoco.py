"""MuJoCo's HalfCheetah, Hopper and Walker2d."""

from __future__ import annotations

from pathlib import Path

from rate.envs.mujoco import Mujoco, MujocoOptions, MujocoVector, mujoco_spec
from rate.progress import OnProgress
from trainers.config import DataConfig
from trainers.environment import Environment, Length


class Record(Environment):
    """MuJoCo tasks; data are public data sets, or come from an agent trained here."""

    name = "mujoco"
    options = MujocoOptions
    spec_of = staticmethod(mujoco_spec)
    env = Mujoco
    vector = MujocoVector
    needs = ("mujoco",)
    extra = "mujoco"
    num_envs = 20

    def gap(self, length: Length) -> int:
        """Returns 1: observations hold the whole state."""
        return 1

    def prepare_data(self, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        if data.expert is not None:
            return super().prepare_data(data, max_length, tell)
        from datamodules.mujoco import prepare_mujoco

        return prepare_mujoco(
            data.root,
            self.settings,
            data.dataset,
            num_episodes=data.num_episodes,
            seed=data.seed,
            agent_steps=data.agent_steps,
            on_progress=tell,
        )
