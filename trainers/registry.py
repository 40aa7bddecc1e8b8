"""The registry of environments, and checks of a run against its environment.

Does not import PyTorch or a simulator, so that invalid command lines are reported quickly.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import gymnasium
from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec
from rate.envs.tasks import TASK_IDS, TASKS
from rate.errors import ConfigError
from rate.registry import Registry
from rate.spaces import differences
from trainers import environments, trust
from trainers.config import NO_ENVIRONMENT, RunConfig
from trainers.data_alone import DataAlone
from trainers.environment import Environment, Length
from trainers.own_environment import own_record
from trainers.task_record import task_record

ENVIRONMENTS = (*environments.NAMES, *TASKS)
"""The names of the project's own; the memory tasks of `rate.envs.tasks` come last."""

_VERSION = re.compile(r"-v\d+$")  # suffix of Gymnasium ids
_REGISTRY: Registry[Any] = Registry(
    setting="environment",
    group="rate.environments",
    own={name: f"{environments.__name__}.{name}:Record" for name in environments.NAMES} | TASKS,
    accepts=callable,
    kind="an environment's class, a function that returns one, or a subclass of "
    "trainers.environment.Environment",
)


def find_environment(name: str) -> type[Environment]:
    """Returns the record class of an environment, without instantiating the environment.

    Args:
        name: One of `ENVIRONMENTS`; one that a package registers under `rate.environments`; a
            Gymnasium id or an import path (see `rate.envs.own`), which is resolved once the
            settings are known; or `none`, for data alone.

    Raises:
        ConfigError: If the name is unknown; the message names the closest match. Or if the settings
            of a package's record have another name than `<Class>Options`.
    """
    if name == NO_ENVIRONMENT:
        return DataAlone
    if (task := short_name(name)) in TASKS:
        return task_record(task)
    if name not in ENVIRONMENTS and name not in (known := _REGISTRY.names()):
        if ":" in name or _VERSION.search(name) or name in gymnasium.registry:
            return own_record(name)
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(
            f"There is no environment '{name}'; {hint}There are: {', '.join(known)}; those of "
            "Gymnasium by their ids, like CartPole-v1; and your own by import path, module:Class."
        )
    found = _REGISTRY.get(name)
    if isinstance(found, type) and issubclass(found, Environment):
        found.check_options_name()
        return found
    return own_record(name, found)


def short_name(name: str) -> str:
    """Returns the short name of a memory task for its Gymnasium id; any other name as it is."""
    return TASK_IDS.get(name, name)


def length_name(name: str) -> str:
    """Returns the label of an environment's lengths, for tables and figures."""
    return find_environment(name).length_name if name in ENVIRONMENTS else Environment.length_name


def success_without_memory(name: str) -> float | None:
    """Returns the success rate of the best policy without memory in an environment, if known."""
    return find_environment(name).success_without_memory if name in ENVIRONMENTS else None


def get_environment(
    name: str,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
    frame_stack: int = 1,
) -> Environment:
    """Returns an environment with its settings; imports only the packages that it needs.

    Args:
        name: The name of the environment.
        options: Its settings; missing ones have their defaults.
        workers: Processes that step a simulator; see `EvaluationConfig`.
        frame_stack: Frames per observation of the model.

    Raises:
        ConfigError: If the name is unknown, a setting is invalid, or packages are missing; the
            message says how to install them.
    """
    return find_environment(name).make(options or {}, workers).stacking(frame_stack)


def environment_of(spec: EnvironmentSpec, workers: int | None = None) -> Environment:
    """Returns the environment that a saved model was trained for, with the model's target return.

    Raises:
        ConfigError: If it cannot be found, its spaces have changed, or it is untrusted code (see
            `trainers.trust`).
    """
    trust.require(spec.name, spec.options)
    found = get_environment(spec.name, spec.options, workers, spec.frame_stack)
    for name in ("observation_space", "action_space"):
        if changed := differences(getattr(found.spec, name), getattr(spec, name)):
            raise ConfigError(
                f"{spec.name} is another environment than this model was trained for: its {name} "
                f"has {'; '.join(changed)}. Bring that version of it back, or train again."
            )
    return replace(found, spec=spec)


def environment_of_run(config: RunConfig) -> Environment:
    """Returns the environment of a run.

    Raises:
        ConfigError: See `get_environment`.
    """
    count = config.data.frame_stack
    if config.environment == NO_ENVIRONMENT:
        for name in config.env:
            raise ConfigError(f"env.{name} is a setting of an environment, and there is none.")
        return DataAlone.of(config.data).stacking(count)
    return get_environment(config.environment, config.env, config.evaluation.workers, count)


def privileged_space(name: str, options: dict[str, Any]) -> spaces.Box:
    """Returns the space of an environment's privileged state.

    Raises:
        ConfigError: If it has no privileged state, or one without bounds.
    """
    settings = find_environment(name).options
    if settings is not None and "privileged" in {field.name for field in fields(settings)}:
        observation = get_environment(name, {**options, "privileged": True}).spec.observation_space
        found = observation["privileged"] if isinstance(observation, spaces.Dict) else None
        if isinstance(found, spaces.Box) and found.is_bounded():
            return found
    raise ConfigError(
        f"loss.auxiliary_state_weight is set, but {name} has no privileged state with bounds "
        "(env.privileged); set loss.auxiliary_state_weight=0."
    )


def check_run(config: RunConfig) -> None:
    """Check that the settings of a run are valid for its environment.

    Raises:
        ConfigError: If an episode length is invalid, no episode fills a window, data cannot be
            generated, or the loss needs a privileged state that the environment does not have.
    """
    if config.loss.wants_privileged_state:
        space = privileged_space(config.environment, config.env)
        parts, size = getattr(config.loss, "auxiliary_state_parts", None), math.prod(space.shape)
        if parts is not None and parts > size:
            raise ConfigError(
                f"loss.auxiliary_state_parts={parts}, but the privileged state of "
                f"{config.environment} has {size} parts; set it to at most that, or to null for "
                "all."
            )
    environment = environment_of_run(config)
    if not config.is_online:
        environment.check_data(config.data)
    config.loss.check_actions(config.training.objective, environment.spec.action_space)
    for name in ("lengths", "selection_lengths") if environment.rolls_out else ():
        check_lengths(environment, getattr(config.evaluation, name), f"evaluation.{name}")
    if config.is_online:
        check_lengths(environment, [config.data.max_length], "data.max_length")
    elif config.data.store is None:
        longest = check_lengths(environment, [config.max_length], "data.max_length")
        # If episodes can end early, the last of several segments need not be full.
        own_end = longest < config.max_length and config.training.segments > 1
        if environment.preset_base:  # a window holds a whole episode, and need not be full
            own_end = config.training.segments > 1
        spare = config.model.context_length - 1 if own_end else 0
        if longest < config.window - spare:
            raise ConfigError(
                f"data.max_length={config.max_length} is shorter than a training window of K * N = "
                f"{config.model.context_length} * {config.training.segments} = {config.window} "
                "steps: no episode would ever fill it. Lower model.context_length or "
                "training.segments, or raise data.max_length."
            )


def check_lengths(environment: Environment, lengths: Sequence[Length], name: str) -> int:
    """Check episode lengths before rollouts.

    Returns:
        The maximum number of steps over the lengths; 0 if there are none.

    Raises:
        ConfigError: If a length is invalid; the message names the setting `name`.
    """
    longest = 0
    for length in lengths:
        try:
            longest = max(longest, environment.steps_at(length))
        except ValueError as error:
            shown = "null" if length is None else length
            raise ConfigError(f"{name} has {shown}: {error}.") from error
    return longest
