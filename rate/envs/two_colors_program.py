"""The installed ViZDoom: its package, the engine's program and game file, and a scenario check.

The Python package crashes at the start if the engine cannot read a scenario. Therefore the engine's
program reads each scenario alone first, once per process.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from rate.advice import install
from rate.envs.two_colors_scenario import RED_MAP
from rate.errors import ConfigError

_CHECK_SECONDS = 60

_accepted: set[str] = set()  # digests of the scenarios that the engine has read, in this process


def import_vizdoom() -> Any:
    """Returns the module `vizdoom`.

    Raises:
        ConfigError: If the package is missing.
    """
    try:
        import vizdoom
    except ImportError as error:
        raise ConfigError(
            f"ViZDoom-Two-Colors needs the package vizdoom ({error}). Install it with: "
            f"{install('vizdoom')}"
        ) from error
    return vizdoom


def failures(vizdoom: Any) -> tuple[type[Exception], ...]:
    """Returns all exceptions of the package; they have no common base class."""
    kinds = [value for value in vars(vizdoom).values() if isinstance(value, type)]
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def engine_path(vizdoom: Any) -> Path:
    """Returns the path of the engine's program.

    Raises:
        ConfigError: If it is missing.
    """
    folder = Path(vizdoom.__file__).parent
    for name in ("vizdoom", "vizdoom.exe"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"{folder}: the ViZDoom engine is not there; install the package vizdoom again."
    )


def base_game(vizdoom: Any) -> Path:
    """Returns the path of the package's Freedoom; another Doom installed here would look different.

    Raises:
        ConfigError: If it is missing.
    """
    game = Path(vizdoom.__file__).parent / "freedoom2.wad"
    if not game.is_file():
        raise ConfigError(
            f"{game}: ViZDoom's own game is not there; install the package vizdoom again."
        )
    return game


def launcher(folder: Path, program: Path) -> Path:
    """Returns a program that starts the engine, and on Linux ends it when this process is killed.

    The engine does not notice that its client is gone, and would wait for ever.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not sys.platform.startswith("linux"):
        return program
    script = folder / "engine"
    command = shlex.join([setpriv, "--pdeathsig", "KILL", str(program)])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o700)
    # The folder for temporary files may be mounted with `noexec`.
    return script if os.access(script, os.X_OK) else program


def check_scenario(scenario: bytes, folder: Path, program: Path, game: Path) -> None:
    """Lets the engine read a scenario and stop, unless this process has done so before.

    Args:
        scenario: The archive's bytes.
        folder: Holds the archive as `two_colors.wad`.
        program: The engine's program.
        game: The base game.

    Raises:
        ConfigError: If the engine does not run or refuses the scenario; has its output.
    """
    digest = hashlib.sha256(scenario).hexdigest()
    if digest in _accepted:
        return
    command = [str(program), "-iwad", str(game), "-file", "two_colors.wad"]
    command += ["-config", "check.ini", "+map", RED_MAP, "-nosound", "-norun"]
    with tempfile.TemporaryFile(dir=folder) as errors:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
            )
        except OSError as error:
            raise ConfigError(f"{program}: the ViZDoom engine does not run ({error}).") from error
        with process:
            timer = threading.Timer(_CHECK_SECONDS, process.kill)
            timer.start()
            lines = []
            for line in process.stdout or ():
                lines.append(line)
                # This line follows the last file read. The engine is ended here, because it may
                # crash when it exits by itself; its exit code is of no use.
                if b"D_CheckNetGame" in line:
                    break
            timer.cancel()
            process.kill()
        errors.seek(0)
        output = errors.read().strip() or b"".join(lines[-5:])
    if not lines or b"D_CheckNetGame" not in lines[-1]:
        raise ConfigError(
            f"the ViZDoom engine ({program}) did not read the Two-Colors scenario. It says: "
            f"{output.decode(errors='replace').strip() or 'nothing'}"
        )
    _accepted.add(digest)
