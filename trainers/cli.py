"""The command line of the train scripts: presets, dotted options and short flags."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from rate.config import ConfigError, ModelConfig
from trainers import flags
from trainers.config import (
    CurriculumConfig,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    LossConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
    config_from_dict,
    load_config_file,
)

PRESETS = Path(__file__).parent / "presets"
SECTIONS: dict[str, type] = {
    "model": ModelConfig,
    "training": TrainingConfig,
    "optimizer": OptimizerConfig,
    "loss": LossConfig,
    "curriculum": CurriculumConfig,
    "data": DataConfig,
    "evaluation": EvaluationConfig,
    "logging": LoggingConfig,
}
USER_ERROR = 2  # exit code of everything that is the command's fault, as argparse has it


def preset_names(environment: str) -> list[str]:
    """The model presets of an environment."""
    return sorted(path.stem for path in (PRESETS / environment).glob("*.yaml"))


def load_preset(environment: str, name: str) -> dict[str, Any]:
    """A preset as nested plain types.

    Raises:
        ConfigError: If there is no such preset; names the nearest.
    """
    path = PRESETS / environment / f"{name}.yaml"
    if not path.is_file():
        known = preset_names(environment)
        raise ConfigError(
            f"There is no preset '{name}' for {environment}{nearest(name, known)}; "
            f"there are: {', '.join(known)}."
        )
    preset: dict[str, Any] = yaml.safe_load(path.read_text())
    return preset


def nearest(name: str, known: Sequence[str]) -> str:
    """`; did you mean ...?` where a known name is close, else nothing."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


class Parser(ArgumentParser):
    """A parser whose errors are one line, exit with 2 and name the nearest option."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        unknown = re.search(r"[Uu]nrecognized arguments: (--)?([^\s=]+)", message)
        hint = ""
        if unknown:
            options = [a.dest for a in self._actions if "." in a.dest] + list(flags.FLAGS)
            hint = nearest(unknown.group(2), options)
        fail(" ".join(message.split()) + hint)


def fail(message: str) -> NoReturn:
    """End the program because of something the user can mend."""
    print(f"error: {message}", file=sys.stderr)
    raise SystemExit(USER_ERROR)


@dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        config: The run, preset and options together.
        resume: The run's folder to continue, or None.
        notes: Short flags that were read in a way worth telling.
    """

    config: RunConfig
    resume: Path | None
    notes: list[str]


def parse(environment: str, argv: Sequence[str]) -> Command:
    """Read the command line of an environment's train script; exits with 2 where it is wrong."""
    try:
        translation = flags.translate(list(argv))
        preset = _base(environment, translation)
        arguments = make_parser(environment, preset).parse_args(translation.options)
        values = arguments.as_dict()
        config = config_from_dict(
            {
                "environment": environment,
                "name": preset["name"],
                **{section: values[section] for section in SECTIONS},
            }
        )
    except ConfigError as error:
        fail(str(error))
    resume = None if arguments.resume is None else Path(arguments.resume)
    return Command(config, resume, translation.notes)


def _base(environment: str, translation: flags.Translation) -> dict[str, Any]:
    """What the options change: a preset, or the file of `--config`, or the run of `--resume`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=str)
    parser.add_argument("--resume", type=str)
    known, _ = parser.parse_known_args(translation.options)
    if known.config is None and known.resume is None:
        return load_preset(environment, translation.preset)
    path = Path(known.config) if known.config else Path(known.resume) / "config.yaml"
    base = load_config_file(path)
    if base.environment != environment:
        raise ConfigError(f"{path} is of {base.environment}, not of {environment}.")
    return base.to_dict()


def make_parser(environment: str, preset: dict[str, Any]) -> Parser:
    """The parser of an environment's train script, with a preset's values as defaults."""
    parser = Parser(
        prog=f"train_{environment}.py",
        usage=f"train_{environment}.py [--model_mode MODEL] [--SECTION.OPTION VALUE ...]",
        description=f"Train a sequence model on {environment} and evaluate it by rollouts. "
        f"Presets: {', '.join(preset_names(environment))}. The defaults below are those of "
        f"'{preset['name']}'; those of another are shown by --model_mode MODEL --help.",
        epilog=flags.describe(),
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--config", metavar="FILE", help="start from this config.yaml, not a preset")
    parser.add_argument("--resume", metavar="RUN", help="continue the run in this folder")
    for section, kind in SECTIONS.items():
        parser.add_class_arguments(kind, section)
    parser.set_defaults(
        {
            f"{section}.{option}": value
            for section in SECTIONS
            for option, value in preset.get(section, {}).items()
        }
    )
    return parser


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the table of short flags apart."""
