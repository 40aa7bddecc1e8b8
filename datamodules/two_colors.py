"""An expert for ViZDoom-Two-Colors that knows the colour and the positions of all items.

It compares plans of the form "turn for some steps, in place or walking, then walk straight on". The
cost of a plan is the time until it touches an item of the right colour, computed with the engine's
mechanics. If it touches none in time, it is the length of the shortest path from its end to one,
around the wrong items.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from rate.envs.two_colors import (
    FORWARD,
    FORWARD_LEFT,
    FORWARD_RIGHT,
    FRAME_SKIP,
    TURN_LEFT,
    TURN_RIGHT,
    TwoColors,
)
from rate.envs.two_colors_engine import Scene
from rate.envs.two_colors_scenario import HALF, ITEM_RADIUS, PILLAR_RADIUS, PLAYER_RADIUS

Array = npt.NDArray[Any]

# How the engine moves a walking player, per tic: thrust, friction, and degrees per tic of turning,
# which are half of that in the first three steps of a turn.
_THRUST, _FRICTION = 0.78125, 0.90625
_TURN, _SLOW_TURN, _SLOW_STEPS = 3.515625, 1.7578125, 3
_STEP_LENGTH = FRAME_SKIP * _THRUST / (1 - _FRICTION)  # map units in a step at full speed

_STEPS = 28  # how far a plan looks ahead
_KINDS = (FORWARD_LEFT, FORWARD_RIGHT, TURN_LEFT, TURN_RIGHT)  # how a plan turns
_TURNS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 28)  # for how many steps, when begun
_STOP = 6  # steps that a body slides on, and one
_NEVER = 1000
_COMMITMENT = 3.0  # steps by which a new plan must be better, or two may alternate
_DETOUR = 12.0  # steps worth walking not to have a wrong item right behind a right one

_IN_VIEW = 50.0  # degrees to either side; the picture shows a little more
_RECALL = 25  # steps for which an item out of view counts, so that a detour is walked to its end
_TOUCH = PLAYER_RADIUS + ITEM_RADIUS
_PILLAR_TOUCH = PLAYER_RADIUS + PILLAR_RADIUS
_CAUTION = 6.0  # map units that a plan keeps from wrong items, besides
_LIMIT = HALF - PLAYER_RADIUS  # where the walls stop a player

# The grid on which ways are measured, and what a cell with a wrong item costs.
_CELLS, _BLOCKED = 33, 8.0
_CELL = 2 * _LIMIT / (_CELLS - 1)


class TwoColorsExpert:
    """Walks to the nearest visible item of the right colour, around the wrong ones.

    It considers items that it sees or has just seen, and turns left if there are none, so that its
    behaviour can be learnt from images, given the colour.

    Args:
        noise: Share of random actions. They come in bursts of 1 to 4 steps of the same action, so
            that they lead somewhere.

    Raises:
        ValueError: If `noise` is not in [0, 1).
    """

    _longest_burst = 4

    def __init__(self, noise: float = 0.0) -> None:
        if not 0 <= noise < 1:
            raise ValueError(f"noise is {noise}; it must be in [0, 1)")
        # With this chance of a burst at a step outside one, the wanted share of steps is random.
        mean = (1 + self._longest_burst) / 2
        self._chance = noise / (noise + mean * (1 - noise))
        self._actions, self._paths, self._inertia = _plans()
        turns = np.array(_TURNS)[:, None] - 1
        self._new = np.append(0, 1 + len(_KINDS) * turns + np.arange(len(_KINDS)))

    def reset(self, env: gymnasium.Env[Any, Any], seed: int) -> None:
        """Starts an episode; all random numbers come from `seed`.

        Raises:
            TypeError: If it is another environment.
        """
        room = env.unwrapped
        if not isinstance(room, TwoColors):
            raise TypeError(f"the expert plays TwoColors, not {type(room).__name__}")
        self._room = room
        self._generator = np.random.default_rng([seed % (1 << 64), 1])
        self._time, self._turned, self._steps_on_spot = 0, 0, 0
        self._burst = (FORWARD, 0)  # the action and how often it is still due
        self._plan: int | None = None  # the rest of the plan
        self._seen: dict[tuple[float, ...], int] = {}
        self._field = _DistanceField()

    def act(self) -> int:
        """Returns the action for the current state of the environment."""
        self._time += 1
        action = self._noise()
        if action is None:
            action = self._decide(self._room.scene())
        else:
            self._plan = None
        self._turned = 0 if action == FORWARD else min(self._turned + 1, _SLOW_STEPS)
        return action

    def _noise(self) -> int | None:
        """Returns the random action of a burst, or None outside one."""
        action, count = self._burst
        if count == 0 and self._generator.random() < self._chance:
            action = int(self._generator.integers(5))
            count = int(self._generator.integers(1, self._longest_burst + 1))
        if count == 0:
            return None
        self._burst = (action, count - 1)
        return action

    def _decide(self, scene: Scene) -> int:
        """Returns the first action of the best plan."""
        right, wrong = (scene.red, scene.green) if self._room.red else (scene.green, scene.red)
        right = self._recalled(scene, right)
        free = _free(right, wrong)
        if not len(free):
            self._plan = None
            return TURN_LEFT
        plans = self._new if self._plan is None else np.append(self._plan, self._new)
        places = self._places(scene, plans)
        reached = _first_contact(places, right, _TOUCH - 2)
        blocked = _first_contact(places, wrong, _TOUCH + _CAUTION)
        if scene.pillar:
            blocked = np.minimum(blocked, _first_contact(places, np.zeros((1, 2)), _PILLAR_TOUCH))
        # A plan that reaches no item is followed by the distance from its end, or from the step at
        # which it must stop before a contact.
        last = np.minimum(np.maximum(blocked - _STOP, 0), _STEPS - 1)
        rest = _STEPS + self._field.steps(places[np.arange(len(plans)), last], free, wrong)
        reaches = reached < _STEPS
        cost = np.where(reaches, reached + _DETOUR * (blocked < reached + _STOP), rest)
        bad = np.where(reaches, blocked <= reached + 1, blocked <= _STOP)
        cost = np.where(bad, _NEVER - blocked, cost)
        if self._plan is not None:
            # The longer it stays on the spot, the cheaper is the plan it has.
            self._steps_on_spot = self._steps_on_spot + 1 if np.abs(scene.speed).max() < 0.5 else 0
            cost[0] -= _COMMITMENT + self._steps_on_spot / 2
        best = int(plans[np.argmin(cost)])
        # A turn of the same kind and one step less, or straight on.
        self._plan = max(best - len(_KINDS), 0)
        return int(self._actions[best])

    def _recalled(self, scene: Scene, places: Array) -> Array:
        """Returns those of `(N, 2)` places that are or recently were in view."""
        offset = places - (scene.x, scene.y)
        bearing = np.rad2deg(np.arctan2(offset[:, 1], offset[:, 0])) - scene.angle
        seen = places[np.abs((bearing + 180) % 360 - 180) < _IN_VIEW]
        self._seen.update((tuple(place), self._time) for place in seen.tolist())
        times = [self._seen.get(tuple(place), -_RECALL) for place in places.tolist()]
        recalled: Array = places[self._time - np.array(times, dtype=np.int64) < _RECALL]
        return recalled

    def _places(self, scene: Scene, plans: Array) -> Array:
        """Returns the places of the `P` plans after each step, within the walls: `(P, T, 2)`."""
        angle = np.deg2rad(scene.angle)
        cos, sin = np.cos(angle), np.sin(angle)
        rotation = np.array([[cos, sin], [-sin, cos]])
        drift = self._inertia[:, None] * scene.speed
        places = self._paths[self._turned][plans] @ rotation + drift + (scene.x, scene.y)
        clipped: Array = np.clip(places, -_LIMIT, _LIMIT)
        return clipped


def _plans() -> tuple[Array, Array, Array]:
    """Returns all plans: straight on, then for 1, 2, ... `T` steps of turning each of `_KINDS`.

    Returns:
        `(P,)` first actions; `(S, P, T, 2)` places after each step of a player that stands in the
        origin, looks east and has turned for `S` steps before; `(T,)` how far a speed of 1 at the
        start carries until then.
    """
    actions = np.array([FORWARD, *_KINDS * _STEPS])
    turns = np.append(0, np.repeat(np.arange(1, _STEPS + 1), len(_KINDS)))
    walking = np.isin(actions, (FORWARD, FORWARD_LEFT, FORWARD_RIGHT)).astype(np.float64)
    side = np.where(np.isin(actions, (TURN_LEFT, FORWARD_LEFT)), 1.0, -1.0)
    paths = np.zeros((_SLOW_STEPS + 1, len(actions), _STEPS, 2))
    for turned in range(_SLOW_STEPS + 1):
        angle, place, speed = np.zeros(len(actions)), np.zeros((len(actions), 2)), 0.0
        for step in range(_STEPS):
            rate = _SLOW_TURN if turned + step < _SLOW_STEPS else _TURN
            thrust = _THRUST * np.where(step < turns, walking, 1.0)
            for _ in range(FRAME_SKIP):
                angle = angle + np.deg2rad(rate) * side * (step < turns)
                push = thrust[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)
                speed = speed + push
                place = place + speed
                speed = speed * _FRICTION
            paths[turned, :, step] = place
    tics = FRAME_SKIP * np.arange(1, _STEPS + 1)
    return actions, paths, (1 - _FRICTION**tics) / (1 - _FRICTION)


def _free(right: Array, wrong: Array) -> Array:
    """Returns the right items that no wrong item is next to."""
    gap = np.abs(right[:, None] - wrong).max(axis=-1).min(axis=1, initial=np.inf)
    free: Array = right[gap > _TOUCH + _CAUTION]
    return free


def _first_contact(places: Array, things: Array, distance: float) -> Array:
    """Returns the step at which each plan touches one of `(N, 2)` items, or `_NEVER`: `(P,)`.

    Bodies are squares in this engine.
    """
    gap = np.abs(places[:, :, None] - things).max(axis=-1)  # (P, T, N)
    touching = (gap < distance).any(axis=-1)
    first: Array = np.where(touching.any(axis=1), touching.argmax(axis=1), _NEVER)
    return first


class _DistanceField:
    """The distance to the items from any place, around the wrong items."""

    def __init__(self) -> None:
        self._key: tuple[bytes, bytes] | None = None
        self._field: Array = np.zeros((_CELLS, _CELLS))

    def steps(self, places: Array, right: Array, wrong: Array) -> Array:
        """Returns the distance of `(P, 2)` places to the nearest right item, in steps: `(P,)`."""
        key = (right.tobytes(), wrong.tobytes())
        if key != self._key:
            self._key, self._field = key, _distances(right, wrong)
        cell = (places + _LIMIT) / _CELL
        low = np.clip(cell.astype(np.int64), 0, _CELLS - 2)
        x, y = (cell - low).T
        i, j = low.T
        field = self._field
        left = field[i, j] * (1 - y) + field[i, j + 1] * y
        steps: Array = left * (1 - x) + (field[i + 1, j] * (1 - y) + field[i + 1, j + 1] * y) * x
        return steps


def _distances(right: Array, wrong: Array) -> Array:
    """Returns steps from each grid point to the nearest right item (Bellman-Ford), `(C, C)`."""
    axis = np.linspace(-_LIMIT, _LIMIT, _CELLS)
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    gap = np.abs(grid[:, :, None] - wrong).max(axis=-1).min(axis=-1, initial=np.inf)
    step_cost = np.where(gap < _TOUCH + _CAUTION, _BLOCKED, 1.0) * _CELL / _STEP_LENGTH
    near = np.linalg.norm(grid[:, :, None] - right, axis=-1).min(axis=-1)
    # Around an item the distance is exact; from there on it spreads from point to point.
    field = np.full((_CELLS + 2, _CELLS + 2), np.inf)
    inside = field[1:-1, 1:-1]
    inside[...] = np.where(near < 1.5 * _CELL, near / _STEP_LENGTH, np.inf)
    while True:
        sides = np.minimum(
            np.minimum(field[:-2, 1:-1], field[2:, 1:-1]),
            np.minimum(field[1:-1, :-2], field[1:-1, 2:]),
        )
        corners = np.minimum(
            np.minimum(field[:-2, :-2], field[2:, 2:]), np.minimum(field[:-2, 2:], field[2:, :-2])
        )
        better = np.minimum(inside, np.minimum(sides + step_cost, corners + np.sqrt(2) * step_cost))
        if (better == inside).all():
            return inside.copy()
        inside[...] = better
