"""Where a run was begun: relative paths of its configuration are relative to that folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.own_environment import PYTHON

ENVIRONMENT = "environment.txt"
FOLDER = "folder: "  # begins the line that tells it


def begun_in(run: Path) -> Path | None:
    """The folder that a run was begun in, if that is known."""
    try:
        lines = (run / ENVIRONMENT).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((Path(x.removeprefix(FOLDER)) for x in lines if x.startswith(FOLDER)), None)


def with_own_paths(config: RunConfig, run: Path) -> tuple[RunConfig, list[str]]:
    """The configuration of a run that is continued from wherever it is, and what to tell of that.

    What is not there any more is looked for, or made again, in the working folder.
    """
    place, data = begun_in(run), config.data
    if place is None or place == Path.cwd():
        return config, []
    python = config.env.get(PYTHON)
    if python is not None and _is_left_behind(place, python):
        config = replace(config, env={**config.env, PYTHON: str(place / python)})
    changes: dict[str, Any] = {
        name: str(place / path)
        for name, path in (("root", data.root), ("store", data.store))
        if path is not None and _is_left_behind(place, path)
    }
    if not changes:
        return config, []
    found = changes.get("store") or changes["root"]
    notes = [f"the data are those in {found}; the run was begun in {place}."]
    return replace(config, data=replace(data, **changes)), notes


def _is_left_behind(place: Path, path: str) -> bool:
    """Whether a path is relative to the folder that a run was begun in."""
    return not Path(path).is_absolute() and (place / path).exists()
