"""Errors in YAML files of users, for every kind of file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from rate.errors import ConfigError
from scripts.benchmark import _setting
from tests.trainers.conftest import MakeConfig
from trainers.cli import parse
from trainers.commands.study_file import load_study
from trainers.config_files import load_config_file
from trainers.preset_files import PRESETS, load_preset
from trainers.wandb_run import wandb_settings
from trainers.yaml_files import parse_yaml, read_yaml

BOMB = "b0: &b0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"b{i}: &b{i} [{', '.join([f'*b{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
WRONG = {
    "twice": ("a: 1\nb: 2\na: 1\n", r"a is said twice, in line 1 as well \(line 3\)"),
    "twice below": ("m:\n  x: 1\n  x: 2\n", "m.x is said twice, in line 2 as well"),
    "twice in a list": ("- {x: 1, 'x': 2}\n", r"\[0\].x is said twice"),
    "a number twice": ("1: a\n0x1: b\n", "1 is said twice"),
    "infinite": ("a:\n  b: .inf\n", r"a.b is inf; it must be a finite number \(line 2\)"),
    "minus infinite": ("a: -.INF\n", r"a is -inf"),
    "no number": ("a: [1.0, .nan]\n", r"a\[1\] is nan"),
    "too large": ("a: 1.0e+999\n", r"a is inf"),
    "bomb": (BOMB, r"b4 unfolds to more than 10,000 values"),
    "itself": ("a: &x\n  b: *x\n", r"a\.b has itself in it"),
    "twice beside a merge": ("a: &x {b: 1}\nc:\n  <<: *x\n  d: 1\n  d: 2\n", "c.d is said twice"),
    "no YAML": ("a: [1\n", "is not a YAML file"),
    "deep": ("[" * 20_000, "nested too deeply"),
    "digits": (f"a: {'9' * 6000}\n", "has a value that cannot be read"),
    "a date": ("a: 2024-13-45\n", "has a value that cannot be read"),
    "code": ("a: !!python/object/apply:os.system ['x']\n", "could not determine a constructor"),
    "a key of parts": ("? [1, 2]\n: 3\n", "a key is a plain word"),
    "control": ("a: \x00\n", "is not a YAML file"),
}


@pytest.mark.parametrize("name", WRONG)
def test_errors_are_reported_with_their_line(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    path = tmp_path / "some.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "a: 1\nb: {a: 2}\nc: [{a: 1}, {a: 2}]\n",
        "5",
        "a: &x {b: 1}\nc: *x\nd:\n  <<: *x\n  b: 2\n",
    ],
)
def test_valid_yaml_is_read_as_by_pyyaml(text: str) -> None:
    assert parse_yaml(text, "x") == yaml.safe_load(text)


def test_every_preset_and_study_of_the_project_is_read() -> None:
    paths = [*PRESETS.rglob("*.yaml"), *Path("trainers/studies").glob("*.yaml")]
    assert len(paths) > 20
    for path in paths:
        assert read_yaml(path) == yaml.safe_load(path.read_text(encoding="utf-8"))


TWICE, INFINITE = "zero: 0\nzero: 1\n", "zero: .inf\n"


@pytest.mark.parametrize(
    ("text", "message"), [(TWICE, "zero is said twice"), (INFINITE, "zero is inf")]
)
def test_errors_are_reported_in_every_kind_of_file(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tmaze" / "rate.yaml"
    path.parent.mkdir()
    path.write_text(text, encoding="utf-8")
    monkeypatch.setattr("trainers.preset_files.PRESETS", tmp_path)

    def run() -> Any:
        return parse("tmaze", [f"--resume={path.parent}"])

    (path.parent / "config.yaml").write_text(text, encoding="utf-8")
    for read in (
        lambda: load_preset("tmaze", "rate"),
        lambda: load_config_file(path),
        lambda: parse("tmaze", [f"--config={path}"]),
        run,
        lambda: load_study(path, None, None, []),
        lambda: wandb_settings(path),
        lambda: _setting(f"model={{{text.strip().replace(chr(10), ', ')}}}"),
    ):
        with pytest.raises(ConfigError, match=message):
            read()


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ("--data.min_return=-.inf", "data.min_return is -inf"),
        ("--data.min_return=1e999", "data.min_return is inf"),
        ("--loss.step_weight=.inf", "loss.step_weight is inf"),
        ("--evaluation.target_return=.nan", "evaluation.target_return is nan"),
        ("--model.memory_noise=.inf", "model.memory_noise is inf"),
    ],
)
def test_no_setting_is_infinite(option: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}; it must be a finite number"):
        parse("tmaze", [option])


def test_strings_in_a_file_are_read_as_finite_numbers(
    make_config: MakeConfig, tmp_path: Path
) -> None:
    plain = make_config().to_dict()
    plain["optimizer"]["learning_rate"] = "1e-3"  # as YAML 1.1 reads it
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    assert load_config_file(path).optimizer.learning_rate == 1e-3
    plain["optimizer"]["learning_rate"] = "inf"
    path.write_text(yaml.safe_dump(plain), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate is inf"):
        load_config_file(path)


def test_a_section_takes_no_file(tmp_path: Path) -> None:
    path = tmp_path / "optimizer.yaml"
    path.write_text("warmup_steps: 32\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"--optimizer is a table of settings.*--config FILE"):
        parse("tmaze", [f"--optimizer={path}"])
