"""MuJoCo locomotion of D4RL and Minari: HalfCheetah, Hopper and Walker2d.

The environments are Gymnasium's, version v4 or v5; neither `d4rl` nor `mujoco-py` is needed. D4RL's
data were recorded in v2, which has the rewards and observations of v4. Minari's data were recorded
in v5, where a fallen Hopper or Walker2d no longer gets the healthy reward. The physics engine has
changed since v2, so scores of v2, v4 and v5 are close but not equal. The version is a setting of
each run and saved model; state it with each score.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from rate.envs.headless import choose_renderer
from rate.envs.mujoco_arguments import check_argument, constructor_arguments
from rate.envs.serial_vector import SerialVectorEnv
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

PUBLISHED_LENGTH = 1000
VERSIONS = ("v4", "v5")

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Task:
    """Constants of a task.

    Attributes:
        gym_name: Name of Gymnasium's environment, without its version.
        observations: Size of an observation: positions without the distance travelled, velocities.
        actions: Size of an action: one torque per joint, in [-1, 1].
        target_return: Target return of Decision Transformer (Chen et al. 2021).
        random: Mean return of random actions, D4RL's reference for the score 0.
        expert: Mean return of D4RL's expert, its reference for the score 100.
    """

    gym_name: str
    observations: int
    actions: int
    target_return: float
    random: float
    expert: float


TASKS = {
    "halfcheetah": Task("HalfCheetah", 17, 6, 12_000, -280.178953, 12_135.0),
    "hopper": Task("Hopper", 11, 3, 3_600, -20.272305, 3_234.3),
    "walker2d": Task("Walker2d", 17, 6, 5_000, 1.629008, 4_592.3),
}


@dataclass(frozen=True)
class MujocoOptions:
    """Settings of a MuJoCo task.

    Attributes:
        task: `halfcheetah`, `hopper` or `walker2d`.
        version: Version of Gymnasium's environment: `v4` for D4RL's data, `v5` for Minari's.
        arguments: Arguments of the environment's constructor that differ from their defaults:
            reward weights, healthy ranges, whether the position is observed.
        max_episode_steps: Time limit of the data, if it is not 1000 steps. Episodes are truncated
            at this limit even if a greater length is given.
        score_0: Return with the normalised score 0; None is D4RL's, of random actions.
        score_100: Return with the normalised score 100; None is D4RL's, of its expert.
    """

    task: str = "halfcheetah"
    version: str = "v4"
    arguments: dict[str, Any] = field(default_factory=dict)
    max_episode_steps: int | None = None
    score_0: float | None = None
    score_100: float | None = None

    def __post_init__(self) -> None:
        for name, known in (("task", tuple(TASKS)), ("version", VERSIONS)):
            if getattr(self, name) not in known:
                raise ConfigError(
                    f"env.{name} is '{getattr(self, name)}'; choose one of: {', '.join(known)}."
                )
        if not isinstance(self.arguments, dict):
            raise ConfigError(
                f"env.arguments is {self.arguments!r}; it must be a table of arguments by name."
            )
        for name, value in self.arguments.items():
            check_argument(self.task, self.version, name, value)
        if self.max_episode_steps is not None and self.max_episode_steps < 1:
            raise ConfigError(
                f"env.max_episode_steps is {self.max_episode_steps}; it must be at least 1."
            )
        low, high = self.references
        if not (low < high and np.isfinite(high - low)):
            raise ConfigError(
                f"env.score_0 is {low:g} and env.score_100 is {high:g}; both must be finite, and "
                "the return with the score 100 must be the greater one."
            )

    @property
    def gym_id(self) -> str:
        """The id of Gymnasium's environment, for example `Hopper-v4`."""
        return f"{TASKS[self.task].gym_name}-{self.version}"

    @property
    def references(self) -> tuple[float, float]:
        """The returns with the normalised scores 0 and 100."""
        task = TASKS[self.task]
        return (
            task.random if self.score_0 is None else self.score_0,
            task.expert if self.score_100 is None else self.score_100,
        )


def mujoco_spec(options: MujocoOptions | None = None) -> EnvironmentSpec:
    """Returns the specification: a vector, torques, and the published target return."""
    options = options or MujocoOptions()
    task = TASKS[options.task]
    return EnvironmentSpec(
        f"mujoco-{options.task}", *_task_spaces(options), target_return=task.target_return
    )


def _task_spaces(options: MujocoOptions) -> tuple[spaces.Box, spaces.Box]:
    task = TASKS[options.task]
    # One number more if the distance travelled is observed.
    seen = not options.arguments.get("exclude_current_positions_from_observation", True)
    return (
        spaces.Box(-np.inf, np.inf, (task.observations + seen,), np.float32),
        spaces.Box(-1, 1, (task.actions,), np.float32),
    )


def normalised_score(earned: float, options: MujocoOptions) -> float:
    """Returns D4RL's normalised score of a return: 0 at `score_0`, 100 at `score_100`."""
    low, high = options.references
    return 100 * (earned - low) / (high - low)


class Mujoco(gymnasium.Env[Array, Array]):
    """One task of MuJoCo.

    Observations are `(D,)` float32, actions `(A,)` float32 in [-1, 1]. Hopper and Walker2d
    terminate when they fall. At the end of an episode `info["normalised_score"]` is D4RL's
    normalised score.

    Args:
        options: See `MujocoOptions`.
        length: Number of steps after which an episode is truncated; 1000 is published.
        render_mode: Gymnasium's; `render` works in any mode.

    Raises:
        ValueError: If the length is below 1.
    """

    metadata: dict[str, Any] = {  # noqa: RUF012 (Gymnasium's own convention)
        "render_modes": ["rgb_array"],
        "render_fps": 20,
    }

    def __init__(
        self,
        options: MujocoOptions | None = None,
        length: int = PUBLISHED_LENGTH,
        render_mode: str | None = None,
    ) -> None:
        self.options = options or MujocoOptions()
        self.render_mode = render_mode
        if length < 1:
            raise ValueError(f"MuJoCo length {length!r}: an episode has at least 1 step")
        self.observation_space, self.action_space = _task_spaces(self.options)
        limit = self.options.max_episode_steps
        self.max_steps = length if limit is None else min(length, limit)
        # Created at the first reset: it takes time, and the spaces do not need it.
        self._simulator: Any = None
        self._observation: Array = np.zeros(self.observation_space.shape, dtype=np.float32)
        self._time, self._return, self._flags = 0, 0.0, (True, False)

    @property
    def state(self) -> tuple[Array, Array]:
        """Positions (with the distance travelled) and velocities of all joints, float64.

        Raises:
            ResetNeeded: If no episode has begun.
        """
        if self._simulator is None:
            raise ResetNeeded("MuJoCo: call reset() first")
        return self._simulator.data.qpos.copy(), self._simulator.data.qvel.copy()

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Array, dict[str, Any]]:
        """Starts an episode. It depends on `seed` alone; None takes a seed from the generator."""
        super().reset(seed=seed)
        seed = seed if seed is not None else int(self.np_random.integers(1 << 63))
        if self._simulator is None:
            self._simulator = _make_simulator(self.options)
        observation, _ = self._simulator.reset(seed=seed)
        self._observation = observation.astype(np.float32)
        self._time, self._return, self._flags = 0, 0.0, (False, False)
        return self._observation.copy(), {}

    def step(self, action: Array) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Takes one action. A finished episode keeps its observation and flags; its reward is 0."""
        if self._simulator is None:
            raise ResetNeeded("MuJoCo: call reset() before step()")
        action = np.asarray(action, dtype=np.float32)
        if not self.action_space.contains(action):
            raise ValueError(f"MuJoCo action {action!r}: expected one of {self.action_space}")
        reward = 0.0
        if not any(self._flags):
            observation, earned, terminated, _, _ = self._simulator.step(action)
            self._observation, reward = observation.astype(np.float32), float(earned)
            self._time += 1
            self._return += reward
            self._flags = bool(terminated), not terminated and self._time >= self.max_steps
        info: dict[str, Any] = {}
        if any(self._flags):
            info["normalised_score"] = normalised_score(self._return, self.options)
        return self._observation.copy(), reward, *self._flags, info

    def render(self) -> npt.NDArray[np.uint8]:
        """Returns an image, `(240, 320, 3)` uint8.

        Raises:
            ConfigError: If MuJoCo cannot render here.
            ResetNeeded: If no episode has begun.
        """
        if self._simulator is None:
            raise ResetNeeded("MuJoCo: call reset() before render()")
        choose_renderer()
        image: npt.NDArray[np.uint8] = self._simulator.render()
        return image

    def close(self) -> None:
        """Frees the simulator; the next `reset` creates another."""
        if self._simulator is not None:
            self._simulator.close()
            self._simulator = None


class MujocoVector(SerialVectorEnv):
    """`N` rows of a task in this process: a step takes less time than a message to a worker.

    Args:
        num_envs: The number `N` of rows.
        options: See `MujocoOptions`.
        length: Number of steps after which an episode is truncated.
    """

    def __init__(
        self,
        num_envs: int,
        options: MujocoOptions | None = None,
        length: int = PUBLISHED_LENGTH,
    ) -> None:
        super().__init__(partial(Mujoco, options, length), num_envs)


def _make_simulator(options: MujocoOptions) -> Any:
    """Returns Gymnasium's environment without the wrappers that check each step."""
    import mujoco
    from gymnasium.envs.registration import load_env_creator

    found = gymnasium.spec(options.gym_id)
    make = load_env_creator(str(found.entry_point))
    # MuJoCo warns of deprecated names in Gymnasium's models, on the terminal and in a file in the
    # working directory.
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        arguments = found.kwargs | constructor_arguments(options.arguments)
        return make(render_mode="rgb_array", width=320, height=240, **arguments)
    finally:
        mujoco.set_mju_user_warning(before)
