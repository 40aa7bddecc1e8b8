"""ViZDoom-Two-Colors: remember the colour of a vanished pillar, and take items of that colour.

The agent is in a square room with an acid floor. At the start it faces a red or green pillar, which
vanishes after some steps. Red and green items are in the room at all times. Items of the pillar's
colour restore health, the others reduce it. The game follows the two-colour scenario of Beeching et
al. (2019); its numbers are those of the RATE paper (arXiv:2306.09459); map, sprites and code are
this project's.

An agent step is 2 tics of the engine (1/35 s each), in this order:

1. The body moves and takes the items that it touches.
2. For each item of the pillar's colour: if health is below 100, the reward is 1 and health rises by
   25, to 100 at most; at a health of 100 the item has no effect.
3. For each item of the other colour, health falls by 25.
4. The floor reduces health by 10/32, that is by 10 in 32 steps. Without items the agent dies at
   step 320.
5. If health is above 0, the reward is 0.02 more. Otherwise the episode terminates.

The floor's damage is spread over all steps instead of 10 at every 32nd, so health is below 100 and
an item has an effect from the second step on. A taken item reappears at a random position, so the
number of items is constant.
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
    """Settings of ViZDoom-Two-Colors.

    Attributes:
        pillar_steps: Number of observations, from the first, in which the pillar stands. Published
            are 45 for data of 90 steps and 90 for data of 150.
        items: Number of items of each colour.
        privileged: Observations also hold the privileged state `(1,)` (for an Oracle-DT), at each
            step: 1 for red, 0 for green.
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
    """Returns the specification: images `(3, 64, 112)`, 5 actions, the published target return."""
    return EnvironmentSpec(
        "two_colors",
        _observation_space(options or TwoColorsOptions()),
        spaces.Discrete(5),
        target_return=56.5,
    )


def is_red(seed: int) -> bool:
    """Returns whether the pillar of a seed's episode is red: a bit of the seed's hash."""
    return bool(hash_counter(seed, _COLOUR_COUNTER) & 1)


def _observation_space(options: TwoColorsOptions) -> gymnasium.Space[Any]:
    image = spaces.Box(0, 255, (3, HEIGHT, WIDTH), np.uint8)
    if not options.privileged:
        return image
    return with_privileged_state("image", image, spaces.Box(0, 1, (1,), np.float32))


class TwoColors(gymnasium.Env[Observation, np.int64]):
    """One room of ViZDoom-Two-Colors.

    Observations are images `(3, 64, 112)` uint8, the engine's 320x180 frame averaged over areas.
    With `options.privileged` they are a dictionary of that `image` and `privileged` `(1,)` float32.
    Actions are 0 turn left, 1 turn right, 2 forward, 3 left and forward, 4 right and forward.
    `info` holds `lifetime` (in tics, two for each step), `red`, and the numbers of items taken so
    far, `right_items` and `wrong_items`.

    The engine starts at the first reset. After a failure the next reset starts another.

    Args:
        options: See `TwoColorsOptions`.
        length: Number of steps after which an episode is truncated.
        render_mode: Gymnasium's; `render` works in any mode.

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
        """The largest number of steps of an episode."""
        return self.length

    @property
    def red(self) -> bool:
        """Whether the pillar of this episode is red."""
        return self._red

    @property
    def health(self) -> float:
        """At most 100; the agent dies at 0 or less."""
        return self._health

    def scene(self) -> Scene:
        """Returns the positions of player, items and pillar, for experts.

        Raises:
            ResetNeeded: Before the first reset.
        """
        return self._running().scene()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator.

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
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0.

        Raises:
            ValueError: If the action is not 0, 1, 2, 3 or 4.
            ResetNeeded: Before the first reset.
            EngineError: If the engine fails.
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
        """Applies rules 2 to 5 to the health, and returns the reward."""
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
        """Returns the agent's view in the engine's resolution, `(180, 320, 3)` uint8."""
        if self._engine is None:
            return np.zeros((FRAME_HEIGHT, FRAME_WIDTH, 3), dtype=np.uint8)
        return self._engine.frame.copy()

    def close(self) -> None:
        """Ends the engine. A second call has no effect."""
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
