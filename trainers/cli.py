"""The command line of training: presets, dotted options and short flags become one configuration.

`flags` turns the field's short flags into dotted options, `options` reads those, and
`config_files` checks what comes of them, as it does for files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rate.advice import command
from rate.architecture import SEGMENTS, WINDOW, config_class, owner_of
from rate.errors import ConfigError
from rate.renamed import renamed
from rate.trust import remember_path
from trainers import flags, trust
from trainers.begun import with_own_paths
from trainers.config import DataConfig, Resume, RunConfig
from trainers.config_files import (
    config_from_dict,
    load_config_file,
    section_types,
    with_objective,
)
from trainers.data_sets import notes_of_data, store_of
from trainers.defaults import (
    PRESET,
    default_preset,
    settings_of_dataset,
    settings_of_store,
    target_of_store,
    warn_of_work,
)
from trainers.fit_to_data import fit_to_data
from trainers.help import describe_options
from trainers.naming import named_by_changes
from trainers.option_hints import hint_for
from trainers.options import Option, options_of, read_value, read_words, set_at
from trainers.own_environment import PYTHON
from trainers.preset_files import (
    PUBLISHED,
    describe_differences,
    has_own_presets,
    load_over_preset,
    load_preset,
    preset_names,
    with_backbone,
)
from trainers.registry import check_run, environment_of_run, find_environment
from trainers.tasks import merge, preset_for_task

AUTO = "auto"
_HELP = ("-h", "--help")
_WHOLE = {  # options that are no settings
    "config": "start from this file, not from a preset",
    "resume": "continue the run in this folder; auto continues the run of this command if there is "
    "one, starts it if not, and shows the scores of a finished one: the same command for a job "
    "that may be requeued",
}


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


@dataclass
class _Given:
    """The options of a command line.

    Attributes:
        settings: Dotted names and the words behind them, in their order.
        config: What `--config` names.
        resume: What `--resume` names.
        renamed: The former names among them, and their current ones, once they were read.
    """

    settings: list[tuple[str, list[str]]] = field(default_factory=list)
    config: str | None = None
    resume: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, words: Sequence[str]) -> _Given:
        given = cls()
        for name, value in read_words(words):
            if name in _WHOLE:
                setattr(given, name, read_value(name, str, value))
            else:
                given.settings.append((name, value))
        return given

    def text(self, name: str) -> str | None:
        """A setting that is a text, where it is given: what else a command means depends on it."""
        values = [words for known, words in self.settings if known == name and words]
        return None if not values or values[-1] == ["null"] else values[-1][0]


def parse(environment: str, argv: Sequence[str]) -> Command:
    """Read the command line of a training in an environment.

    Raises:
        ConfigError: If it is wrong; the message names the option and the way out.
        SystemExit: After the help, where it is asked for.
    """
    translation = flags.translate([word for word in argv if word not in _HELP])
    given = _Given.read(translation.options)
    for name in ("training.objective", "model.backbone", "model.tokenizer", "data.reading.format"):
        remember_path(given.text(name) or "")
    preset, notes = _base(environment, translation, given)
    if any(word in _HELP for word in argv):
        shown, _ = with_backbone(preset, given.text("model.backbone"))
        if (objective := given.text("training.objective")) is not None:
            shown = with_objective(shown, objective)
        sys.stdout.write(describe_options(environment, shown, _WHOLE) + "\n")
        raise SystemExit(0)
    config = _apply(preset, given)  # refuses what is wrong before data are looked at
    if config.data.store is not None and given.config is None and given.resume in (None, AUTO):
        preset, notes = _preset(environment, translation, given, config)
        config = _apply(preset, given)
    check_run(config)
    resume: Resume = None if given.resume is None else Path(given.resume)
    if given.resume == AUTO:
        resume = "auto"
    if not isinstance(resume, Path):
        config = named_by_changes(config, config_from_dict(preset))
    notes = [
        *with_backbone(preset, given.text("model.backbone"))[1],
        *(f"--{former} is now called --{name}." for former, name in given.renamed.items()),
        *translation.notes,
        *notes,
        *_public_note(environment, translation, given, config),
        *warn_of_work(config, preset_names(environment)),
    ]
    return Command(config, resume, notes)


def _apply(preset: dict[str, Any], given: _Given) -> RunConfig:
    """A preset with the options of a command line."""
    values = deepcopy(preset)
    chosen = ("model.backbone", "training.objective")  # whose values say which settings there are
    for name, words in sorted(given.settings, key=lambda each: each[0] not in chosen):
        sections = section_types(values)
        known = _known_options(sections)
        former = renamed(name, known)
        if former is not None:
            given.renamed[name] = name = former[0]
        section = name.partition(".")[0]
        if name in known:
            value = read_value(name, known[name].kind, words)
            if former is not None:
                value = former[1].value(value)
            if name == "model.backbone":
                values, _ = with_backbone(values, value)
            if name == "training.objective":
                values = with_objective(values, value)
            set_at(values, name, value)
        elif section != name and section in sections and sections[section] is None:
            set_at(values, name, read_value(name, object, words))
        else:
            raise _unknown(name, known, values.get("model", {}))
    return config_from_dict(values)


def _known_options(sections: dict[str, type | None]) -> dict[str, Option]:
    return {
        name: option
        for section, kind in sections.items()
        if kind is not None
        for name, option in options_of(kind, section).items()
    }


def _unknown(name: str, known: dict[str, Option], model: dict[str, Any]) -> ConfigError:
    if name in {option.partition(".")[0] for option in known}:
        return ConfigError(
            f"--{name} is a table of settings: for one of them write --{name}.NAME VALUE, and "
            "for a file of all settings --config FILE."
        )
    if owner := owner_of(name, config_class(model)):
        backbone = config_class(model).backbone
        return ConfigError(
            f"--{name} is a setting of the backbone {owner}; that of this model is {backbone}."
        )
    hint = hint_for(name, [*known, *flags.FLAGS, *_WHOLE])
    return ConfigError(f"There is no option --{name}.{hint} --help lists them all.")


def _public_note(
    environment: str, translation: flags.Translation, given: _Given, config: RunConfig
) -> list[str]:
    """What a command of the public RATE code trains there, if that is something else than here."""
    known, own = preset_names(environment), f"{config.name}{PUBLISHED}"
    name = own if own in known else f"{PRESET}{PUBLISHED}"
    if not translation.is_public or name not in known or config.name.endswith(PUBLISHED):
        return []
    if config.model.backbone not in (SEGMENTS, WINDOW):  # which the public code has not
        return []
    whose = "these are flags of the public RATE code"
    if name != own and config.name.startswith(flags.ONE_SEGMENT):
        return [f"{whose}. What it has for this model is not known; for its RATE: {name}."]
    words = [] if name == own else flags.without_parts(config.name)
    preset = preset_for_task(environment, load_preset(environment, name), config.env.get("task"))
    preset["environment"] = environment
    left_out = _Given.read(flags.translate(words).options).settings
    try:
        there = _apply(preset, replace(given, settings=[*left_out, *given.settings]))
    except ConfigError:  # what goes with the model here need not go with the public one
        return [f"{whose}. For its own settings: --model_mode {' '.join([name, *words])}."]
    return [
        f"{whose}, whose newest scripts have {describe_differences(config, there)} (preset "
        f"{config.name}). For the public settings: --model_mode {' '.join([name, *words])}."
    ]


def _base(
    environment: str, translation: flags.Translation, given: _Given
) -> tuple[dict[str, Any], list[str]]:
    """What the options change: a preset, or the file of `--config`, or the run of `--resume`.

    Returns:
        It, and what to tell of it.
    """
    resume = None if given.resume == AUTO else given.resume  # has the settings of the command
    if given.config is None and resume is None:
        return _preset(environment, translation, given)
    if translation.preset:
        source = "--resume" if given.config is None else "--config"
        raise ConfigError(
            f"--model chooses a preset, but {source} has all settings already. Leave one out."
        )
    if given.config is not None:
        path, task = Path(given.config), given.text("env.task")
        config, notes = load_over_preset(path, environment, PRESET, task)
        _require_typed(config, given)
        return config.to_dict(), notes
    path = Path(str(resume)) / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{resume} holds no run: {path.name} is missing. Give --resume the folder of a "
            "run, for example runs/tmaze-rate-1, or --resume auto, which starts a run that is not "
            "there yet."
        )
    base = load_config_file(path)
    if base.environment != environment:
        raise ConfigError(
            f"{path} is of {base.environment}, not of {environment}; use: "
            f"{command('train', base.environment)}"
        )
    base, notes = with_own_paths(base, path.parent)
    _require_typed(base, given)
    return base.to_dict(), notes


def _require_typed(config: RunConfig, given: _Given) -> None:
    """Refuse a file's Python for simulators, unless a person has named it, here or before."""
    python = config.env.get(PYTHON)
    if python is not None and given.text(f"env.{PYTHON}") is None:
        trust.require("", {PYTHON: python})


def _preset(
    environment: str, translation: flags.Translation, given: _Given, run: RunConfig | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The preset that is named or goes with the data, for the task that is named or is theirs.

    Args:
        environment: The environment.
        translation: The short flags.
        given: The options.
        run: What these come to without what its data say; None does not look at any data.

    Returns:
        The preset, and what to tell of it.
    """
    names, name, notes = preset_names(environment), translation.preset, []
    dataset, store = given.text("data.dataset"), None if run is None else store_of(run)
    if name is None:
        name = default_preset(names, given.text("data.store") or dataset or given.text("env.game"))
        if name != PRESET:
            published = f"--model_mode {PRESET.upper()} is the published model, for a GPU."
            notes.append(f"the preset is {name}, small and for a CPU. {published}")
    if store is not None:
        told = settings_of_store(environment, store.spec)
    else:
        told = settings_of_dataset(environment, dataset, given.text("data.root") or DataConfig.root)
    preset = load_preset(environment, name)
    preset = preset_for_task(environment, preset, given.text("env.task") or told.get("task"))
    if run is not None and store is not None:
        notes += notes_of_data(run, store)
        merge(preset, {"evaluation": target_of_store(environment, store)})
        if not has_own_presets(environment):
            preset = fit_to_data(preset, store, environment_of_run(run))
    settings = find_environment(environment).options
    usual = {**({} if settings is None else asdict(settings())), **preset.get("env", {})}
    if unusual := [f"env.{name}={value}" for name, value in told.items() if value != usual[name]]:
        words = ", ".join(unusual)
        notes.append(f"as in the data, unless you say otherwise: {words}.")
    env = {**preset.get("env", {}), **told}
    return {**preset, "environment": environment, "env": env}, notes
