"""The environments that can be trained on, by name, and what a run needs of one.

Nothing here imports PyTorch or a simulator, so that a command line is refused at once.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import fields, replace
from pkgutil import iter_modules
from typing import Any

from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.registry import Registry
from trainers import environments
from trainers.config import RunConfig
from trainers.environment import Environment, Length

ENVIRONMENTS = tuple(sorted(module.name for module in iter_modules(environments.__path__)))
"""The names of the project's own."""

_REGISTRY: Registry[type[Environment]] = Registry(
    setting="environment",
    group="rate.environments",
    own={name: f"{environments.__name__}.{name}:Record" for name in ENVIRONMENTS},
    accepts=lambda found: isinstance(found, type) and issubclass(found, Environment),
    kind="a subclass of trainers.environment.Environment",
)


def find_environment(name: str) -> type[Environment]:
    """The record of an environment, before anything of it is made.

    Raises:
        ConfigError: If there is none of this name; names the nearest.
    """
    if name not in ENVIRONMENTS and ":" not in name and name not in (known := _REGISTRY.names()):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise ConfigError(f"There is no environment '{name}'; {hint}There are: {', '.join(known)}.")
    return _REGISTRY.get(name)


def length_name(name: str) -> str:
    """What a length is in an environment, for tables and figures."""
    return find_environment(name).length_name


def get_environment(
    name: str,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
    frame_stack: int = 1,
) -> Environment:
    """An environment with its settings; only its own packages are imported.

    Args:
        name: Its name.
        options: Its settings; what is left out has its default.
        workers: Processes that step a simulator; see `EvaluationConfig`.
        frame_stack: Frames that make one observation of what models see.

    Raises:
        ConfigError: If there is none of this name, a setting does not work, or its packages are
            not installed; says how to install them.
    """
    return find_environment(name).make(options or {}, workers).stacking(frame_stack)


def environment_of(spec: EnvironmentSpec, workers: int | None = None) -> Environment:
    """The environment that a saved model was trained for, with its own target."""
    return replace(get_environment(spec.name, spec.options, workers, spec.frame_stack), spec=spec)


def environment_of_run(config: RunConfig) -> Environment:
    """The environment of a run.

    Raises:
        ConfigError: See `get_environment`.
    """
    return get_environment(
        config.environment, config.env, config.evaluation.workers, config.data.frame_stack
    )


def hint_space(name: str, options: dict[str, Any]) -> spaces.Box:
    """The space of an environment's hidden state.

    Raises:
        ConfigError: If it does not say what its hidden state is, or between which bounds.
    """
    if "hint" in {field.name for field in fields(find_environment(name).options)}:
        observation = get_environment(name, {**options, "hint": True}).spec.observation_space
        hint = observation["hint"] if isinstance(observation, spaces.Dict) else None
        if isinstance(hint, spaces.Box) and hint.is_bounded():
            return hint
    raise ConfigError(
        f"loss.hint_weight is set, but {name} has no hidden state with bounds to be told "
        "(env.hint); set loss.hint_weight=0."
    )


def check_run(config: RunConfig) -> None:
    """Refuse a run whose environment cannot be as the settings say.

    Raises:
        ConfigError: If an episode length does not exist there, no episode fills a window, nothing
            here can play the data, or the loss asks for a hidden state that it does not tell.
    """
    if config.loss.hint_weight:
        hint_space(config.environment, config.env)
    environment = environment_of_run(config)
    for name in ("lengths", "selection_lengths"):
        check_lengths(environment, getattr(config.evaluation, name), f"evaluation.{name}")
    if config.data.store is None:
        if environment.no_expert and not config.data.random_policy:
            raise ConfigError(
                f"{environment.no_expert} Data made here are of a random policy, which teaches "
                "little; to train on them all the same: --data.random_policy true."
            )
        longest = check_lengths(environment, [config.max_length], "data.max_length")
        # Where episodes have an end of their own, the last of several segments need not be full.
        own_end = longest < config.max_length and config.training.segments > 1
        spare = config.model.context_length - 1 if own_end else 0
        if longest < config.window - spare:
            raise ConfigError(
                f"data.max_length={config.max_length} is shorter than a training window of K * N = "
                f"{config.model.context_length} * {config.training.segments} = {config.window} "
                "steps: no episode would ever fill it. Lower model.context_length or "
                "training.segments, or raise data.max_length."
            )


def check_lengths(environment: Environment, lengths: Sequence[Length], name: str) -> int:
    """Find a length that the environment does not have before anything is rolled out.

    Returns:
        The most steps that an episode of one of the lengths has, 0 if there are none.

    Raises:
        ConfigError: If there is one, saying so of the setting `name`.
    """
    longest = 0
    for length in lengths:
        try:
            longest = max(longest, environment.steps_at(length) or 0)
        except ValueError as error:
            raise ConfigError(f"{name} has {length}: {error}.") from error
    return longest
