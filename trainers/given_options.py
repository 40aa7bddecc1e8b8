"""The options on a command line, and their application to a preset."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from rate.architecture import config_class, owner_of
from rate.errors import ConfigError
from rate.renamed import renamed
from trainers.config import RunConfig
from trainers.config_files import config_from_dict, section_types, with_objective, with_source
from trainers.flag_table import FLAGS
from trainers.option_hints import hint_for
from trainers.options import Option, options_of, read_value, read_words, set_at
from trainers.preset_files import with_backbone

AUTO = "auto"
NOT_SETTINGS = {  # options that are not settings
    "config": "start from this file, or from the recipe of this name, not from a preset",
    "resume": "continue the run in this folder; auto continues the run of this command if there is "
    "one, starts it if not, and shows the scores of a finished one: the same command for a job "
    "that may be requeued",
}


@dataclass
class Given:
    """The options of a command line.

    Attributes:
        settings: Dotted names and the words of their values, in order.
        config: The value of `--config`.
        resume: The value of `--resume`.
        renamed: Former names among the options to their current names; filled by parsing.
    """

    settings: list[tuple[str, list[str]]] = field(default_factory=list)
    config: str | None = None
    resume: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, words: Sequence[str]) -> Given:
        given = cls()
        for name, value in read_words(words):
            if name in NOT_SETTINGS:
                setattr(given, name, read_value(name, str, value))
            else:
                given.settings.append((name, value))
        return given

    def text(self, name: str) -> str | None:
        """Returns the value of a text setting; None if it is not given."""
        values = [words for known, words in self.settings if known == name and words]
        return None if not values or values[-1] == ["null"] else values[-1][0]


def apply_options(preset: dict[str, Any], given: Given) -> RunConfig:
    """Returns the configuration of a preset with the options of a command line applied."""
    values = deepcopy(preset)
    # They determine which settings exist, and the defaults of others.
    chosen = ("model.backbone", "training.objective", "data.source")
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
            if name == "data.source":
                values = with_source(values, value)
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
    hint = hint_for(name, [*known, *FLAGS, *NOT_SETTINGS])
    return ConfigError(f"There is no option --{name}.{hint} --help lists them all.")
