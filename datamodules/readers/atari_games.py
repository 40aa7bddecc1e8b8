"""The game of a public Atari data set: its folders name it, its files do not."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.source import UNKNOWN_RETURN
from rate.envs.atari import SIZE, AtariOptions
from rate.envs.atari_games import NUM_ACTIONS, TARGET_RETURNS, title
from rate.envs.spec import EnvironmentSpec

FRAME = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
_NEAREST_FOLDERS = 4  # of a path: `Breakout/1/replay_logs` and the file


def known_game(path: Path) -> str | None:
    """Returns the game that the last folders of a path name, as the emulator spells it."""
    games = {name.replace("_", ""): name for name in NUM_ACTIONS}
    for part in reversed(path.absolute().parts[-_NEAREST_FOLDERS:]):
        words = re.split(r"[^A-Za-z]+", part.replace("_", "")) + re.split(r"[^A-Za-z]+", part)
        for word in words:
            if word.lower() in games:
                return games[word.lower()]
    return None


def atari_data_spec(game: str | None, num_actions: int) -> EnvironmentSpec:
    """Returns the environment of recorded frames.

    Args:
        game: Its game, if it is known.
        num_actions: The number of actions if the game is not known.
    """
    actions: gymnasium.Space[np.int64] = spaces.Discrete(NUM_ACTIONS.get(game or "", num_actions))
    if game is None:
        return EnvironmentSpec("atari", FRAME, actions, UNKNOWN_RETURN)
    target = TARGET_RETURNS.get(game, UNKNOWN_RETURN)
    return EnvironmentSpec("atari", FRAME, actions, target, asdict(AtariOptions(title(game))))
