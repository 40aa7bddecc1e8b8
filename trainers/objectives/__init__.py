"""Learning rules: one file each, looked up by name or import path (`training.objective`).

PyTorch is imported when an objective is looked up, so that command lines are parsed quickly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.registry import Registry
from trainers import config_values as values
from trainers.config_learning import BEHAVIOUR_CLONING, LossConfig, ObjectiveConfig

if TYPE_CHECKING:
    from trainers.objectives.base import Objective

_HERE = "trainers.objectives"
_OWN = {
    "a2c": f"{_HERE}.a2c:A2C",
    BEHAVIOUR_CLONING: f"{_HERE}.behaviour_cloning:BehaviourCloning",
    "cql": f"{_HERE}.cql:CQL",
    "ddqn": f"{_HERE}.ddqn:DDQN",
    "iql": f"{_HERE}.iql:IQL",
    "r2d2": f"{_HERE}.r2d2:R2D2",
    "sac_discrete": f"{_HERE}.sac_discrete:SACDiscrete",
    "td3_bc": f"{_HERE}.td3_bc:TD3BC",
    "vtrace": f"{_HERE}.vtrace:VTrace",
}
# The settings of the project's own objectives, which do not import PyTorch.
_SETTINGS: dict[str, type[ObjectiveConfig]] = {
    "a2c": values.A2CConfig,
    BEHAVIOUR_CLONING: LossConfig,
    "cql": values.CQLConfig,
    "ddqn": values.QLearningConfig,
    "iql": values.IQLConfig,
    "r2d2": values.R2D2Config,
    "sac_discrete": values.SACDiscreteConfig,
    "td3_bc": values.TD3BCConfig,
    "vtrace": values.VTraceConfig,
}


def _is_objective(found: Any) -> bool:
    from trainers.objectives.base import Objective

    is_one = isinstance(found, type) and issubclass(found, Objective)
    return is_one and issubclass(found.settings, ObjectiveConfig)


OBJECTIVES: Registry[type[Objective]] = Registry(
    setting="training.objective",
    group="rate.objectives",
    own=_OWN,
    accepts=_is_objective,
    kind=f"a subclass of {_HERE}.base.Objective, whose settings are a dataclass that is a subclass "
    "of trainers.config_learning.ObjectiveConfig",
)


def objective_class(name: str) -> type[Objective]:
    """Returns the class of an objective.

    Args:
        name: Its registered name, or its import path `module:Attribute`.

    Raises:
        ConfigError: If there is none; see `Registry.get`.
    """
    return OBJECTIVES.get(name)


def objective_settings(name: str) -> type[ObjectiveConfig]:
    """Returns the dataclass of an objective's settings, the section `loss`.

    Raises:
        ConfigError: If there is no such objective.
    """
    return _SETTINGS[name] if name in _SETTINGS else objective_class(name).settings
