"""The command line of training: combines a preset, dotted options and short flags.

`flags` translates short flags to dotted options, `options` parses these, and `config_files`
validates the resulting configuration, as it does for files.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rate.architecture import SEGMENTS, WINDOW
from rate.errors import ConfigError
from rate.trust import remember_path
from trainers import flags
from trainers.config import Resume, RunConfig
from trainers.config_files import (
    config_from_dict,
    with_objective,
)
from trainers.defaults import (
    PRESET,
    warn_of_work,
)
from trainers.flag_table import Translation
from trainers.given_options import AUTO, NOT_SETTINGS, Given, apply_options
from trainers.help import describe_options
from trainers.naming import named_by_changes
from trainers.preset_files import (
    PUBLISHED,
    describe_differences,
    load_preset,
    preset_names,
    with_backbone,
)
from trainers.registry import check_run, short_name
from trainers.starting_point import choose_preset, is_fitted_to_own_data, starting_point
from trainers.tasks import preset_for_task

_HELP = ("-h", "--help")


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
        config: The configuration: the preset with the options applied.
        resume: The folder of the run to continue; `auto` to continue a run if it exists; None to
            start a new run.
        notes: Notes for the user, for example on translated flags and renamed options.
    """

    config: RunConfig
    resume: Resume
    notes: list[str]


# Settings whose value may be the import path of user code.
CODE = (
    *("model.backbone", "model.tokenizer", "training.objective"),
    *("data.reading.format", "data.expert"),
)


def parse(environment: str, argv: Sequence[str]) -> Command:
    """Parse the command line of a training run in an environment.

    Raises:
        ConfigError: If an option is invalid; the message names the option and the remedy.
        SystemExit: After printing the help, with `-h` or `--help`.
    """
    environment = short_name(environment)
    translation = flags.translate([word for word in argv if word not in _HELP])
    given = Given.read(translation.options)
    for name in CODE:
        remember_path(given.text(name) or "")
    preset, notes = starting_point(environment, translation, given)
    if any(word in _HELP for word in argv):
        shown, _ = with_backbone(preset, given.text("model.backbone"))
        if (objective := given.text("training.objective")) is not None:
            shown = with_objective(shown, objective)
        sys.stdout.write(describe_options(environment, shown, NOT_SETTINGS) + "\n")
        raise SystemExit(0)
    config = apply_options(preset, given)  # reports invalid options before data are opened
    has_data = config.data.store is not None or is_fitted_to_own_data(config)
    if has_data and given.config is None and given.resume in (None, AUTO):
        preset, notes = choose_preset(environment, translation, given, config)
        config = apply_options(preset, given)
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


def _public_note(
    environment: str, translation: Translation, given: Given, config: RunConfig
) -> list[str]:
    """Returns a note if the public RATE code trains a different model with this command."""
    known, own = preset_names(environment), f"{config.name}{PUBLISHED}"
    name = own if own in known else f"{PRESET}{PUBLISHED}"
    if not translation.is_public or name not in known or config.name.endswith(PUBLISHED):
        return []
    if config.model.backbone not in (SEGMENTS, WINDOW):  # not in the public code
        return []
    whose = "these are flags of the public RATE code"
    if name != own and config.name.startswith(flags.ONE_SEGMENT):
        return [f"{whose}. What it has for this model is not known; for its RATE: {name}."]
    words = [] if name == own else flags.without_parts(config.name)
    preset = preset_for_task(environment, load_preset(environment, name), config.env.get("task"))
    preset["environment"] = environment
    left_out = Given.read(flags.translate(words).options).settings
    try:
        there = apply_options(preset, replace(given, settings=[*left_out, *given.settings]))
    except ConfigError:  # an option of this model may not exist in the public one
        return [f"{whose}. For its own settings: --model_mode {' '.join([name, *words])}."]
    return [
        f"{whose}, whose newest scripts have {describe_differences(config, there)} (preset "
        f"{config.name}). For the public settings: --model_mode {' '.join([name, *words])}."
    ]
