"""Environments that another Python interpreter makes."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rate.errors import ConfigError


@dataclass(frozen=True)
class Elsewhere:
    """An environment that another Python makes.

    Attributes:
        python: That Python.
        env: The environment's name there: an id, or an import path.
        settings: Keywords for it, plain JSON types.
        max_steps: Steps after which an episode is truncated; None leaves it to the environment.
        draws: Whether it will be asked for pictures.
    """

    python: str
    env: str
    settings: dict[str, Any] = field(default_factory=dict)
    max_steps: int | None = None
    draws: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no program."""
        path = Path(str(self.python))
        if path.is_file() and os.access(path, os.X_OK):
            return
        found = next((p for p in (path / "bin/python", path / "python") if p.is_file()), None)
        hint = f"that folder's is {found}" if found else "it is the path of the program itself"
        raise ConfigError(
            f"env.python is {self.python}, which is no program that can be run; {hint}, for "
            "example /path/to/venv/bin/python."
        )

    def __str__(self) -> str:
        return f"{self.env} under {self.python}"
