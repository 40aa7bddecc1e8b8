"""The Atari games."""

from __future__ import annotations

from rate.envs.atari import LONGEST, Atari, AtariOptions, AtariVector, atari_spec
from trainers.environment import Environment, Length, VectorEnv


class Record(Environment):
    """Atari; only Pong has an expert."""

    name = "atari"
    options = AtariOptions
    expert_class = "datamodules.atari:AtariExpert"
    spec_of = staticmethod(atari_spec)
    env = Atari
    needs = ("ale_py",)
    extra = "atari"
    num_envs = 16

    @property
    def no_expert(self) -> str:
        if self.settings.rom == "pong":
            return ""
        game = self.settings.game
        return f"No expert plays {game} here. Train on public data: --data data/dqn/{game}/1."

    def gap(self, length: Length) -> int:
        """Returns 1: a stack of frames holds nearly the whole state."""
        return 1

    def make_rows(self, num_envs: int, length: Length) -> VectorEnv:
        """Returns the emulator's own vector environment, which steps rows in threads."""
        longest = LONGEST if length is None else length
        return AtariVector(num_envs, self.settings, longest, self.workers)
