"""The 48 tasks of POPGym."""

from __future__ import annotations

from rate.envs.popgym import Popgym, PopgymOptions, PopgymVector, popgym_spec
from trainers.environment import Environment


class Record(Environment):
    """POPGym; each task has an expert of its own."""

    name = "popgym"
    options = PopgymOptions
    expert_class = "datamodules.popgym:PopgymExpert"
    spec_of = staticmethod(popgym_spec)
    env = Popgym
    vector = PopgymVector
    needs = ("popgym", "mazelib")
    extra = "popgym"
    keep_privileged_state = False
