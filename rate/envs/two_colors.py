"""ViZDoom-Two-Colors: remember the colour of a vanished pillar, and take items of that colour.

A square room with an acid floor. At the start the agent faces a pillar, red or green, which
vanishes after some steps; the room holds red and green items all the time. Items of the pillar's
colour heal, the others hurt. The game goes back to the two-colour scenario of Beeching et al. 2019;
the numbers are those of the RATE paper (arXiv:2306.09459); room, pictures and code are our own.

The rules, exactly. An agent step is 2 tics of the engine (1/35 s each). In this order, it

1. moves the body and takes the items that it touches;
2. for each item of the right colour: if health is below 100, a reward of 1 and health rises by 25,
   to 100 at most; a right item at a health of 100 is taken for nothing;
3. for each item of the other colour: health falls by 25;
4. floor: health falls by 10/32, so by 10 in 32 steps, and who takes nothing dies at step 320;
5. if health is above 0, a reward of 0.02; else the agent is dead and the episode terminated.

The floor costs a little at every step, not 10 at once, so that each item is a gain from the second
step on. An item taken appears again elsewhere, so that the room is as full at any time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from rate.envs.spec import EnvironmentSpec, with_privileged_state
from rate.envs.two_colors_engine import FRAME_HEIGHT, FRAME_WIDTH, Engine, Scene
from rate.envs.two_colors_scenario import build_scenario
from rate.errors import ConfigError
from rate.hashing import hash_counter

HEIGHT, WIDTH, FRAME_SKIP = 64, 112, 2
FULL_HEALTH, ITEM_HEALTH, FLOOR_HEALTH = 100.0, 25.0, 10 / 32  # exact in binary
ALIVE_REWARD, GAIN_REWARD = 0.02, 1.0
TURN_LEFT, TURN_RIGHT, FORWARD, FORWARD_LEFT, FORWARD_RIGHT = range(5)

# Turn left, turn right, forward.
_BUTTONS = (
    [True, False, False],
    [False, True, False],
    [False, False, True],
    [True, False, True],
    [False, True, True],
)
_COLOUR_COUNTER, _ENGINE_COUNTER = (1 << 62) + 3, (1 << 62) + 4

Array = npt.NDArray[Any]
Observation = Array | dict[str, Array]


@dataclass(frozen=True)
class TwoColorsOptions:
    """The settings of ViZDoom-Two-Colors.

    Attributes:
        pillar_steps: In how many observations, from the first on, the pillar stands. As published:
            45 for data of 90 steps, 90 for 150.
        items: How many items of each colour there are at any time.
        privileged: Also show the privileged state (for an Oracle-DT): 1 for red, 0 for green, at
            each step.
    """

    pillar_steps: int = 45
    items: int = 10
    privileged: bool = False

    def __post_init__(self) -> None:
        for name, largest in (("pillar_steps", 10**6), ("items", 100)):
            value = getattr(self, name)
            if not 1 <= value <= largest:
                raise ConfigError(f"env.{name} is {value}; it must be from 1 to {largest}.")


def two_colors_spec(options: TwoColorsOptions | None = None) -> EnvironmentSpec:
    """The spaces of Two-Colors, an image and 5 actions, and the published target return."""
    return EnvironmentSpec(
        "two_colors",
        _observation_space(options or TwoColorsOptions()),
        spaces.Discrete(5),
        target_return=56.5,
    )


def is_red(seed: int) -> bool:
    """Whether the pillar of a seed's episode is red: a bit of the seed's hash, so half of them."""
    return bool(hash_counter(seed, _COLOUR_COUNTER) & 1)


def _observation_space(options: TwoColorsOptions) -> gymnasium.Space[Any]:
    image = spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8)
    if not options.privileged:
        return image
    return with_privileged_state("image", image, spaces.Box(0, 1, (1,), np.float32))


class TwoColors(gymnasium.Env[Observation, np.int64]):
    """One room of ViZDoom-Two-Colors.

    Observations are `(3, 64, 112)` uint8 (the engine's 320x180 averaged over areas), in a
    dictionary with `privileged` if the options say so. Actions: 0 turn left, 1 turn right, 2
    forward, 3 left and forward, 4 right and forward. `info` holds `lifetime` (tics lived,
    two for each step), `red`, `right_items` and `wrong_items` (taken so far).

    The engine starts at the first reset, and again at the next one if it has failed.

    Args:
        options: See `TwoColorsOptions`.
        length: Steps after which an episode is truncated.
        render_mode: Gymnasium's; `render` works in any.

    Raises:
        ValueError: If the length is below 1.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": ["rgb_array"],
        "render_fps": 35 // FRAME_SKIP,
    }

    def __init__(
        self,
        options: TwoColorsOptions | None = None,
        length: int = 90,
        render_mode: str | None = None,
    ) -> None:
        if length < 1:
            raise ValueError(f"Two-Colors length {length}: an episode has at least 1 step")
        self.options = options or TwoColorsOptions()
        self.length = length
        self.render_mode = render_mode
        self.observation_space = _observation_space(self.options)
        self.action_space = spaces.Discrete(5)
        self._engine: Engine | None = None
        self._red, self._health, self._steps = False, FULL_HEALTH, 0
        self._taken = (0, 0)
        self._finished: tuple[bool, bool] | None = None  # terminated, truncated

    @property
    def max_steps(self) -> int:
        """The time-out in steps."""
        return self.length

    @property
    def red(self) -> bool:
        """Whether the pillar of this episode is red."""
        return self._red

    @property
    def health(self) -> float:
        """From 100 down; 0 or less is death."""
        return self._health

    def scene(self) -> Scene:
        """Where everything is: the true state, for experts.

        Raises:
            ResetNeeded: Before the first reset.
        """
        return self._running().scene()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start an episode that depends on `seed` only, or on the generator if there is none.

        Raises:
            ConfigError: If ViZDoom is missing or cannot read the scenario.
            EngineError: If the engine does not start.
        """
        super().reset(seed=seed)
        seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        if self._engine is None:
            tics = FRAME_SKIP * self.options.pillar_steps
            self._engine = Engine(build_scenario(tics, self.options.items))
        self._red, self._health, self._steps = is_red(seed), FULL_HEALTH, 0
        self._taken, self._finished = (0, 0), (False, False)
        try:
            self._engine.new_episode(self._red, hash_counter(seed, _ENGINE_COUNTER))
        except BaseException:
            self.close()
            raise
        return self._observe(), self._info()

    def step(self, action: np.int64 | int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Two tics. After its end an episode stays as it is, with zero reward.

        Raises:
            ValueError: If the action is none of the five.
            ResetNeeded: Before the first reset.
            EngineError: If the engine fails; the next reset starts another.
        """
        if not self.action_space.contains(np.int64(action)):
            raise ValueError(f"Two-Colors action {action!r}: expected 0, 1, 2, 3 or 4")
        engine, finished = self._running(), self._finished
        if finished is not None and any(finished):
            return self._observe(), 0.0, *finished, self._info()
        try:
            engine.advance(_BUTTONS[int(action)], FRAME_SKIP)
        except BaseException:
            self.close()
            raise
        self._steps += 1
        reward = self._count(engine.taken)
        dead = self._health <= 0
        self._finished = dead, not dead and self._steps >= self.length
        return self._observe(), reward, *self._finished, self._info()

    def _count(self, taken: tuple[int, int]) -> float:
        """Rules 2 to 5: what the items taken and the floor do to health; the reward."""
        before = self._right_and_wrong()
        self._taken = taken
        right, wrong = (
            now - then for now, then in zip(self._right_and_wrong(), before, strict=True)
        )
        reward = 0.0
        for _ in range(right):
            if self._health < FULL_HEALTH:
                reward += GAIN_REWARD
                self._health = min(FULL_HEALTH, self._health + ITEM_HEALTH)
        self._health -= wrong * ITEM_HEALTH + FLOOR_HEALTH
        return reward + (ALIVE_REWARD if self._health > 0 else 0.0)

    def _right_and_wrong(self) -> tuple[int, int]:
        red, green = self._taken
        return (red, green) if self._red else (green, red)

    def render(self) -> Array:
        """What the agent sees, in the engine's own resolution: `(180, 320, 3)` uint8."""
        if self._engine is None:
            return np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
        return self._engine.frame.copy()

    def close(self) -> None:
        """End the engine. More than once does no harm."""
        engine, self._engine, self._finished = self._engine, None, None
        if engine is not None:
            engine.close()

    def _running(self) -> Engine:
        if self._engine is None or self._finished is None:
            raise ResetNeeded("Two-Colors: call reset before anything else")
        return self._engine

    def _observe(self) -> Observation:
        from PIL import Image

        picture = Image.fromarray(self._running().frame)
        small = picture.resize((WIDTH, HEIGHT), Image.Resampling.BOX)
        image = np.ascontiguousarray(np.asarray(small).transpose(2, 0, 1))
        if not self.options.privileged:
            return image
        return {"image": image, "privileged": np.array([self._red], dtype=np.float32)}

    def _info(self) -> dict[str, Any]:
        right, wrong = self._right_and_wrong()
        return {
            "lifetime": FRAME_SKIP * self._steps,
            "red": self._red,
            "right_items": right,
            "wrong_items": wrong,
        }
