"""An expert for Pong that reads the screen, so that data can be made without downloads.

Other games are played at random; for these there are public data, see `datamodules.readers`.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from datamodules.collector import NoisyExpert
from rate.envs.atari import Atari

STAY, UP, DOWN = 0, 2, 3  # actions of Pong; 1, 4 and 5 are the same with the fire button
MIDDLE = 45.0

# Of the 84 x 84 frame: the rows between the walls, the columns between the paddles, and a column of
# the own paddle, which is on the right.
_TOP, _BOTTOM, _LEFT, _RIGHT, _PADDLE = 14, 77, 11, 73, 74
_BACKGROUND, _GREEN = 87, 147
_CONTACT = 73.7  # where the ball's centre is when the paddle turns it back
_BOUNCES = 15.0, 75.5  # the highest and the lowest row of the ball's centre
_FASTEST = 12.0  # columns a step; what is faster is another ball
# How far one press of a button has moved the paddle after 0, 1, 2 and 3 steps: it has inertia.
_MOVED = np.array([0.0, 2.0, 6.0, 8.5])
_HORIZON = 8
# A ball that meets the paddle near its edge comes back steeply, and the opponent is too slow for
# it. Each edge is good in one half of the screen.
_LOWER_HALF, _BELOW, _ABOVE = 44.0, 3.0, -2.5

Point = tuple[float, float]


class AtariExpert(NoisyExpert[Atari]):
    """Wins at Pong by planning on a model of the ball; plays other games at random.

    It predicts where the ball meets the paddle, aims to hit it with the paddle's edge, and tries
    all sequences of three actions on a model of the paddle's inertia.

    Args:
        noise: Probability of a random action instead. Without it the emulator, which knows no
            chance, gives few different episodes.

    Raises:
        ValueError: If `noise` is no probability.
    """

    plays = Atari

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        super().reset(env, seed)
        self._knows = self._env.options.rom == "pong"
        self._ball: Point | None = None
        self._paddle, self._pressed = MIDDLE, (0, 0)

    def act(self) -> int:
        """Returns the next action."""
        if not self._knows:
            return int(self._random.integers(self._env.action_space.n))  # type: ignore[attr-defined]
        press = self._plan(self._env.frame)
        if self._random.random() < self._noise:
            press = int(self._random.integers(-1, 2))
        self._pressed = press, self._pressed[0]
        return (STAY, DOWN, UP)[press]

    def _plan(self, frame: npt.NDArray[np.uint8]) -> int:
        """Returns -1 for up, 0 for no move, or 1 for down."""
        before, self._ball = self._ball, find_ball(frame)
        self._paddle = find_paddle(frame, self._paddle)
        target, steps = MIDDLE, 6
        if self._ball is not None and before is not None:
            down, right = self._ball[0] - before[0], self._ball[1] - before[1]
            if 0.3 < right < _FASTEST:
                time = (_CONTACT - self._ball[1]) / right
                row = _bounce(self._ball[0] + down * time)
                target = row + (_BELOW if row > _LOWER_HALF else _ABOVE)
                steps = int(np.clip(np.ceil(time), 1, _HORIZON))
        last, second = self._pressed
        coming = last * (_MOVED[min(steps + 1, 3)] - _MOVED[1]) + second * (_MOVED[3] - _MOVED[2])
        error = np.abs(self._paddle + coming + _DISPLACEMENTS[steps] - np.clip(target, 16, 75))
        return int(_SEQUENCES[np.argmin(error + _EFFORT), 0])


def find_ball(frame: npt.NDArray[np.uint8]) -> Point | None:
    """Returns row and column of the ball's centre in a frame of Pong `(84, 84)`, or None."""
    rows, columns = np.nonzero(frame[_TOP:_BOTTOM, _LEFT:_RIGHT] != _BACKGROUND)
    return (rows.mean() + _TOP, columns.mean() + _LEFT) if len(rows) else None


def find_paddle(frame: npt.NDArray[np.uint8], otherwise: float) -> float:
    """Returns the row of the own paddle's centre in a frame of Pong `(84, 84)`."""
    column = frame[_TOP:_BOTTOM, _PADDLE]
    rows = np.flatnonzero(column == _GREEN)
    if not len(rows):
        rows = np.flatnonzero(column != _BACKGROUND)
    return float(rows.mean()) + _TOP if len(rows) else otherwise


def _bounce(row: float) -> float:
    """Returns where a ball is that would be at `row` if there were no walls."""
    top, bottom = _BOUNCES
    way = (row - top) % (2 * (bottom - top))
    return top + min(way, 2 * (bottom - top) - way)


# All ways to press in the next three steps, and how far each moves the paddle in a number of steps.
_SEQUENCES = np.array(list(product((0, 1, -1), repeat=3)))  # (27, 3)
_EFFORT = np.abs(_SEQUENCES) @ np.array([0.2, 0.21, 0.22])  # rather now than later
_DISPLACEMENTS = np.stack(
    [_SEQUENCES @ _MOVED[np.clip(n - np.arange(3), 0, 3)] for n in range(_HORIZON + 1)]
)
