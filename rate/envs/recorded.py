"""The environment that a data set was recorded in, and how that of rollouts differs from it.

Minari stores it as the JSON of Gymnasium's `EnvSpec`. The file is not trusted: it is read as plain
values, and nothing that it names is imported or called. For MuJoCo's tasks and this package's
environments the settings are taken from it, so that rollouts use the same environment. Messages
state what differs.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

import gymnasium

from rate.envs.mujoco import PUBLISHED_LENGTH, TASKS, VERSIONS, MujocoOptions
from rate.envs.mujoco_arguments import (
    check_argument,
    constructor_arguments,
    plain,
    usual_arguments,
)
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.renamed import current_names, current_settings

# Arguments without effect on the data: of rendering and of `gymnasium.make`.
_NO_MATTER = {
    *("render_mode", "width", "height", "camera_id", "camera_name", "default_camera_config"),
    *("max_geom", "visual_options", "disable_env_checker", "apply_api_compatibility"),
    *("module", "name", "length"),  # of `rate.envs.from_settings`, beside the settings
}
# Wrappers that change neither observations, actions and rewards nor the ends of episodes.
_TRANSPARENT = {
    *("OrderEnforcing", "PassiveEnvChecker", "RecordEpisodeStatistics", "RecordVideo"),
    *("TimeLimit", "Autoreset", "HumanRendering", "RenderCollection", "DataCollector"),
    "ClipAction",  # actions of rollouts are within the bounds
}
_MUJOCO = re.compile(rf"({'|'.join(task.gym_name for task in TASKS.values())})-v(\d+)")
_OWN = "RATE/"
_LONGEST = 80


@dataclass(frozen=True)
class Recorded:
    """The environment that a data set was recorded in.

    Attributes:
        id: Gymnasium's id, for example `Hopper-v4`.
        arguments: Arguments of the constructor; plain JSON values.
        max_episode_steps: Time limit in steps; None if there is none.
        wrappers: Names of the wrappers.
        entry_point: Import path of the environment's code.
    """

    id: str
    arguments: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    wrappers: tuple[str, ...] = ()
    entry_point: str = ""

    @classmethod
    def parse(cls, text: str) -> Recorded | None:
        """Parses the JSON of an `EnvSpec`; returns None for any other text."""
        try:
            values = json.loads(text)
            wrappers = [str(item["name"]) for item in values.get("additional_wrappers") or ()]
            limit = values.get("max_episode_steps")
            return cls(
                id=str(values["id"]),
                arguments={str(k): plain(v) for k, v in (values.get("kwargs") or {}).items()},
                max_episode_steps=limit if type(limit) is int and limit > 0 else None,
                wrappers=tuple(wrappers),
                entry_point=str(values.get("entry_point") or ""),
            )
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            return None

    @property
    def task(self) -> str | None:
        """The name of the MuJoCo task, for example `hopper`; None for other environments."""
        found = _MUJOCO.fullmatch(self.id)
        return None if found is None else found.group(1).lower()

    @property
    def is_own(self) -> bool:
        """Whether `rate.envs.register` gave the id."""
        return self.id.startswith(_OWN)


def mujoco_settings(recorded: Recorded) -> dict[str, Any]:
    """Returns the settings of `MujocoOptions` that come closest to a recorded MuJoCo task."""
    task = recorded.task
    if task is None:
        raise ValueError(f"{recorded.id} is no task of MuJoCo")
    number = int(recorded.id.rpartition("-v")[2])
    version = min(VERSIONS, key=lambda known: abs(int(known[1:]) - number))
    usual, arguments = usual_arguments(task, version), {}
    for name, value in recorded.arguments.items():
        try:
            check_argument(task, version, name, value)
        except ConfigError:
            continue  # `differences` reports it
        if value != usual[name]:
            arguments[name] = value
    settings: dict[str, Any] = {"task": task, "version": version}
    if arguments:
        settings["arguments"] = arguments
    if recorded.max_episode_steps not in (None, PUBLISHED_LENGTH):
        settings["max_episode_steps"] = recorded.max_episode_steps
    return settings


def own_settings(recorded: Recorded) -> dict[str, Any]:
    """Returns the settings of an environment with an id of `rate.envs.register`."""
    settings = {k: v for k, v in recorded.arguments.items() if k not in _NO_MATTER}
    return current_settings("env", settings, current_names("env"))


def own_recorded(gym_id: str, settings: dict[str, Any]) -> str:
    """Returns the JSON for data that are recorded here under an id of `rate.envs.register`."""
    return _spec_json(gym_id, plain(settings))


def mujoco_recorded(options: MujocoOptions) -> str:
    """Returns the JSON for data that are recorded here in a MuJoCo task."""
    arguments = constructor_arguments(options.arguments)
    return _spec_json(options.gym_id, arguments, options.max_episode_steps)


def _spec_json(gym_id: str, arguments: dict[str, Any], limit: int | None = None) -> str:
    """Returns the JSON of a registered environment's `EnvSpec`, with arguments and a time limit."""
    spec = json.loads(gymnasium.spec(gym_id).to_json())
    spec["kwargs"] |= arguments
    spec["max_episode_steps"] = limit or spec["max_episode_steps"]
    return json.dumps(spec)


def differences(spec: EnvironmentSpec) -> list[str]:
    """Returns how the environment of rollouts differs from that of the data, one clause for each.

    Args:
        spec: The environment of rollouts; its `recorded` is that of the data.
    """
    recorded = Recorded.parse(spec.recorded)
    if recorded is None:
        return []
    options = _mujoco_options(spec)
    if options is not None:
        return _mujoco_differences(recorded, options)
    if recorded.is_own:
        return [
            f"the data were recorded with env.{name}={value}, but rollouts are made with "
            f"env.{name}={spec.options[name]}"
            for name, value in own_settings(recorded).items()
            if name != "privileged" and plain(spec.options.get(name, value)) != value
        ]
    return []


def about(spec: EnvironmentSpec) -> list[str]:
    """Returns the messages of a conversion on the environment of rollouts.

    They are its differences from the data's, an assumption, or settings other than the defaults.
    """
    recorded, options = Recorded.parse(spec.recorded), _mujoco_options(spec)
    if recorded is None:
        words = "the data do not say which environment they were recorded in; by their name"
        return [] if options is None else [f"{words} {options.gym_id} is assumed"]
    if recorded.task is not None and options is None:
        return [
            f"the data were recorded in {recorded.id}, but their spaces are not its: rollouts are "
            "not made in it"
        ]
    found = differences(spec)
    if found or options is None:
        return found
    if options.version == VERSIONS[-1] and not options.arguments:
        return []
    words = ", ".join(_setting(name, value) for name, value in options.arguments.items())
    words = f" with {words}" if words else ""
    return [f"the data were recorded in {recorded.id}{words}, and rollouts are made in it"]


def _mujoco_options(spec: EnvironmentSpec) -> MujocoOptions | None:
    """Returns the MuJoCo settings of a specification; None if it has none, or damaged ones."""
    task = spec.options.get("task")
    if not isinstance(task, str) or task not in TASKS:
        return None
    try:
        return MujocoOptions(**spec.options)
    except (TypeError, ConfigError):
        return None


def _setting(name: str, value: Any) -> str:
    """Returns `name=value` for messages, escaped and cut to `_LONGEST` characters."""
    text = f"{ascii(name)[1:-1]}={json.dumps(value)}"
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _mujoco_differences(recorded: Recorded, options: MujocoOptions) -> list[str]:
    found = []
    if recorded.id != options.gym_id:
        old = recorded.task == options.task and int(recorded.id.rpartition("-v")[2]) < 4
        reason = " (v2 and v3 need mujoco-py, which Gymnasium no longer has)" if old else ""
        found.append(
            f"the data were recorded in {recorded.id}, but rollouts are made in {options.gym_id}"
            f"{reason}: scores are not comparable with those of {recorded.id}"
        )
    if recorded.task != options.task:
        return found
    expected = "gymnasium.envs.mujoco." if "gymnasium" in recorded.entry_point else "gym.envs."
    if recorded.entry_point and not recorded.entry_point.startswith(expected):
        found.append(
            f"the data's {recorded.id} was made by {recorded.entry_point}, but rollouts are made "
            "in Gymnasium's own"
        )
    usual = usual_arguments(options.task, options.version)
    in_data = {k: v for k, v in recorded.arguments.items() if k not in _NO_MATTER}
    for name in sorted({*in_data, *options.arguments}):
        value = in_data.get(name, usual.get(name))
        in_rollouts = options.arguments.get(name, usual.get(name))
        if value != in_rollouts:
            made = (
                "do not have it" if in_rollouts is None else f"have {_setting(name, in_rollouts)}"
            )
            found.append(
                f"the data were recorded with {_setting(name, value)}, but rollouts {made}"
            )
    limit = options.max_episode_steps or PUBLISHED_LENGTH
    if (recorded.max_episode_steps or limit) != limit:
        found.append(
            f"the data's episodes end after {recorded.max_episode_steps} steps, but those of "
            f"rollouts after {limit}"
        )
    hidden = [name for name in recorded.wrappers if name not in _TRANSPARENT]
    if hidden:
        found.append(
            f"the data went through {', '.join(hidden)}, which rollouts do not: what is seen, done "
            "or earned there may be another"
        )
    return found
