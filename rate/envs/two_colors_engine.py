"""ViZDoom's engine for Two-Colors, a process of its own: start, steps, state and failures."""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rate.envs.two_colors_program import (
    base_game,
    check_scenario,
    engine_path,
    failures,
    import_vizdoom,
    launcher,
)
from rate.envs.two_colors_scenario import GREEN_MAP, RED_MAP
from rate.errors import UserError

Array = npt.NDArray[Any]

FRAME_HEIGHT, FRAME_WIDTH = 180, 320
_HIDDEN = ("hud", "crosshair", "weapon", "decals", "particles", "messages", "screen_flashes")

_directory_lock = threading.Lock()


class EngineError(UserError):
    """The engine ended or did not answer."""


@dataclass(frozen=True)
class Scene:
    """Positions in map units, and angles in degrees (0 is east, 90 north).

    Attributes:
        x: The player's x.
        y: The player's y.
        angle: The player's heading.
        speed: The player's velocity `(2,)` in map units per tic.
        red: Positions of the red items, `(R, 2)`.
        green: Positions of the green items, `(G, 2)`.
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
        self._vizdoom = import_vizdoom()
        # The engine writes files into its working directory, which must not be the user's.
        self._directory = tempfile.TemporaryDirectory(
            prefix="two-colors-", ignore_cleanup_errors=True
        )
        folder = Path(self._directory.name)
        (folder / "two_colors.wad").write_bytes(scenario)
        self._game: Any = None
        try:
            program = engine_path(self._vizdoom)
            check_scenario(scenario, folder, program, base_game(self._vizdoom))
            self._game = self._configure(folder)
            self._game.set_vizdoom_path(str(launcher(folder, program)))
            with self._named_failures("at its start"), _working_directory(folder):
                self._game.init()
        except UserError:
            self.close()
            raise

    def _configure(self, folder: Path) -> Any:
        """Returns a game without window and sound, at the published resolution."""
        vizdoom = self._vizdoom
        game, variable = vizdoom.DoomGame(), vizdoom.GameVariable
        game.set_doom_game_path(str(base_game(vizdoom)))
        game.set_doom_scenario_path(str(folder / "two_colors.wad"))
        game.set_doom_config_path(os.devnull)  # the engine writes its configuration when it ends
        game.set_doom_map(RED_MAP)
        game.set_mode(vizdoom.Mode.PLAYER)
        game.set_screen_resolution(vizdoom.ScreenResolution.RES_320X180)
        game.set_screen_format(vizdoom.ScreenFormat.RGB24)
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        for kind in _HIDDEN:
            getattr(game, f"set_render_{kind}")(False)
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
        """Starts an episode, which depends on the arguments alone."""
        with self._named_failures("at the start of an episode"):
            self._game.set_doom_map(RED_MAP if red else GREEN_MAP)
            self._game.set_seed(seed)
            self._game.new_episode()
            self._state = self._game.get_state()

    def advance(self, buttons: list[bool], tics: int) -> None:
        """Holds buttons (turn left, turn right, forward) for a number of tics (1/35 s)."""
        with self._named_failures(f"at tic {self._state.tic}"):
            self._game.make_action(buttons, tics)
            self._state = self._game.get_state()

    @property
    def frame(self) -> Array:
        """The player's view, `(180, 320, 3)` uint8."""
        frame: Array = self._state.screen_buffer
        return frame

    @property
    def taken(self) -> tuple[int, int]:
        """The numbers of red and green items taken in this episode."""
        red, green = self._state.game_variables[:2]
        return int(red), int(green)

    def scene(self) -> Scene:
        """Returns the positions of player, items and pillar."""
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
        """Ends the engine and removes its files. A second call has no effect."""
        game, self._game = self._game, None
        if game is not None:
            with contextlib.suppress(*failures(self._vizdoom)):
                game.close()
        self._directory.cleanup()

    @contextlib.contextmanager
    def _named_failures(self, when: str) -> Iterator[None]:
        if self._game is None:
            raise EngineError("the ViZDoom engine is closed; reset the environment to start it")
        try:
            yield
        except failures(self._vizdoom) as error:
            raise EngineError(
                f"the ViZDoom engine failed {when}: {type(error).__name__}: {error} Was its "
                "process ended from outside, or is the machine out of memory or of space in "
                "/dev/shm? Resetting the environment starts a new engine."
            ) from error


@contextlib.contextmanager
def _working_directory(folder: Path) -> Iterator[None]:
    """Changes the working directory for a while: the engine has no setting for its own."""
    with _directory_lock:
        before = Path.cwd()
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)
