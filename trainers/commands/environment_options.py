"""`--env` and `--env.SETTING`: overrides of a saved model's environment in rollouts."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.trust import remember_path
from trainers import trust
from trainers.options import read_value, read_words

_PREFIX = "env."
_MODEL_CODE = ("backbone", "tokenizer")


def add_environment_option(parser: argparse.ArgumentParser) -> None:
    """Add `--env`, and the options that allow code of a saved model."""
    parser.add_argument(
        "--env",
        metavar="ENVIRONMENT",
        help="play in this one, not in the model's own; its settings are --env.NAME VALUE",
    )
    for name in _MODEL_CODE:
        parser.add_argument(
            f"--model.{name}",
            metavar="MODULE:CLASS",
            help=f"let a saved model use this {name}, which is code that came with it",
        )


def parse_with_settings(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None
) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Returns the options of a command, and the environment settings on its command line.

    Raises:
        ConfigError: If a setting has no value.
        SystemExit: If an option is unknown.
    """
    options, rest = parser.parse_known_args(arguments)
    if any(word.startswith("--") and not word.startswith(f"--{_PREFIX}") for word in rest):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    for name in _MODEL_CODE:
        remember_path(getattr(options, f"model.{name}") or "")
    return options, environment_settings(rest)


def environment_settings(words: Sequence[str]) -> dict[str, Any]:
    """Returns the settings in the words `--env.NAME VALUE`.

    Raises:
        ConfigError: If there are other options, or a setting has no value.
    """
    given = read_words(words)
    for name, _ in given:
        if not name.startswith(_PREFIX):
            raise ConfigError(f"There is no option --{name}; settings are --{_PREFIX}NAME VALUE.")
    return {name.removeprefix(_PREFIX): read_value(name, object, values) for name, values in given}


def playing_in(
    spec: EnvironmentSpec, name: str | None, settings: dict[str, Any]
) -> EnvironmentSpec:
    """Returns the environment to roll out a saved model in.

    Args:
        spec: The environment that the model was trained for.
        name: The name of an environment; None is that of `spec`.
        settings: Settings of the environment. If the name is that of `spec`, settings that are
            not given are those of `spec`.
    """
    if name is None and not settings:
        return spec
    typed = {key: value for key, value in settings.items() if key == "python"}
    trust.remember("" if name is None else name, typed)
    options = spec.options if name in (None, spec.name) else {}
    return replace(spec, name=name or spec.name, options={**options, **settings})
