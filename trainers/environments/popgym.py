"""POPGym's 48 tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.popgym import Popgym, PopgymOptions, PopgymVector, popgym_spec
from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """POPGym; each task has an expert of its own."""

    name = "popgym"
    options = PopgymOptions
    env = Popgym
    vector = PopgymVector
    needs = ("popgym", "mazelib")
    extra = "popgym"
    keep_privileged_state = False

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return popgym_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.popgym import PopgymExpert

        return PopgymExpert(noise)
