"""The help text of training: all options with their descriptions and the preset's values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from rate.advice import in_clone
from trainers import flags
from trainers.config_files import config_from_dict, section_types
from trainers.options import options_of, show_option, show_options, summary, wrap
from trainers.preset_files import preset_names


def describe_options(environment: str, preset: dict[str, Any], whole: Mapping[str, str]) -> str:
    """Returns the help text of training in an environment.

    Args:
        environment: The environment.
        preset: The preset whose values are shown.
        whole: Options that are not settings, and their descriptions.
    """
    program = f"train_{environment}.py" if in_clone() else f"rate train {environment}"
    values = config_from_dict(preset).to_dict()
    lines = [
        f"usage: {program} [--model_mode MODEL] [--SECTION.OPTION VALUE ...]",
        "",
        wrap(
            f"Train a sequence model on {environment} and evaluate it by rollouts. Presets: "
            f"{', '.join(preset_names(environment))}. The defaults below are those of "
            f"'{preset['name']}'; those of another are shown by --model_mode MODEL --help."
        ),
        "",
        *show_option("-h, --help", "show this text"),
    ]
    for name, text in whole.items():
        lines += show_option(f"--{name} PATH", text)
    for section, kind in section_types(preset).items():
        if kind is not None and fields(kind):
            lines += ["", wrap(summary(kind)), *show_options(options_of(kind, section), values)]
    return "\n".join([*lines, "", flags.describe()])
