"""What the documentation site is made of besides its pages: references, results, the changelog.

MkDocs calls `on_files` before it builds (`hooks` in mkdocs.yml). Nothing here is written into the
source tree.
"""

from __future__ import annotations

import io
import os
import re
import sys
from contextlib import chdir, redirect_stdout, suppress
from dataclasses import fields, is_dataclass
from inspect import cleandoc, getdoc
from pathlib import Path
from typing import Any, get_type_hints

from mkdocs.structure.files import File, Files

from rate.architecture import BACKBONES, config_class
from rate.envs import tasks
from trainers.commands.main import COMMANDS, run
from trainers.config import RunConfig
from trainers.environments import NAMES
from trainers.objectives import OBJECTIVES, objective_settings
from trainers.options import Option, options_of, placeholder, plain_text, summary
from trainers.registry import find_environment

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "data" / "results"


def on_files(files: Files, config: Any) -> Files:
    """Adds the generated pages and the pictures of the results."""
    pages = {
        "configuration.md": configuration(),
        "tasks.md": memory_tasks(),
        "commands.md": commands(),
        "studies.md": (RESULTS / "README.md").read_text(encoding="utf-8"),
        "changelog.md": (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    for picture in sorted(RESULTS.glob("*.png")) + sorted(RESULTS.glob("*.gif")):
        files.append(File.generated(config, picture.name, abs_src_path=str(picture)))
    return files


def configuration() -> str:
    """Returns the reference of every setting, made from the dataclasses."""
    lines = [
        "# Configuration",
        "",
        "A run is configured by these sections, in YAML (`config.yaml`, presets) and as options "
        "`--SECTION.SETTING VALUE`. A preset sets what its model needs; `rate train ENVIRONMENT "
        "--model NAME --help` prints every option with the value that the preset gives it. Values "
        "are checked before anything is loaded; unknown names are refused with the nearest one.",
    ]
    types = get_type_hints(RunConfig)
    for field in fields(RunConfig):
        kind = types[field.name]
        left = field.name not in ("model", "env", "loss")
        if left and is_dataclass(kind) and isinstance(kind, type):
            lines += _section(field.name, kind)
    for name in OBJECTIVES.own_names():
        lines += _section("loss", objective_settings(name), f" of {name}")
    for name in BACKBONES.own_names():
        lines += _section("model", config_class({"backbone": name}), f" of {name}")
    told = "Settings of the environments of this project; those of the memory tasks are in"
    lines += ["", "## env", "", f"{told} [their reference](tasks.md)."]
    for name in NAMES:
        options = find_environment(name).options
        if options is not None and fields(options):
            lines += ["", f"### {name}", "", *_table(options_of(options, "env"), options)]
    return "\n".join(lines) + "\n"


def memory_tasks() -> str:
    """Returns the reference of the memory tasks, made from their docstrings and settings."""
    lines = ["# Memory tasks", "", cleandoc(tasks.__doc__ or "")]
    for name in tasks.TASKS:
        record = find_environment(name)
        text = re.split(r"\n(?:Args|Raises):", getdoc(record.env) or "")[0].strip()
        usual = record.make({}).expert_episode(None)[0]
        lines += ["", f"## {record.env.__name__}", ""]
        lines += [f"`{record.gym_id()}`, or `{name}`; length {usual} by default.", "", text]
        if record.options is not None:
            lines += ["", *_table(options_of(record.options, "env"), record.options)]
    return "\n".join(lines) + "\n"


def commands() -> str:
    """Returns the help text of every command."""
    lines = ["# Commands", "", "`rate COMMAND`; in a clone also `python scripts/COMMAND.py`."]
    for name, what in COMMANDS.items():
        lines += ["", f"## {name}", "", f"To {what}.", "", "```text", _help_of(name), "```"]
    return "\n".join(lines) + "\n"


def _help_of(command: str) -> str:
    os.environ["COLUMNS"], sys.argv[0] = "96", "rate"
    printed, outside = io.StringIO(), ROOT.parent  # where commands are called `rate COMMAND`
    with chdir(outside), redirect_stdout(printed), suppress(SystemExit):
        run(command, ["--help"])
    return printed.getvalue().rstrip()


def _section(name: str, kind: type, of: str = "") -> list[str]:
    return ["", f"## {name}{of}", "", summary(kind), "", *_table(options_of(kind, name), kind)]


def _table(options: dict[str, Option], kind: type) -> list[str]:
    lines = ["| setting | type | default | |", "|---|---|---|---|"]
    for name, option in options.items():
        default = plain_text(_default(kind, name.split(".")[1:]))
        cells = (f"`{name}`", f"`{placeholder(option.kind)}`", f"`{default}`", option.help)
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def _default(kind: type, path: list[str]) -> Any:
    value: Any = kind()
    for part in path:
        value = getattr(value, part)
    return value


def _cell(text: str) -> str:
    return re.sub(r"\|", r"\\|", text)
