"""Atari 2600 games with the preprocessing of DQN (Mnih et al. 2015, extended data table 1).

An action is repeated for four emulator frames (frame skip). A frame is the pixel-wise maximum of
the last two of them, in grey, 84 x 84 pixels. An episode begins after a random number of no-ops.
The vector environment of `ale-py` does this, for one row as for many. An observation is one frame;
`data.frame_stack` stacks the usual four.

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
    """

    game: str = "Pong"
    sticky_actions: float = 0.0
    noop_max: int = 30
    fire_reset: bool = False
    clip_rewards: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.sticky_actions < 1:
            raise ConfigError(f"env.sticky_actions is {self.sticky_actions}; use [0, 1).")
        if not 0 <= self.noop_max <= 1000:
            raise ConfigError(f"env.noop_max is {self.noop_max}; use 0 to 1000.")

    @property
    def rom(self) -> str:
        """The game's name as the emulator spells it."""
        return rom_name(self.game, _games())


def atari_spec(options: AtariOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: frames `(84, 84)` uint8, and the game's minimal action set."""
    options = options or AtariOptions()
    target = TARGET_RETURNS.get(options.rom, 0.0)
    if not options.clip_rewards:
        target *= POINTS.get(options.rom, 1.0)
    frame = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
    return EnvironmentSpec("atari", frame, spaces.Discrete(_num_actions(options.rom)), target)


class AtariVector(VectorEnv[Array, Array, Array]):
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
        self.options, self.max_steps = options or AtariOptions(), _checked_length(length)
        self.num_envs, self._game = num_envs, self.options.rom
        self._reference = REFERENCE_SCORES.get(self._game)
        self._emulator = _emulator()(
            self._game,
            num_envs,
            num_threads=min(workers or 0, num_envs),
            max_num_frames_per_episode=SKIP * length,
            repeat_action_probability=self.options.sticky_actions,
            stack_num=1,
            noop_max=self.options.noop_max,
            use_fire_reset=self.options.fire_reset,
            reward_clipping=False,
        )
        self.metadata = {"render_modes": [], **WAITING}
        self.single_observation_space = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
        self._num_actions = int(self._emulator.single_action_space.n)
        self.single_action_space = spaces.Discrete(self._num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._frames = np.zeros((num_envs, SIZE, SIZE), dtype=np.uint8)
        self._scores = np.zeros(num_envs)
        self._terminated, self._truncated = (np.ones(num_envs, dtype=bool) for _ in range(2))
        self._fresh = True

    def reset(
        self,
        *,
        seed: int | Sequence[int] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Starts episodes; an integer `seed` gives row `i` the seed `seed + i`."""
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if rows.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {rows.shape}; expected ({self.num_envs},)")
        # The emulator takes seeds of 31 bits.
        seeds = hash_counter(row_seeds(self, seed), _SEED_COUNTER).astype(np.int64)
        if rows.any():
            begun = rows | self._fresh  # the emulator's first reset must be of all rows
            frames, _ = self._emulator.reset(seed=seeds[begun], options={"reset_mask": begun})
            self._frames[rows] = frames[rows, 0]
            self._fresh = False
        self._scores[rows] = 0
        self._terminated[rows] = self._truncated[rows] = False
        return self._frames.copy(), self._info()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
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
        self._frames[going] = frames[going, 0]
        self._terminated[going] = terminated[going]
        self._truncated[going] = truncated[going] & ~terminated[going]
        points = np.where(going, points, 0).astype(np.float64)
        self._scores += points
        rewards = np.sign(points) if self.options.clip_rewards else points
        flags = self._terminated.copy(), self._truncated.copy()
        return self._frames.copy(), rewards, *flags, self._info()

    def _info(self) -> dict[str, Any]:
        info = {"score": self._scores.copy()}
        if self._reference is not None:
            low, high = self._reference
            info["normalised_score"] = 100 * (self._scores - low) / (high - low)
        return info


class Atari(gymnasium.Env[Array, np.int64]):
    """One episode of a game: a row of `AtariVector`.

    Args:
        options: See `AtariOptions`.
        length: Number of steps after which an episode is truncated.

    Attributes:
        frame: The last observation, `(84, 84)` uint8.
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
    ) -> tuple[Array, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(1 << 63)) if seed is None else seed
        frames, info = self._row.reset(seed=[seed])
        self.frame = frames[0]
        return self.frame, _first(info)

    def step(self, action: np.int64 | int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        frames, rewards, terminated, truncated, info = self._row.step(np.array([action]))
        self.frame = frames[0]
        flags = bool(terminated[0]), bool(truncated[0])
        return self.frame, float(rewards[0]), *flags, _first(info)


def _first(info: dict[str, Any]) -> dict[str, Any]:
    return {key: float(values[0]) for key, values in info.items()}


def _checked_length(length: int) -> int:
    if length < 1:
        raise ValueError(f"Atari length {length!r}: an episode has at least 1 step")
    return int(length)


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
