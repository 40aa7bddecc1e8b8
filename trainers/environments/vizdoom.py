"""ViZDoom-Two-Colors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.spec import EnvironmentSpec
from rate.envs.two_colors import TwoColors, TwoColorsOptions, two_colors_spec
from trainers.environment import Environment

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """Two-Colors; its expert knows the colour and sees the map."""

    name = "vizdoom"
    options = TwoColorsOptions
    env = TwoColors
    needs = ("vizdoom",)
    extra = "vizdoom"
    num_envs = 32
    group = ("red", ("green", "red"))

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return two_colors_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.two_colors import TwoColorsExpert

        return TwoColorsExpert(noise)
