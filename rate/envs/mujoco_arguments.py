"""Arguments of Gymnasium's MuJoCo environments: names, defaults and checks.

Data sets state the arguments with which they were recorded. Files are not trusted: an argument must
have a known name and a plain value of the right type, and a robot's model must be Gymnasium's.
"""

from __future__ import annotations

import math
from typing import Any

from rate.errors import ConfigError

INFINITE = ("inf", "-inf")  # as text: JSON and settings have no infinite numbers
MOST_FRAMES = 1000
_ALL = {
    "forward_reward_weight": 1.0,
    "exclude_current_positions_from_observation": True,
}
_FALLING = {
    "ctrl_cost_weight": 1e-3,
    "healthy_reward": 1.0,
    "terminate_when_unhealthy": True,
    "reset_noise_scale": 5e-3,
}
# Arguments of all versions, with the defaults of the constructors.
_ARGUMENTS: dict[str, dict[str, Any]] = {
    "halfcheetah": {**_ALL, "ctrl_cost_weight": 0.1, "reset_noise_scale": 0.1},
    "hopper": {
        **_ALL,
        **_FALLING,
        "healthy_state_range": [-100.0, 100.0],
        "healthy_z_range": [0.7, "inf"],
        "healthy_angle_range": [-0.2, 0.2],
    },
    "walker2d": {
        **_ALL,
        **_FALLING,
        "healthy_z_range": [0.8, 2.0],
        "healthy_angle_range": [-1.0, 1.0],
    },
}
_SINCE_V5: dict[str, dict[str, Any]] = {
    "halfcheetah": {"xml_file": "half_cheetah.xml", "frame_skip": 5},
    "hopper": {"xml_file": "hopper.xml", "frame_skip": 4},
    "walker2d": {"xml_file": "walker2d_v5.xml", "frame_skip": 4},
}
# The model files that Gymnasium has of each robot.
MODELS = {
    "halfcheetah": ("half_cheetah.xml",),
    "hopper": ("hopper.xml",),
    "walker2d": ("walker2d.xml", "walker2d_v5.xml"),
}


def usual_arguments(task: str, version: str) -> dict[str, Any]:
    """Returns the arguments of a task's environment and their defaults."""
    return _ARGUMENTS[task] | ({} if version == "v4" else _SINCE_V5[task])


def plain(value: Any) -> Any:
    """Returns a value of Python or JSON in the form of settings: lists; infinities as text."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def check_argument(task: str, version: str, name: str, value: Any) -> None:
    """Checks the name and the value of an argument.

    Raises:
        ConfigError: If a task's environment has no such argument, or the value's type is wrong.
    """
    usual, place = usual_arguments(task, version), f"env.arguments {name}"
    if name not in usual:
        raise ConfigError(
            f"{place}: {task} {version} has no such argument; it has {', '.join(sorted(usual))}."
        )
    kind = usual[name]
    if isinstance(kind, str):
        right, expected = value in MODELS[task], f"one of Gymnasium's {', '.join(MODELS[task])}"
    elif isinstance(kind, bool):
        right, expected = isinstance(value, bool), "true or false"
    elif isinstance(kind, int):
        right = type(value) is int and 1 <= value <= MOST_FRAMES
        expected = f"a whole number from 1 to {MOST_FRAMES}"
    elif isinstance(kind, list):
        right = isinstance(value, list) and len(value) == 2 and all(map(_is_bound, value))
        expected = 'a list of two numbers ("-inf" and "inf" are possible)'
    else:
        right, expected = _is_number(value), "a finite number"
    if not right:
        raise ConfigError(f"{place} is {value!r}; it must be {expected}.")


def constructor_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns checked arguments in the form that the constructor takes: ranges are tuples."""
    return {
        name: tuple(map(float, value)) if isinstance(value, list) else value
        for name, value in arguments.items()
    }


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_bound(value: Any) -> bool:
    return value in INFINITE if isinstance(value, str) else _is_number(value)
