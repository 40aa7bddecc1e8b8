"""The command line of the train scripts: presets, dotted options and short flags."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from rate.advice import command
from rate.config import ModelConfig
from rate.errors import ConfigError
from trainers import flags
from trainers.begun import with_own_paths
from trainers.config import (
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    Resume,
    RunConfig,
    TrainingConfig,
)
from trainers.config_files import config_from_dict, load_config_file
from trainers.config_learning import CurriculumConfig, LossConfig, OptimizerConfig
from trainers.defaults import (
    PRESET,
    default_preset,
    settings_of_dataset,
    settings_of_store,
    target_of_store,
    warn_of_work,
)
from trainers.naming import named_by_changes
from trainers.option_hints import hint_for
from trainers.preset_files import (
    PUBLISHED,
    describe_differences,
    load_over_preset,
    load_preset,
    preset_names,
)
from trainers.registry import check_run, find_environment
from trainers.tasks import merge, preset_for_task

AUTO = "auto"
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
LISTS = ("--evaluation.lengths", "--evaluation.selection_lengths")


class Parser(ArgumentParser):
    """A parser whose errors are a sentence about an option, raised as a `ConfigError`."""

    sections: dict[str, type] = SECTIONS

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        options = [a.dest for a in self._actions if "." in a.dest]
        types = {option: self._type_of(option) for option in options}
        raise ConfigError(_rephrase(" ".join(message.split()), types)) from None

    def _type_of(self, option: str) -> Any:
        """The type of a setting with a dotted name."""
        section, *names = option.split(".")
        kind: Any = self.sections[section]
        for name in names:
            kind = get_type_hints(kind)[name]
        return kind


def _rephrase(message: str, options: dict[str, Any]) -> str:
    """The words of jsonargparse for what is wrong, in the words of a command line."""
    if found := re.search(r"[Uu]nrecognized arguments: ([^\s=]+)", message):
        word = found.group(1)
        if not word.startswith("--"):
            return f"'{word}' belongs to no option. Options begin with --; --help lists them."
        hint = hint_for(word[2:], [*options, *flags.FLAGS, "config", "resume"])
        return f"There is no option {word}.{hint} --help lists them all."
    if found := re.search(r"argument (--[\w.]+)\S*: expected one argument", message):
        return f"{found.group(1)} needs a value."
    if found := re.search(r"key \"(\w+)\": Unable to load config", message):
        section = found.group(1)
        return _no_file(section)
    found = re.search(r"key \"([\w.]+)\": (?:.*(?:Got|Given) value: (.*)$)?", message)
    if found and found.group(1) in options:
        option, value = found.groups()
        got = "" if value is None else f", got '{value}'"
        return f"--{option}: expected {_describe(options[option])}{got}."
    return message


def _has_file(given: Any) -> bool:
    """Whether a section's settings were read from a file by jsonargparse, which would take all."""
    return isinstance(given, dict) and "__path__" in given


def _no_file(section: str) -> str:
    return (
        f"--{section} is a table of settings: for one of them write --{section}.NAME VALUE, and "
        "for a file of all settings --config FILE."
    )


def _describe(kind: Any) -> str:
    """What a setting of a type takes, for people."""
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) is list:
        return "whole numbers, like 90,900"
    if get_origin(kind) is dict:
        return "a table, like '{\"name\": 1}'"
    if type(None) in get_args(kind):
        (other,) = (part for part in get_args(kind) if part is not type(None))
        return f"{_describe(other)} or null"
    words = {int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(kind, "a text")


@dataclass(frozen=True)
class Command:
    """What a command line asks for.

    Attributes:
        config: The run, preset and options together.
        resume: The run's folder to continue; `auto` to continue or start; or None to start.
        notes: Short flags that were read in a way worth telling.
    """

    config: RunConfig
    resume: Resume
    notes: list[str]


def parse(environment: str, argv: Sequence[str]) -> Command:
    """Read the command line of an environment's train script.

    Raises:
        ConfigError: If it is wrong; the message names the option and the way out.
    """
    translation = flags.translate(list(argv))
    preset = _base(environment, translation)
    config, resume = _apply(environment, preset, translation)
    check_run(config)
    if resume is not None and resume != AUTO:
        resume = Path(resume)
    else:
        base = {name: preset[name] for name in ("env", *SECTIONS) if name in preset}
        config = named_by_changes(
            config, config_from_dict({**base, "environment": environment, "name": preset["name"]})
        )
    notes = [
        *translation.notes,
        *_public_note(environment, translation, config),
        *warn_of_work(config, preset_names(environment)),
    ]
    return Command(config, resume, notes)


def _apply(
    environment: str, preset: dict[str, Any], translation: flags.Translation
) -> tuple[RunConfig, Any]:
    """A preset with the options of a command line, and what that says of `--resume`."""
    options = _join_lists(translation.options)
    arguments = make_parser(environment, preset).parse_args(options)
    values = arguments.as_dict()
    for section in (name for name, given in values.items() if _has_file(given)):
        raise ConfigError(_no_file(section))
    sections = {section: values[section] for section in SECTIONS}
    config = config_from_dict(
        {
            "environment": environment,
            "name": preset["name"],
            "env": values.get("env", {}),
            **sections,
        }
    )
    return config, arguments.resume


def _public_note(environment: str, translation: flags.Translation, config: RunConfig) -> list[str]:
    """What a command of the public RATE code trains there, if that is something else than here."""
    known, own = preset_names(environment), f"{config.name}{PUBLISHED}"
    name = own if own in known else f"{PRESET}{PUBLISHED}"
    if not translation.is_public or name not in known or config.name.endswith(PUBLISHED):
        return []
    whose = "these are flags of the public RATE code"
    if name != own and config.name.startswith(flags.ONE_SEGMENT):
        return [f"{whose}. What it has for this model is not known; for its RATE: {name}."]
    words = [] if name == own else flags.without_parts(config.name)
    preset = preset_for_task(environment, load_preset(environment, name), config.env.get("task"))
    options = [*flags.translate(words).options, *translation.options]
    try:
        there, _ = _apply(environment, preset, replace(translation, options=options))
    except ConfigError:  # what goes with the model here need not go with the public one
        return [f"{whose}. For its own settings: --model_mode {' '.join([name, *words])}."]
    return [
        f"{whose}, whose newest scripts have {describe_differences(config, there)} (preset "
        f"{config.name}). For the public settings: --model_mode {' '.join([name, *words])}."
    ]


def _base(environment: str, translation: flags.Translation) -> dict[str, Any]:
    """What the options change: a preset, or the file of `--config`, or the run of `--resume`."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config", "--resume"):
        parser.add_argument(option, nargs="?")  # the parser proper asks for a missing value
    for option, name in (("env.task", "task"), ("env.game", "game"), ("data.store", "store")):
        parser.add_argument(f"--{option}", dest=name, nargs="?")
    parser.add_argument("--data.dataset", dest="dataset", nargs="?")
    parser.add_argument("--data.root", dest="root", nargs="?", default=DataConfig.root)
    known, _ = parser.parse_known_args(translation.options)
    if known.resume == AUTO:  # it has the settings of the command, whether it starts or goes on
        known.resume = None
    if known.config is None and known.resume is None:
        return _preset(environment, translation, known)
    if translation.preset:
        source = "--resume" if known.config is None else "--config"
        raise ConfigError(
            f"--model_mode chooses a preset, but {source} has all settings already. Leave one out."
        )
    path = Path(known.config) if known.config else Path(known.resume) / "config.yaml"
    if known.config is None and not path.is_file():
        raise ConfigError(
            f"{known.resume} holds no run: {path.name} is missing. Give --resume the folder of a "
            "run, for example runs/tmaze-rate-1, or --resume auto, which starts a run that is not "
            "there yet."
        )
    if known.config is not None:
        config, notes = load_over_preset(path, environment, PRESET, known.task)
        translation.notes += notes
        return config.to_dict()
    base = load_config_file(path)
    if base.environment != environment:
        raise ConfigError(
            f"{path} is of {base.environment}, not of {environment}; use: "
            f"{command('train', base.environment)}"
        )
    base, notes = with_own_paths(base, path.parent)
    translation.notes += notes
    return base.to_dict()


def _preset(
    environment: str, translation: flags.Translation, known: argparse.Namespace
) -> dict[str, Any]:
    """The preset that is named or goes with the data, for the task that is named or is theirs."""
    names, name = preset_names(environment), translation.preset
    if name is None:
        name = default_preset(names, known.store or known.dataset or known.game)
        if name != PRESET:
            published = f"--model_mode {PRESET.upper()} is the published model, for a GPU."
            translation.notes.append(f"the preset is {name}, small and for a CPU. {published}")
    told = settings_of_store(environment, known.store)
    if known.store is None:
        told = settings_of_dataset(environment, known.dataset, known.root or DataConfig.root)
    preset = load_preset(environment, name)
    preset = preset_for_task(environment, preset, known.task or told.get("task"))
    merge(preset, {"evaluation": target_of_store(environment, known.store)})
    usual = {**asdict(find_environment(environment).options()), **preset.get("env", {})}
    if unusual := [f"env.{name}={value}" for name, value in told.items() if value != usual[name]]:
        words = ", ".join(unusual)
        translation.notes.append(f"as in the data, unless you say otherwise: {words}.")
    return {**preset, "env": {**preset.get("env", {}), **told}}


def _join_lists(options: Sequence[str]) -> list[str]:
    """Write lists as the parser wants them, `[90,900]`, where they are `90 900` or `90,900`."""
    joined: list[str] = []
    rest = list(options)
    while rest:
        option, equals, value = rest.pop(0).partition("=")
        if option not in LISTS:
            joined.append(option + equals + value)
            continue
        words = [value] if equals else []
        while not equals and rest and not rest[0].startswith("--"):
            words.append(rest.pop(0))
        numbers = " ".join(words).strip("[] ").replace(",", " ").split()
        joined.append(f"{option}=[{','.join(numbers)}]" if words else option)
    return joined


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
    parser.add_argument("--config", metavar="FILE", help="start from this file, not a preset")
    parser.add_argument(
        "--resume",
        metavar="RUN",
        help="continue the run in this folder; auto continues the run of this command if there is "
        "one, starts it if not, and shows the scores of a finished one: the same command for a "
        "job that may be requeued",
    )
    kind = find_environment(environment).options
    parser.sections = {"env": kind, **SECTIONS} if fields(kind) else SECTIONS
    for section, kind in parser.sections.items():
        parser.add_class_arguments(kind, section)
    parser.set_defaults(
        {
            f"{section}.{option}": value
            for section in parser.sections
            for option, value in preset.get(section, {}).items()
        }
    )
    return parser


class HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of the table of short flags apart."""
