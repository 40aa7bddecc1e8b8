"""Atari's games."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.atari import LONGEST, Atari, AtariOptions, AtariVector, atari_spec
from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment, Length, VectorEnv

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """Atari; an expert plays Pong alone."""

    name = "atari"
    options = AtariOptions
    env = Atari
    needs = ("ale_py",)
    extra = "atari"
    num_envs = 16

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return atari_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.atari import AtariExpert

        return AtariExpert(noise)

    @property
    def no_expert(self) -> str:
        if self.settings.rom == "pong":
            return ""
        game = self.settings.game
        return f"No expert plays {game} here. Train on public data: --data data/dqn/{game}/1."

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        """The emulator has threads of its own."""
        longest = LONGEST if length is None else length
        return AtariVector(num_envs, self.settings, longest, self.workers)
