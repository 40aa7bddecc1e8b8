"""ViZDoom-Two-Colors."""

from __future__ import annotations

from rate.envs.two_colors import TwoColors, TwoColorsOptions, two_colors_spec
from trainers.environment import Environment


class Record(Environment):
    """Two-Colors; its expert knows the colour and sees the map."""

    name = "vizdoom"
    options = TwoColorsOptions
    expert_class = "datamodules.two_colors:TwoColorsExpert"
    spec_of = staticmethod(two_colors_spec)
    env = TwoColors
    needs = ("vizdoom",)
    extra = "vizdoom"
    num_envs = 32
    group = ("red", ("green", "red"))
