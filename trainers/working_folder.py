"""The working folder that a run was started in; its relative paths refer to that folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from trainers.config import RunConfig
from trainers.own_environment import PYTHON

ENVIRONMENT, REPLAY = "environment.txt", "replay"
FOLDER = "folder: "  # prefix of the line that records it


def working_folder(run: Path) -> Path | None:
    """Returns the working folder that a run was started in; None if it is not recorded."""
    try:
        lines = (run / ENVIRONMENT).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((Path(x.removeprefix(FOLDER)) for x in lines if x.startswith(FOLDER)), None)


def with_own_paths(config: RunConfig, run: Path) -> tuple[RunConfig, list[str]]:
    """Returns the configuration of a resumed run with resolved paths, and notes for the user.

    Relative paths that exist in the run's original folder are resolved against it. All others stay
    relative to the working folder, where data are looked up or made again.
    """
    folder, data = working_folder(run), config.data
    if folder is None or folder == Path.cwd():
        return config, []
    python = config.env.get(PYTHON)
    if python is not None and _is_relative_to(folder, python):
        config = replace(config, env={**config.env, PYTHON: str(folder / python)})
    changes: dict[str, Any] = {
        name: str(folder / path)
        for name, path in (("root", data.root), ("store", data.store))
        if path is not None and _is_relative_to(folder, path)
    }
    if not changes:
        return config, []
    found = changes.get("store") or changes["root"]
    notes = [f"the data are those in {found}; the run was begun in {folder}."]
    return replace(config, data=replace(data, **changes)), notes


def _is_relative_to(folder: Path, path: str) -> bool:
    """Whether a path is relative and exists in the folder `folder`."""
    return not Path(path).is_absolute() and (folder / path).exists()
