"""Atari games: names, reference scores and target returns."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from rate.errors import ConfigError

# Mean scores of random play and of a human tester: Mnih et al. 2015 (extended data table 2), and
# Wang et al. 2016 for games that are missing there.
REFERENCE_SCORES = {
    "alien": (227.8, 7127.7),
    "amidar": (5.8, 1719.5),
    "assault": (222.4, 742.0),
    "asterix": (210.0, 8503.3),
    "bank_heist": (14.2, 753.1),
    "battle_zone": (2360.0, 37187.5),
    "boxing": (0.1, 12.1),
    "breakout": (1.7, 30.5),
    "chopper_command": (811.0, 7387.8),
    "crazy_climber": (10780.5, 35829.4),
    "demon_attack": (152.1, 1971.0),
    "freeway": (0.0, 29.6),
    "frostbite": (65.2, 4334.7),
    "gopher": (257.6, 2412.5),
    "hero": (1027.0, 30826.4),
    "jamesbond": (29.0, 302.8),
    "kangaroo": (52.0, 3035.0),
    "krull": (1598.0, 2665.5),
    "kung_fu_master": (258.5, 22736.3),
    "ms_pacman": (307.3, 6951.6),
    "pong": (-20.7, 14.6),
    "private_eye": (24.9, 69571.3),
    "qbert": (163.9, 13455.0),
    "road_runner": (11.5, 7845.0),
    "seaquest": (68.4, 42054.7),
    "up_n_down": (533.4, 11693.2),
}
# Target returns in clipped rewards. The targets of Decision Transformer (Chen et al. 2021) are 90,
# 14000, 1150 and 20 points; one reward is at least 25 points in Qbert and 20 in Seaquest.
TARGET_RETURNS = {"breakout": 90.0, "qbert": 560.0, "seaquest": 58.0, "pong": 20.0}
POINTS = {"qbert": 25.0, "seaquest": 20.0}

# Sizes of the minimal action sets; the other games above have all 18 actions.
NUM_ACTIONS = dict.fromkeys(REFERENCE_SCORES, 18) | {
    "amidar": 10,
    "assault": 7,
    "asterix": 9,
    "breakout": 4,
    "crazy_climber": 9,
    "demon_attack": 6,
    "freeway": 3,
    "gopher": 8,
    "kung_fu_master": 14,
    "ms_pacman": 9,
    "pong": 6,
    "qbert": 6,
    "up_n_down": 6,
}


def rom_name(game: str, known: Iterable[str]) -> str:
    """Returns a game's name as the emulator spells it: `ms_pacman` for `MsPacman` or `ms-pacman`.

    Args:
        game: The name, in upper or lower case.
        known: The emulator's names.

    Raises:
        ConfigError: If there is no such game; the message names the nearest.
    """
    plain = {name.replace("_", ""): name for name in known}
    wanted = game.replace("_", "").replace("-", "").lower()
    if wanted not in plain:
        close = difflib.get_close_matches(wanted, plain, n=1)
        hint = f" Did you mean {title(plain[close[0]])}?" if close else ""
        raise ConfigError(
            f"env.game is '{game}', and there is no such Atari game.{hint} "
            f"There are {len(plain)}, for example Breakout, Pong, Qbert and Seaquest."
        )
    return plain[wanted]


def title(rom: str) -> str:
    """Returns the title of a game: `MsPacman` for `ms_pacman`."""
    return rom.replace("_", " ").title().replace(" ", "")
