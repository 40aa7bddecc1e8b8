"""Command-line options, `--section.setting VALUE`, for the fields of dataclasses.

The name and the type of a field determine its option; its entry under `Attributes:` in the
docstring is the help text. Values are validated like those of files (`trainers.config_files`).
"""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from types import NoneType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from rate.errors import ConfigError
from trainers.yaml_files import parse_yaml

_INDENT = 24  # column of the help texts
_WIDEST = 100
_ANY: Any = object


@dataclass(frozen=True)
class Option:
    """A command-line option.

    Attributes:
        kind: The annotated type of its setting.
        help: Its help text.
    """

    kind: Any
    help: str


@cache
def options_of(kind: type, prefix: str) -> Mapping[str, Option]:
    """Returns the options of a dataclass and of nested dataclasses, by dotted name."""
    types, descriptions = get_type_hints(kind), _documentation(kind)
    found: dict[str, Option] = {}
    for field in fields(kind):
        name, inner = f"{prefix}.{field.name}", types[field.name]
        if is_dataclass(inner) and isinstance(inner, type):
            found |= options_of(inner, name)
        else:
            found[name] = Option(inner, descriptions.get(field.name, ""))
    return found


def read_words(words: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Returns the options on a command line, each with the words of its value.

    Raises:
        ConfigError: If a word does not belong to an option.
    """
    given: list[tuple[str, list[str]]] = []
    takes_more = False
    for word in words:
        name, equals, value = word[2:].partition("=")
        if word.startswith("--"):
            given.append((name, [value] if equals else []))
            takes_more = not equals
        elif takes_more:
            given[-1][1].append(word)
        else:
            raise _without_option(word)
    return given


def read_value(option: str, kind: Any, words: Sequence[str]) -> Any:
    """Returns the value of an option as plain types.

    A value of a wrong type is returned unchanged; validation reports it later.

    Raises:
        ConfigError: If there is no value, or more than one.
    """
    if not words:
        raise ConfigError(f"--{option} needs a value.")
    kinds = get_args(kind) if _is_union(kind) else (kind,)
    if len(kinds) == 2 and NoneType in kinds and list(words) == ["null"]:
        return None
    (plain, *_) = [each for each in kinds if each is not NoneType]
    if get_origin(plain) is list:
        items = " ".join(words).strip("[] ").replace(",", " ").split()
        return [read_value(option, get_args(plain)[0], [item]) for item in items]
    if len(words) > 1 and plain is not _ANY:
        raise _without_option(words[1])
    text = " ".join(words)
    if plain is str or get_origin(plain) is Literal:
        return text
    if plain not in (int, float, bool):
        return parse_yaml(text, f"--{option}")
    with suppress(yaml.YAMLError, ValueError):
        return yaml.safe_load(text)
    return text


def show_options(options: Mapping[str, Option], defaults: Mapping[str, Any]) -> list[str]:
    """Returns the lines of the help text of options, with their default values."""
    return [
        line
        for name, option in options.items()
        for line in show_option(
            f"--{name} {placeholder(option.kind)}",
            f"{option.help} (default: {plain_text(_value_at(defaults, name))})",
        )
    ]


def show_option(option: str, text: str) -> list[str]:
    """Returns an option and its help text, as lines that fit the terminal."""
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    lines = textwrap.wrap(text.strip(), max(width - _INDENT, 20), break_on_hyphens=False) or [""]
    head = f"  {option}"
    if len(head) >= _INDENT:
        return [head, *(" " * _INDENT + line for line in lines)]
    return [f"{head:<{_INDENT}}{lines[0]}", *(" " * _INDENT + line for line in lines[1:])]


def wrap(text: str) -> str:
    """Returns a paragraph wrapped to the terminal's width."""
    return textwrap.fill(text, max(min(shutil.get_terminal_size().columns, _WIDEST), 40))


def summary(kind: type) -> str:
    """Returns the first paragraph of a class's docstring, on one line."""
    return " ".join((kind.__doc__ or "").strip().partition("\n\n")[0].split())


def set_at(table: dict[str, Any], name: str, value: Any) -> None:
    """Set a dotted name in nested tables; missing tables are created."""
    *sections, last = name.split(".")
    for section in sections:
        inner = table.get(section)
        table[section] = dict(inner) if isinstance(inner, Mapping) else {}
        table = table[section]
    table[last] = value


def _without_option(word: str) -> ConfigError:
    return ConfigError(f"'{word}' belongs to no option. Options begin with --; --help lists them.")


def _value_at(table: Mapping[str, Any], name: str) -> Any:
    value: Any = table
    for part in name.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def plain_text(value: Any) -> str:
    """Returns a value in the syntax of the command line."""
    if isinstance(value, list):
        return ",".join(map(plain_text, value)) or "[]"
    words = {None: "null", True: "true", False: "false", "": "''"}
    return words[value] if isinstance(value, (bool, NoneType)) or value == "" else str(value)


def placeholder(kind: Any) -> str:
    """Returns the placeholder for the value of an option in its help text."""
    if _is_union(kind):
        return "|".join(
            "null" if part is NoneType else placeholder(part) for part in get_args(kind)
        )
    if get_origin(kind) is Literal:
        return f"{{{','.join(map(str, get_args(kind)))}}}"
    if get_origin(kind) is list:
        return f"{placeholder(get_args(kind)[0])},..."
    words = {bool: "{true,false}", int: "N", float: "X", str: "TEXT"}
    return words.get(kind, "TABLE" if get_origin(kind) is dict else "VALUE")


def _is_union(kind: Any) -> bool:
    return NoneType in get_args(kind) and get_origin(kind) is not Literal


def _documentation(kind: type) -> dict[str, str]:
    """Returns the descriptions of fields in the docstrings of a dataclass and its bases."""
    descriptions: dict[str, str] = {}
    for part in reversed(kind.__mro__):
        descriptions |= _attributes((part.__doc__ or "").splitlines())
    return descriptions


def _attributes(lines: Iterable[str]) -> dict[str, str]:
    descriptions: dict[str, list[str]] = {}
    indent, name = None, ""
    for line in lines:
        depth = len(line) - len(line.lstrip())
        if line.strip() in ("Attributes:", "Args:"):
            indent = depth
        elif indent is not None and line.strip() and depth <= indent:
            indent = None
        elif indent is not None and (found := re.fullmatch(r"\s+(\w+): (.*)", line)):
            if depth == indent + 4:
                name = found[1]
                descriptions[name] = [found[2]]
            else:
                descriptions[name].append(line)
        elif indent is not None and name:
            descriptions[name].append(line)
    return {name: " ".join(" ".join(text).split()) for name, text in descriptions.items()}
