"""Atari 2600 games with the preprocessing of DQN (Mnih et al. 2015, extended data table 1).

An action is repeated for four emulator frames (frame skip). A frame is the pixel-wise maximum of
the last two of them, in grey, 84 x 84 pixels. An episode begins after a random number of no-ops.
The vector environment of `ale-py` does this, for one row as for many. An observation is one frame;
`data.frame_stack` stacks the usual four. With it, `fire_reset` and `clip_rewards` these are the
wrappers of DeepMind (`PongNoFrameskip-v4` in most publications); IMPALA (Espeholt et al. 2018) also
observes its last action and reward.

Rewards are clipped to -1, 0 and 1, as in the DQN-replay data, so that returns-to-go of training and
rollouts are in the same unit. `info` holds the game's own points as `score`, and for games with
published references `normalised_score`: 0 is random play, 100 a human tester.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from gymnasium.vector.utils import batch_space

from rate.advice import install
from rate.envs.atari_games import POINTS, REFERENCE_SCORES, TARGET_RETURNS, rom_name, title
from rate.envs.autoreset import WAITING
from rate.envs.row_seeds import row_seeds
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.hashing import hash_counter

SIZE, SKIP = 84, 4
LONGEST = 27_000  # steps of 4 frames: 30 minutes at 60 Hz, as in published evaluations
_SEED_COUNTER = np.array([(1 << 62) + 5], dtype=np.uint64)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class AtariOptions:
    """Settings of an Atari game.

    Attributes:
        game: Breakout, Qbert, Seaquest, Pong or any other game of `ale-py`; upper and lower case
            are the same.
        sticky_actions: Probability, at each emulator frame, that the previous action is repeated
            instead. DQN-replay was recorded with 0.25; published evaluations use 0.
        noop_max: Largest number of no-op frames before an episode.
        fire_reset: Press the fire button at the start of games that wait for it.
        clip_rewards: Rewards are the sign of the game's points: -1, 0 or 1.
        last_action: Observations also hold the last action, one-hot; zeros before the first. They
            are a dictionary of `image` and `last`, which `data.frame_stack` cannot stack: leave
            that at 1, and set `num_frames`.
        last_reward: Observations also hold the sign of the last points, in the same way.
        num_frames: Number of frames in an observation. Unlike those of `data.frame_stack`, all of
            them are stored in the data.
    """

    game: str = "Pong"
    sticky_actions: float = 0.0
    noop_max: int = 30
    fire_reset: bool = False
    clip_rewards: bool = True
    last_action: bool = False
    last_reward: bool = False
    num_frames: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.sticky_actions < 1:
            raise ConfigError(f"env.sticky_actions is {self.sticky_actions}; use [0, 1).")
        if not 0 <= self.noop_max <= 1000:
            raise ConfigError(f"env.noop_max is {self.noop_max}; use 0 to 1000.")
        if not 1 <= self.num_frames <= 16:
            raise ConfigError(f"env.num_frames is {self.num_frames}; use 1 to 16.")

    @property
    def rom(self) -> str:
        """The game's name as the emulator spells it."""
        return rom_name(self.game, _games())

    @property
    def observation_space(self) -> gymnasium.Space[Any]:
        """The space of one observation; `last` holds the reward, then the action."""
        shape = (SIZE, SIZE) if self.num_frames == 1 else (self.num_frames, SIZE, SIZE)
        image = spaces.Box(0, 255, shape, np.uint8)
        width = self.last_reward + self.last_action * _num_actions(self.rom)
        if not width:
            return image
        low = np.zeros(width, dtype=np.float32)
        low[: int(self.last_reward)] = -1
        return spaces.Dict([("image", image), ("last", spaces.Box(low, 1, dtype=np.float32))])


def atari_spec(options: AtariOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: frames, uint8, and the game's minimal action set."""
    options = options or AtariOptions()
    target = TARGET_RETURNS.get(options.rom, 0.0)
    if not options.clip_rewards:
        target *= POINTS.get(options.rom, 1.0)
    actions = spaces.Discrete(_num_actions(options.rom))
    return EnvironmentSpec("atari", options.observation_space, actions, target)


class AtariVector(VectorEnv[Any, Array, Array]):
    """A vector environment of `N` rows of a game, stepped by the emulator's threads.

    There is no autoreset. A finished row keeps its last frame and flags, with reward 0, until
    `reset`; `reset(options={"reset_mask": mask})` with `mask (N,)` bool resets some rows only.
    Seed and actions decide an episode, whatever the row and the episodes before it. `info` holds
    `score`, the game's points so far, and where references are published `normalised_score`.

    Args:
        num_envs: The number `N` of rows.
        options: See `AtariOptions`.
        length: Number of steps after which an episode is truncated.
        workers: Threads of the emulator; None is one per core.

    Raises:
        ConfigError: If there is no such game, or `ale-py` is missing.
        ValueError: If `num_envs` or `length` is below 1.
    """

    def __init__(
        self,
        num_envs: int,
        options: AtariOptions | None = None,
        length: int = LONGEST,
        workers: int | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; at least one environment is needed")
        if length < 1:
            raise ValueError(f"Atari length {length!r}: an episode has at least 1 step")
        self.options, self.max_steps = options or AtariOptions(), int(length)
        self.num_envs, self._game = num_envs, self.options.rom
        self._reference = REFERENCE_SCORES.get(self._game)
        self._emulator = _emulator()(
            self._game,
            num_envs,
            num_threads=min(workers or 0, num_envs),
            max_num_frames_per_episode=SKIP * length,
            repeat_action_probability=self.options.sticky_actions,
            stack_num=self.options.num_frames,
            noop_max=self.options.noop_max,
            use_fire_reset=self.options.fire_reset,
            reward_clipping=False,
        )
        self.metadata = {"render_modes": [], **WAITING}
        self.single_observation_space = self.options.observation_space
        self._num_actions = int(self._emulator.single_action_space.n)
        self.single_action_space = spaces.Discrete(self._num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._frames = np.zeros((num_envs, self.options.num_frames, SIZE, SIZE), dtype=np.uint8)
        self._last = np.zeros((num_envs, 1 + self._num_actions), dtype=np.float32)
        self._scores = np.zeros(num_envs)
        self._terminated, self._truncated = (np.ones(num_envs, dtype=bool) for _ in range(2))
        self._fresh = True

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Any, dict[str, Any]]:
        """Starts episodes; an integer `seed` gives row `i` the seed `seed + i`."""
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if rows.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {rows.shape}; expected ({self.num_envs},)")
        # The emulator takes seeds of 31 bits.
        seeds = hash_counter(row_seeds(self, seed), _SEED_COUNTER).astype(np.int64)
        if rows.any():
            begun = rows | self._fresh  # the emulator's first reset must be of all rows
            frames, _ = self._emulator.reset(seed=seeds[begun], options={"reset_mask": begun})
            self._frames[rows] = frames[rows]
            self._fresh = False
        self._scores[rows] = self._last[rows] = 0
        self._terminated[rows] = self._truncated[rows] = False
        return self._observe(), self._info()

    def step(self, actions: Array) -> tuple[Any, Array, Array, Array, dict[str, Any]]:
        """Takes one action in each unfinished row; `actions` is `(N,)`."""
        actions = np.asarray(actions)
        count = self._num_actions
        if actions.shape != (self.num_envs,) or actions.min() < 0 or actions.max() >= count:
            raise ValueError(
                f"{title(self._game)} actions: expected ({self.num_envs},) integers from 0 to "
                f"{count - 1}, got shape {actions.shape} with values from {actions.min()} to "
                f"{actions.max()}"
            )
        if self._fresh:
            raise gymnasium.error.ResetNeeded("step before the first reset")
        going = ~(self._terminated | self._truncated)
        # The emulator resets a finished row by itself; what that row returns is ignored.
        frames, points, terminated, truncated, _ = self._emulator.step(actions.astype(np.int64))
        self._frames[going] = frames[going]
        self._terminated[going] = terminated[going]
        self._truncated[going] = truncated[going] & ~terminated[going]
        points = np.where(going, points, 0).astype(np.float64)
        self._scores += points
        self._last[going, 0] = np.sign(points[going])
        self._last[going, 1:] = actions[going, None] == np.arange(count)
        rewards = np.sign(points) if self.options.clip_rewards else points
        flags = self._terminated.copy(), self._truncated.copy()
        return self._observe(), rewards, *flags, self._info()

    def _observe(self) -> Any:
        alone = self.options.num_frames == 1
        frames = (self._frames[:, 0] if alone else self._frames).copy()
        told = [self.options.last_reward, *[self.options.last_action] * self._num_actions]
        return {"image": frames, "last": self._last[:, told]} if any(told) else frames

    def _info(self) -> dict[str, Any]:
        info = {"score": self._scores.copy()}
        if self._reference is not None:
            low, high = self._reference
            info["normalised_score"] = 100 * (self._scores - low) / (high - low)
        return info


class Atari(gymnasium.Env[Any, np.int64]):
    """One episode of a game: a row of `AtariVector`.

    Args:
        options: See `AtariOptions`.
        length: Number of steps after which an episode is truncated.

    Attributes:
        frame: The last frame, `(84, 84)` uint8.
    """

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (Gymnasium's own convention)

    def __init__(self, options: AtariOptions | None = None, length: int = LONGEST) -> None:
        self._row = AtariVector(1, options, length, workers=1)
        self.options, self.max_steps = self._row.options, self._row.max_steps
        self.observation_space = self._row.single_observation_space
        self.action_space = self._row.single_action_space
        self.frame: Array = np.zeros((SIZE, SIZE), dtype=np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(1 << 63)) if seed is None else seed
        seen, info = self._row.reset(seed=[seed])
        return self._observe(seen), _first(info)

    def step(self, action: np.int64 | int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        seen, rewards, terminated, truncated, info = self._row.step(np.array([action]))
        flags = bool(terminated[0]), bool(truncated[0])
        return self._observe(seen), float(rewards[0]), *flags, _first(info)

    def _observe(self, seen: Any) -> Any:
        """Returns the observation of the row, and keeps its last frame."""
        single = {key: part[0] for key, part in seen.items()} if isinstance(seen, dict) else seen[0]
        image = single["image"] if isinstance(single, dict) else single
        self.frame = image if image.ndim == 2 else image[-1]
        return single


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {key: float(values[0]) for key, values in info.items()}


@lru_cache(maxsize=1)
def _games() -> tuple[str, ...]:
    _emulator()
    from ale_py import roms

    return tuple(sorted(roms.get_all_rom_ids()))


@lru_cache(maxsize=64)
def _num_actions(rom: str) -> int:
    return int(_emulator()(rom, 1, num_threads=1).single_action_space.n)


def _emulator() -> Any:
    """Returns the class of the emulator's vector environment, without its start-up messages.

    Raises:
        ConfigError: If `ale-py` is not installed.
    """
    try:
        from ale_py import ALEInterface, LoggerMode
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        raise ConfigError(
            f"Atari needs ale-py ({error}). Install it with: {install('atari')}"
        ) from error
    ALEInterface.setLoggerMode(LoggerMode.Error)
    return AtariVectorEnv
