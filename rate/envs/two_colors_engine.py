"""ViZDoom's engine for Two-Colors: found, checked, started, and its failures told as messages.

The engine is a process of its own. A scenario that it cannot read makes the Python package crash
at start, so a scenario is first given to the engine's program alone, once in a process.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rate.advice import install
from rate.envs.two_colors_scenario import GREEN_MAP, RED_MAP
from rate.errors import ConfigError, UserError

Array = npt.NDArray[Any]

FRAME_HEIGHT, FRAME_WIDTH = 180, 320
_CHECK_SECONDS = 60
_HIDDEN = ("hud", "crosshair", "weapon", "decals", "particles", "messages", "screen_flashes")

_accepted: set[str] = set()  # scenarios that the engine has read, in this process
_directory_lock = threading.Lock()


class EngineError(UserError):
    """The engine ended, or did not answer, in the middle of an episode."""


@dataclass(frozen=True)
class Scene:
    """Where everything is, in map units and degrees (0 is east, 90 north).

    Attributes:
        x: The player's place.
        y: The player's place.
        angle: Where the player looks.
        speed: `(2,)`, the player's velocity in map units per tic.
        red: `(R, 2)` places of the red items.
        green: `(G, 2)` places of the green items.
        pillar: Whether the pillar stands.
    """

    x: float
    y: float
    angle: float
    speed: Array
    red: Array
    green: Array
    pillar: bool


class Engine:
    """A running engine with one scenario.

    Args:
        scenario: The archive's bytes, see `rate.envs.two_colors_scenario`.

    Raises:
        ConfigError: If ViZDoom is missing or cannot read the scenario.
        EngineError: If the engine does not start.
    """

    def __init__(self, scenario: bytes) -> None:
        self._vizdoom = _import()
        # The engine writes settings and a folder where it starts: not into the user's directory.
        self._directory = tempfile.TemporaryDirectory(
            prefix="two-colors-", ignore_cleanup_errors=True
        )
        folder = Path(self._directory.name)
        (folder / "two_colors.wad").write_bytes(scenario)
        self._game: Any = None
        try:
            program = _program(self._vizdoom)
            _check(scenario, folder, program, _base_game(self._vizdoom))
            self._game = self._configure(folder)
            self._game.set_vizdoom_path(str(_launcher(folder, program)))
            with self._named_failures("at its start"), _working_directory(folder):
                self._game.init()
        except UserError:
            self.close()
            raise

    def _configure(self, folder: Path) -> Any:
        """A game that hears and shows nothing, at the published resolution."""
        vizdoom = self._vizdoom
        game, variable = vizdoom.DoomGame(), vizdoom.GameVariable
        game.set_doom_game_path(str(_base_game(vizdoom)))
        game.set_doom_scenario_path(str(folder / "two_colors.wad"))
        game.set_doom_config_path(os.devnull)  # it would write there after it was closed
        game.set_doom_map(RED_MAP)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X180)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        for what in _HIDDEN:
            getattr(game, f"set_render_{what}")(False)
        button = vizdoom.Button
        game.set_available_buttons([button.TURN_LEFT, button.TURN_RIGHT, button.MOVE_FORWARD])
        game.set_available_game_variables(
            [
                variable.AMMO2,
                variable.AMMO3,
                variable.POSITION_X,
                variable.POSITION_Y,
                variable.ANGLE,
                variable.VELOCITY_X,
                variable.VELOCITY_Y,
            ]
        )
        game.set_episode_timeout(0)
        game.set_objects_info_enabled(True)
        return game

    def new_episode(self, red: bool, seed: int) -> None:
        """Begin an episode that depends on the arguments alone."""
        with self._named_failures("at the start of an episode"):
            self._game.set_doom_map(RED_MAP if red else GREEN_MAP)
            self._game.set_seed(seed)
            self._game.new_episode()
            self._state = self._game.get_state()

    def advance(self, buttons: list[bool], tics: int) -> None:
        """Hold buttons (turn left, turn right, forward) for some tics."""
        with self._named_failures(f"at tic {self._state.tic}"):
            self._game.make_action(buttons, tics)
            self._state = self._game.get_state()

    @property
    def frame(self) -> Array:
        """What the player sees now: `(180, 320, 3)` uint8."""
        frame: Array = self._state.screen_buffer
        return frame

    @property
    def taken(self) -> tuple[int, int]:
        """How many red and green items were taken in this episode."""
        red, green = self._state.game_variables[:2]
        return int(red), int(green)

    def scene(self) -> Scene:
        """Where everything is now."""
        x, y, angle, *speed = self._state.game_variables[2:]
        places: dict[str, list[tuple[float, float]]] = {"TwoColorsRed": [], "TwoColorsGreen": []}
        pillar = False
        for item in self._state.objects:
            if item.name in places:
                places[item.name].append((item.position_x, item.position_y))
            pillar = pillar or item.name.endswith("Pillar")
        red, green = (np.array(place, dtype=np.float64).reshape(-1, 2) for place in places.values())
        return Scene(x, y, angle, np.array(speed, dtype=np.float64), red, green, pillar)

    def close(self) -> None:
        """End the engine and remove its files. More than once does no harm."""
        game, self._game = self._game, None
        if game is not None:
            with contextlib.suppress(*_failures(self._vizdoom)):
                game.close()
        self._directory.cleanup()

    @contextlib.contextmanager
    def _named_failures(self, when: str) -> Iterator[None]:
        if self._game is None:
            raise EngineError("the ViZDoom engine is closed; reset the environment to start it")
        try:
            yield
        except _failures(self._vizdoom) as error:
            raise EngineError(
                f"the ViZDoom engine failed {when}: {type(error).__name__}: {error} Was its "
                "process ended from outside, or is the machine out of memory or of space in "
                "/dev/shm? Resetting the environment starts a new engine."
            ) from error


def _import() -> Any:
    try:
        import vizdoom
    except ImportError as error:
        raise ConfigError(
            f"ViZDoom-Two-Colors needs the package vizdoom ({error}). Install it with: "
            f"{install('vizdoom')}"
        ) from error
    return vizdoom


def _failures(vizdoom: Any) -> tuple[type[Exception], ...]:
    """Every exception of the package; they have no base class in common."""
    kinds = [value for value in vars(vizdoom).values() if isinstance(value, type)]
    return tuple(kind for kind in kinds if issubclass(kind, Exception))


def _program(vizdoom: Any) -> Path:
    folder = Path(vizdoom.__file__).parent
    for name in ("vizdoom", "vizdoom.exe"):
        if (folder / name).is_file():
            return folder / name
    raise ConfigError(
        f"{folder}: the ViZDoom engine is not there; install the package vizdoom again."
    )


def _base_game(vizdoom: Any) -> Path:
    """Freedoom, which comes with the package; a Doom that lies about would look different."""
    game = Path(vizdoom.__file__).parent / "freedoom2.wad"
    if not game.is_file():
        raise ConfigError(
            f"{game}: ViZDoom's own game is not there; install the package vizdoom again."
        )
    return game


def _launcher(folder: Path, program: Path) -> Path:
    """The engine's program, such that Linux ends it when this process is killed.

    The engine alone does not notice that nobody talks to it any more, and would wait for ever.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None or not sys.platform.startswith("linux"):
        return program
    script = folder / "engine"
    command = shlex.join([setpriv, "--pdeathsig", "KILL", str(program)])
    script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    script.chmod(0o700)
    # A folder for temporary files may be mounted such that nothing in it can run.
    return script if os.access(script, os.X_OK) else program


def _check(scenario: bytes, folder: Path, program: Path, game: Path) -> None:
    """Let the engine read the scenario and stop, unless this process has done so before.

    Raises:
        ConfigError: With the engine's own words.
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
                # This comes when all has been read. We end it here, because the engine may well
                # crash when it stops by itself; its exit code says nothing.
                if b"D_CheckNetGame" in line:
                    break
            timer.cancel()
            process.kill()
        errors.seek(0)
        said = errors.read().strip() or b"".join(lines[-5:])
    if not lines or b"D_CheckNetGame" not in lines[-1]:
        raise ConfigError(
            f"the ViZDoom engine ({program}) did not read the Two-Colors scenario. It says: "
            f"{said.decode(errors='replace').strip() or 'nothing'}"
        )
    _accepted.add(digest)


@contextlib.contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    """Be in another directory for a moment. The engine has no setting for where it starts."""
    with _directory_lock:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
