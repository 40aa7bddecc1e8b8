"""Trust in environment code that files refer to; see `rate.trust`.

A run or a saved model refers to its environment by an import path and optionally another Python.
"""

from __future__ import annotations

import os
from typing import Any

from rate.errors import ConfigError
from rate.trust import named_code, remember_code
from trainers.own_environment import PYTHON


def remember(name: str, options: dict[str, Any]) -> None:
    """Record that the user has named an environment, which makes it trusted.

    Args:
        name: The environment's name.
        options: Its settings.
    """
    remember_code(_code(name, options))


def require(name: str, options: dict[str, Any]) -> None:
    """Check that the code of an environment in a file is trusted.

    Raises:
        ConfigError: If the user has not named it; the message contains the option to do so.
    """
    known = named_code()
    missing = {code: option for code, option in _code(name, options).items() if code not in known}
    if missing:
        raise ConfigError(
            f"The environment {name} is code that a file names ({', '.join(missing)}), and that "
            "you have not named before on this computer. If you trust where the file comes from, "
            f"name it yourself: {' '.join(missing.values())}"
        )


def _code(name: str, options: dict[str, Any]) -> dict[str, str]:
    """Returns the code that makes an environment, if it is no registered one.

    Returns:
        An import path or a Python program, each with the option that names it.
    """
    found = {name: f"--env {name}"} if ":" in name else {}
    python = options.get(PYTHON)
    if python is not None:
        program = os.path.abspath(str(python))  # noqa: PTH100 (a link stays one)
        found[program] = f"--env.{PYTHON} {program}"
    return found
