"""Vector environments of users score as single episodes do, in every autoreset mode."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.vector import (
    AsyncVectorEnv,
    AutoresetMode,
    SyncVectorEnv,
    VectorEnv,
    VectorWrapper,
)
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics

from rate.analysis.memory import record
from rate.analysis.recording import record_episode
from rate.envs.autoreset import without_autoreset
from rate.envs.frame_stack import FrameStackVector
from rate.envs.serial_vector import SerialVectorEnv
from rate.errors import UserError
from rate.model import SequenceModel
from rate.policy import Policy
from tests.factories import MODELS
from tests.trainers.fakes import Counting
from trainers.episode_rows import RolloutResult
from trainers.rollout import rollout

MODES = list(AutoresetMode)
SEEDS = [3, 11, 4, 8, 20, 7, 1, 16, 9, 5, 2]
ROWS = 4


class Known(gymnasium.Env[Any, Any]):
    """Episodes with 1 + seed % 5 steps; with `Counting`, each step has the seed as its reward.

    A reset without a seed and a wrong action lead to rewards so large that scores show them.
    """

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = gymnasium.spaces.Discrete(4)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.seed, self.time = 1e9 if seed is None else seed, 0
        return self.observe(), {"number": -1, "success": True, "begun": 1.0}

    def step(self, action: Any) -> Any:
        reward = self.seed if action == self.time % 4 else 1e12
        self.time += 1
        ended = self.time >= 1 + self.seed % 5
        info = {"number": int(self.seed % 1000)}
        if ended:  # not of all episodes, and of NumPy's own type
            info |= {"success": np.bool_(self.seed % 2 == 0)}
            info |= {"odd": 0.5 + self.seed} if self.seed % 2 else {}
        return (
            self.observe(),
            reward,
            ended and self.seed % 3 == 0,
            ended and self.seed % 3 > 0,
            info,
        )

    def observe(self) -> Any:
        return np.array([self.seed % 1000, self.time], dtype=np.float64)


class Own(VectorEnv[Any, Any, Any]):
    """A user's vector environment; it supports `reset_mask` only with autoreset disabled."""

    def __init__(self, mode: AutoresetMode) -> None:
        self.mode, self.metadata = mode, {"autoreset_mode": mode}
        self.envs, self.num_envs = [Known() for _ in range(ROWS)], ROWS
        self.single_observation_space, self.single_action_space = self.spaces = (
            Known.observation_space,
            Known.action_space,
        )
        self.observation_space, self.action_space = (batch_space(s, ROWS) for s in self.spaces)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        mask = (options or {}).get("reset_mask")
        assert mask is None or self.mode is AutoresetMode.DISABLED
        for row, env in enumerate(self.envs):
            if mask is None or mask[row]:
                env.reset(seed=seed[row])
        self.owed = np.zeros(ROWS, bool) if mask is None else self.owed & ~mask
        return self.observe(), {}

    def step(self, actions: Any) -> Any:
        assert self.mode is not AutoresetMode.DISABLED or not self.owed.any()
        rewards, ended, info, last = np.zeros(ROWS), np.zeros(ROWS, bool), {}, [None] * ROWS
        for row, env in enumerate(self.envs):
            if self.owed[row]:
                env.reset()
                continue
            last[row], rewards[row], *flags, row_info = env.step(actions[row])
            ended[row] = any(flags)
            if ended[row] and self.mode is AutoresetMode.SAME_STEP:
                row_info = {"final_obs": last[row], "final_info": row_info, **env.reset()[1]}
            self._add_info(info, row_info, row)
        self.owed = ended & (self.mode is not AutoresetMode.SAME_STEP)
        return self.observe(), rewards, ended, np.zeros(ROWS, bool), info

    def observe(self) -> Any:
        return np.stack([env.observe() for env in self.envs])


class Forgetful(VectorWrapper):
    """A user's wrapper that drops the options of `reset`."""

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.env.reset(seed=seed)


def gymnasiums(mode: AutoresetMode, kind: Any = SyncVectorEnv, **more: Any) -> Any:
    return kind([Known] * ROWS, autoreset_mode=mode, **more)


def made(mode: AutoresetMode, vectorization: str) -> Any:
    if "Known-v0" not in gymnasium.registry:
        gymnasium.register("Known-v0", Known, disable_env_checker=True)
    return gymnasium.make_vec(
        "Known-v0",
        ROWS,
        vectorization_mode=vectorization,
        vector_kwargs={"autoreset_mode": mode},
    )


MAKERS: dict[str, Callable[[AutoresetMode], Any]] = {
    "sync": gymnasiums,
    "views": partial(gymnasiums, copy=False),
    "async": partial(gymnasiums, kind=AsyncVectorEnv),
    "made": partial(made, vectorization="sync"),
    "wrapped": lambda mode: RecordEpisodeStatistics(gymnasiums(mode)),
    "wrapped by the user": lambda mode: Forgetful(gymnasiums(mode)),
    "user's own": Own,
}


class Alert(Counting):
    """Counts steps and asserts that observations are of the current step and episode."""

    def reset(self, rows: Any = None, episodes: Any = None) -> None:
        super().reset(rows, episodes)
        self.seeds = np.array(episodes)
        self.over = np.zeros(len(self.seeds), bool) if rows is None else self.over & ~rows

    def act(self, observations: Any, rewards: Any = None) -> Any:
        going = ~self.over
        assert (observations[going, 0] == self.seeds[going]).all()
        assert (observations[going, 1] == self.time[going]).all()
        actions = super().act(observations, rewards)
        self.over |= self.time > self.seeds % 5
        return actions


def play(env: Any, seeds: list[int] = SEEDS) -> RolloutResult:
    try:
        return rollout([Alert(env.num_envs)], [env], seeds)
    finally:
        env.close()


def check(found: RolloutResult, seeds: list[int] = SEEDS) -> None:
    assert found.lengths.tolist() == [1 + seed % 5 for seed in seeds]
    assert found.returns.tolist() == [seed * (1 + seed % 5) for seed in seeds]
    assert found.outcomes["number"].tolist() == seeds
    assert found.outcomes["success"].tolist() == [seed % 2 == 0 for seed in seeds]
    odd = [0.5 + seed if seed % 2 else np.nan for seed in seeds]
    np.testing.assert_array_equal(found.outcomes["odd"], odd)
    assert "begun" not in found.outcomes  # the info of a reset belongs to another episode


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", MAKERS)
def test_every_mode_has_the_scores_of_single_episodes(kind: str, mode: AutoresetMode) -> None:
    if kind == "wrapped by the user" and mode is AutoresetMode.DISABLED:
        with pytest.raises(UserError, match=r"Forgetful.* has reset more rows than"):
            play(MAKERS[kind](mode))
    else:
        check(play(MAKERS[kind](mode)))


def test_vector_environments_of_the_project_have_them_too() -> None:
    check(play(SerialVectorEnv(Known, ROWS)))
    check(play(SerialVectorEnv(Known, len(SEEDS))))


@pytest.mark.parametrize("mode", MODES)
def test_more_rows_than_seeds_are_allowed(mode: AutoresetMode) -> None:
    check(play(gymnasiums(mode), [4, 3]), [4, 3])
    check(play(Own(mode), [4, 3, 8, 9, 1]), [4, 3, 8, 9, 1])


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_worker_processes_without_shared_memory(mode: AutoresetMode) -> None:
    check(play(gymnasiums(mode, AsyncVectorEnv, shared_memory=False)))


def test_an_environment_that_begins_episodes_twice_is_refused() -> None:
    env = gymnasiums(AutoresetMode.NEXT_STEP, AsyncVectorEnv, shared_memory=False)
    with pytest.raises(UserError, match=r"shared_memory=False begins an episode once more"):
        play(env)


def test_finished_rows_do_not_change() -> None:
    """Finished rows keep observation and flags, have no reward and ignore resets of other rows."""
    for mode in MODES:
        env = without_autoreset(gymnasiums(mode))
        env.reset(seed=[5, 6, 7, 8])
        for _ in range(3):
            seen, rewards, terminated, truncated, _ = env.step(np.zeros(ROWS, int))
            assert seen[0].tolist() == [5, 1]
            assert not terminated[0]
            assert truncated[0]
        assert rewards[0] == rewards[1] == 0
        assert seen[1].tolist() == [6, 2]
        seen, _ = env.reset(
            seed=[0, 10, 0, 0], options={"reset_mask": np.array([0, 1, 0, 0], bool)}
        )
        assert seen[:, 0].tolist() == [5, 10, 7, 8]
        assert env.step(np.zeros(ROWS, int))[3].tolist()[0]


def test_frame_stacks_hold_one_episode_only() -> None:
    class Frames(Known):
        observation_space = gymnasium.spaces.Box(0, 255, (2, 3), np.uint8)

        def observe(self) -> Any:
            return np.full((2, 3), self.seed % 50 * 5 + self.time, np.uint8)

    for mode in MODES:
        env = FrameStackVector(SyncVectorEnv([Frames] * 2, autoreset_mode=mode), 3)
        env.reset(seed=[5, 8])
        env.step(np.zeros(2, int))
        seen, _ = env.reset(seed=[6, 0], options={"reset_mask": np.array([True, False])})
        assert seen[:, :, 0, 0].tolist() == [[0, 0, 30], [0, 40, 41]]
        assert env.step(np.zeros(2, int))[0][:, :, 0, 0].tolist() == [[0, 30, 31], [40, 41, 42]]


class Mute(VectorWrapper):
    """A wrapper with other metadata than its environment."""

    def __init__(self, env: Any, **metadata: Any) -> None:
        super().__init__(env)
        self.metadata = metadata

    def step(self, actions: Any) -> Any:
        *result, _ = super().step(actions)
        return *result, {}


def test_a_wrapper_that_drops_reset_options_is_detected() -> None:
    """A wrapper that passes its options on is accepted; one that drops them is detected."""
    check(play(VectorWrapper(SerialVectorEnv(Known, ROWS))))
    with pytest.raises(UserError, match=r"Forgetful.* has reset more rows than"):
        play(Forgetful(SerialVectorEnv(Known, ROWS)))
    check(play(Careful(SerialVectorEnv(Known, ROWS))))


class Careful(VectorWrapper):
    """A user's wrapper that passes everything on."""


def test_unusable_vector_environments_are_refused_by_name() -> None:
    with pytest.raises(UserError, match=r"<Known.*> is a single environment"):
        rollout([Counting(1)], [Known()], [1])
    sync = gymnasiums(AutoresetMode.SAME_STEP)
    for metadata in ({}, {"autoreset_mode": "now and then"}, {"autoreset_mode": True}):
        with pytest.raises(UserError, match=r"<Mute.* does not say what it does when an episode"):
            play(Mute(sync, **metadata))
    with pytest.raises(UserError, match=r"Mute.* has no final_obs"):
        play(Mute(sync, autoreset_mode="SameStep"))
    with pytest.raises(UserError, match="DictInfoToList"):
        play(DictInfoToList(gymnasiums(AutoresetMode.NEXT_STEP)))
    with pytest.raises(UserError, match=r"CartPoleVectorEnv.* does not take a seed for each row"):
        play(gymnasium.make_vec("CartPole-v1", ROWS, vectorization_mode="vector_entry_point"))


@pytest.mark.parametrize("seeds", [[], [-1, 2], [1, 1 << 64]])
def test_invalid_seeds_are_refused(seeds: list[int]) -> None:
    with pytest.raises(ValueError, match="seeds of the episodes"):
        play(SerialVectorEnv(Known, 2), seeds)


@pytest.mark.parametrize("mode", MODES)
def test_a_recorded_episode_stops_at_its_end(mode: AutoresetMode) -> None:
    """The last observation and info are those of the recorded episode, not of the next one."""
    torch.manual_seed(0)
    model = SequenceModel(MODELS["rate"], Known.observation_space, Known.action_space).eval()
    policy = Policy(model, num_envs=1, target_return=1.0)
    filmed = record_episode(policy, SyncVectorEnv([Known], autoreset_mode=mode), 9)
    assert (filmed.steps, filmed.finished) == (5, True)
    assert filmed.outcome == {"number": 9, "success": 0, "odd": 9.5}
    assert filmed.moments[-1].observation.tolist() == [9, 5]


@pytest.mark.parametrize("mode", MODES)
def test_memory_is_inspected_in_whole_episodes(mode: AutoresetMode) -> None:
    batch = record(Alone(), SyncVectorEnv([Known] * 3, autoreset_mode=mode), seed=7)
    assert isinstance(batch.observations, torch.Tensor)
    # The seeds 7, 8 and 9 have episodes of 3, 4 and 5 steps.
    assert batch.observations[..., 0].tolist() == [[7] * 5, [8] * 5, [9] * 5]
    assert batch.observations[..., 1].tolist() == [
        [0, 1, 2, 3, 3],
        [0, 1, 2, 3, 4],
        [0, 1, 2, 3, 4],
    ]
    assert batch.rewards.sum(1).tolist() == [21, 32, 45]
    assert batch.episode_end.nonzero().tolist() == [[0, 2], [1, 3], [2, 4]]


class Alone(Counting):
    """A policy that also keeps returns-to-go, as policies of models do."""

    def __init__(self) -> None:
        super().__init__(3)
        self.returns_to_go = torch.zeros(3, 1)
