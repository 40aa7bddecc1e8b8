"""Atari 2600 games with the preprocessing of Deep Q-learning: grey 84 x 84 frames.

Every frame is the maximum of the last two of four emulator frames, in grey, of 84 x 84 pixels; an
action holds for the four; an episode begins after a random number of idle frames (Mnih et al. 2015,
extended data table 1). The emulator's own vector environment does all of it, for one row as for
many. An observation is one frame: `data.frame_stack` makes the usual four of them.

Rewards are clipped to -1, 0 and 1, as in the DQN-replay data, so that a return-to-go means the same
in training and in a rollout. The game's own score is the outcome `score`, and where the literature
has reference scores, `normalised_score` is 0 for random play and 100 for a human.
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
LONGEST = 27_000  # steps of 4 frames: half an hour, as published
_SEED_COUNTER = np.array([(1 << 62) + 5], dtype=np.uint64)

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class AtariOptions:
    """The settings of an Atari game.

    Attributes:
        game: Breakout, Qbert, Seaquest, Pong or any other game of `ale-py`, in whatever case.
        sticky_actions: Probability that the emulator repeats the action before instead, at each of
            its frames. DQN-replay was recorded with 0.25; published evaluations use 0.
        noop_max: Most idle frames before an episode.
        fire_reset: Begin games that wait for the fire button by pressing it.
        clip_rewards: Rewards are -1, 0 or 1 instead of the game's points.
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
        """The name of the game in the spelling of the emulator."""
        return rom_name(self.game, _games())


def atari_spec(options: AtariOptions | None = None) -> EnvironmentSpec:
    """The spaces of a game, a grey frame and its minimal action set, and the target return."""
    options = options or AtariOptions()
    target = TARGET_RETURNS.get(options.rom, 0.0)
    if not options.clip_rewards:
        target *= POINTS.get(options.rom, 1.0)
    frame = spaces.Box(0, 255, (SIZE, SIZE), np.uint8)
    return EnvironmentSpec("atari", frame, spaces.Discrete(_num_actions(options.rom)), target)


class AtariVector(VectorEnv[Array, Array, Array]):
    """`N` episodes of a game in the emulator's threads.

    There is no autoreset: a finished row keeps its last frame and flags, with zero reward, until
    `reset`; `options={"reset_mask": (N,) bool}` resets some rows only. The same seed and actions
    give the same episode in any row, and after any other. `info` holds `score`, the game's own
    points so far, and where there are reference scores `normalised_score`.

    Args:
        num_envs: The number `N` of rows.
        options: See `AtariOptions`.
        length: Steps after which an episode is cut.
        workers: Threads of the emulator; None is one per core.

    Raises:
        ConfigError: If there is no such game, or no emulator.
        ValueError: If there are no rows, or no steps.
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
        """Start episodes; an integer `seed` gives row `i` the seed `seed + i`."""
        rows = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs)), dtype=bool)
        if rows.shape != (self.num_envs,):
            raise ValueError(f"reset_mask has shape {rows.shape}; expected ({self.num_envs},)")
        # A hash of 31 bits, which is what the emulator takes.
        seeds = hash_counter(row_seeds(self, seed), _SEED_COUNTER).astype(np.int64)
        if rows.any():
            begun = rows | self._fresh  # the first time the emulator wants all rows
            frames, _ = self._emulator.reset(seed=seeds[begun], options={"reset_mask": begun})
            self._frames[rows] = frames[rows, 0]
            self._fresh = False
        self._scores[rows] = 0
        self._terminated[rows] = self._truncated[rows] = False
        return self._frames.copy(), self._info()

    def step(self, actions: Array) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        """One action in every row that is not finished; `actions` is `(N,)`."""
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
        # A finished row begins a game of its own in the emulator, which nobody looks at.
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
        length: Steps after which an episode is cut.

    Attributes:
        frame: `(84, 84)` uint8, the last observation.
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
        """Starts an episode. It is a function of the seed, which the generator samples if None."""
        super().reset(seed=seed)
        seed = int(self.np_random.integers(1 << 63)) if seed is None else seed
        frames, info = self._row.reset(seed=[seed])
        self.frame = frames[0]
        return self.frame, _first(info)

    def step(self, action: np.int64 | int) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """One action. After its end an episode stays as it is, with zero reward."""
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
    """The emulator's vector environment, told not to greet.

    Raises:
        ConfigError: If it is not installed.
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
