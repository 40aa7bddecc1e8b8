"""Fields of dataclasses as options: names, values and help."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from rate.errors import ConfigError
from trainers.options import options_of, read_value, read_words, set_at, show_options


@dataclass
class Inner:
    """What is inside.

    Args:
        rate: How fast, in metres: per
            second, or `fast`.
    """

    rate: float = 1.0


@dataclass
class Base:
    """The base.

    Attributes:
        width: Of everything.
        height: Of nothing.
    """

    width: int = 1
    height: int | None = None


@dataclass
class Derived(Base):
    """A derived one.

    Attributes:
        height: Of this.
        kind: What it is.

    More of it, kind: is not told of.
    """

    kind: Literal["a", "b"] = "a"
    inner: Inner = field(default_factory=Inner)


def test_options_are_the_fields_of_all_classes_with_their_help() -> None:
    found = options_of(Derived, "x")
    assert {name: option.help for name, option in found.items()} == {
        "x.width": "Of everything.",
        "x.height": "Of this.",
        "x.kind": "What it is.",
        "x.inner.rate": "How fast, in metres: per second, or `fast`.",
    }


def test_help_has_choices_and_defaults() -> None:
    table: dict[str, Any] = {"x": {"width": 3, "height": None, "inner": {"rate": 0.5}}}
    text = " ".join(" ".join(show_options(options_of(Derived, "x"), table)).split())
    assert "--x.width N Of everything. (default: 3)" in text
    assert "--x.height N|null Of this. (default: null)" in text
    assert "--x.kind {a,b} What it is." in text
    assert "--x.inner.rate X How fast, in metres: per second, or `fast`. (default: 0.5)" in text


def test_words_are_values_of_the_option_before_them() -> None:
    words = ["--a", "1", "--b=2", "--c", "x", "y", "--d", "-5", "--e", "--f="]
    assert read_words(words) == [
        *(("a", ["1"]), ("b", ["2"]), ("c", ["x", "y"]), ("d", ["-5"]), ("e", []), ("f", [""])),
    ]
    for stray in (["x"], ["-x"], ["--a=1", "x"]):
        with pytest.raises(ConfigError, match=f"'{stray[-1]}' belongs to no option"):
            read_words(stray)


@pytest.mark.parametrize(
    ("kind", "words", "value"),
    [
        (int, ["-5"], -5),
        (float, ["1e-3"], "1e-3"),  # an integer in YAML; floats accept it
        (float, ["3"], 3),
        (bool, ["True"], True),
        (str, ["null"], "null"),
        (str, ["1"], "1"),
        (str | None, ["null"], None),
        (str | None, ["true"], "true"),
        (int | None, ["null"], None),
        (int | None, ["x"], "x"),
        (Literal["none", "1"], ["1"], "1"),
        (list[int], ["[9,", "10]"], [9, 10]),
        (list[int], ["9", "10"], [9, 10]),
        (list[int], ["9,10"], [9, 10]),
        (list[float] | None, ["-1", "0.5"], [-1, 0.5]),
        (list[int], ["[]"], []),
        (dict[str, Any], ["{a: [1, x]}"], {"a": [1, "x"]}),
        (object, ["[1,", "2]"], [1, 2]),
        (object, ["text"], "text"),
    ],
)
def test_a_value_is_parsed_by_its_type(kind: Any, words: list[str], value: Any) -> None:
    assert read_value("x", kind, words) == value
    assert type(read_value("x", kind, words)) is type(value)


def test_an_option_has_one_value() -> None:
    with pytest.raises(ConfigError, match="--x needs a value"):
        read_value("x", int, [])
    with pytest.raises(ConfigError, match="'4' belongs to no option"):
        read_value("x", int, ["3", "4"])
    with pytest.raises(ConfigError, match="--x: a is said twice"):
        read_value("x", dict[str, Any], ["{a: 1, a: 2}"])


def test_a_dotted_name_is_set_in_nested_tables() -> None:
    inner = {"b": 1}
    table: dict[str, Any] = {"a": inner, "d": 3}
    set_at(table, "a.c.e", 2)
    set_at(table, "f.g", 4)
    assert table == {"a": {"b": 1, "c": {"e": 2}}, "d": 3, "f": {"g": 4}}
    assert inner == {"b": 1}
