"""Environments in worker processes: what a step and a reset give."""

from __future__ import annotations

import gc
import os
from functools import partial

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from rate.envs.tmaze import TMaze, TMazeVector
from rate.envs.worker_vector import WorkerVectorEnv
from rate.workers.pool import split_evenly
from tests.worker_envs import Noise

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def flat(observation):
    return list(observation.values()) if isinstance(observation, dict) else [observation]


def assert_row(observations, row, expected):
    for batch, single in zip(flat(observations), flat(expected), strict=True):
        np.testing.assert_array_equal(batch[row], single)


def assert_plays_like_loops(vector, make_env, seeds, steps=8):
    """Every row is a plain environment with its seed, and stays as it is once it has finished."""
    space = batch_space(make_env().action_space, len(seeds))
    space.seed(0)
    observations, _ = vector.reset(seed=seeds)
    assert vector.observation_space.contains(observations)
    envs = [make_env() for _ in seeds]
    frames = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)]
    flags, outcomes = [(False, False)] * len(seeds), [{} for _ in seeds]
    for row, frame in enumerate(frames):
        assert_row(observations, row, frame)
    for _ in range(steps):
        actions = space.sample()
        observations, rewards, terminated, truncated, info = vector.step(actions)
        for row, env in enumerate(envs):
            reward = 0.0
            if not any(flags[row]):
                frames[row], reward, *ends, ending = env.step(actions[row])
                flags[row] = tuple(ends)
                outcomes[row] = ending if any(ends) else {}
            assert_row(observations, row, frames[row])
            assert (rewards[row], terminated[row], truncated[row]) == (reward, *flags[row])
            for key, value in outcomes[row].items():
                assert info[f"_{key}"][row]
                assert info[key][row] == value
    assert (terminated | truncated).all()
    assert not info["restarted"].any()


@pytest.mark.parametrize(
    ("cores", "num_envs", "expected"), [(1, 8, 1), (3, 8, 3), (4, 8, 3), (16, 32, 15), (16, 8, 8)]
)
def test_one_of_many_cores_is_left_to_the_policy(monkeypatch, cores, num_envs, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(cores)), raising=False)
    rows = split_evenly(num_envs, None)
    assert len(rows) == expected
    assert [row for chunk in rows for row in chunk] == list(range(num_envs))


@pytest.mark.parametrize(
    ("num_envs", "num_workers", "keyed", "action_space"),
    [
        (5, 2, False, Discrete(4)),
        (3, 3, True, Discrete(3, start=-1)),
        (2, 1, True, MultiDiscrete([3, 2])),
        (2, 2, False, Box(-1, 1, (2,), np.float32)),
    ],
)
def test_rows_are_plain_environments(num_envs, num_workers, keyed, action_space):
    make_env = partial(Noise, keyed, action_space)
    vector = WorkerVectorEnv(make_env, num_envs, num_workers)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert vector.single_action_space == action_space
    assert_plays_like_loops(vector, make_env, list(range(7, 7 + num_envs)))
    vector.close()


def test_agrees_with_the_tmaze_in_numpy():
    workers, reference = WorkerVectorEnv(lambda: TMaze(6), 3, 2), TMazeVector(3, 6)
    for seed in (3, [4, 8, 1]):
        theirs, ours = reference.reset(seed=seed)[0], workers.reset(seed=seed)[0]
        np.testing.assert_array_equal(theirs, ours)
        for actions in ([0, 0, 1], [0, 0, 0], [0, 2, 0], [0, 0, 0], [1, 3, 1]):
            for a, b in zip(workers.step(actions)[:4], reference.step(actions)[:4], strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
    workers.close()


def test_outcomes_come_with_the_end_and_go_with_a_reset():
    vector = WorkerVectorEnv(Noise, 3, 2)
    vector.reset(seed=[4, 5, 7])  # 3, 4 and 6 steps
    for _ in range(2):
        assert vector.step([0, 0, 0])[4].keys() == {"restarted"}
    info = vector.step([0, 0, 0])[4]
    np.testing.assert_array_equal(info["steps"], [3, np.nan, np.nan])
    np.testing.assert_array_equal(info["_steps"], [True, False, False])
    vector.step([0, 0, 0])
    info = vector.reset(seed=[8, 9, 9], options={"reset_mask": [True, False, False]})[1]
    np.testing.assert_array_equal(info["score"], [np.nan, 0.5, np.nan])
    np.testing.assert_array_equal(info["success"], [False, True, False])
    np.testing.assert_array_equal(info["_success"], [False, True, False])
    assert "ignored" not in info
    vector.close()


def test_reset_mask_leaves_the_others_alone():
    vector, lone = WorkerVectorEnv(Noise, 4, 2), Noise()
    before, _ = vector.reset(seed=20)
    after, _ = vector.reset(seed=40, options={"reset_mask": [False, True, False, False]})
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert_row(after, 1, lone.reset(seed=41)[0])
    assert_row(vector.step([1] * 4)[0], 1, lone.step(1)[0])
    vector.close()


def test_rows_without_a_reset_count_as_finished():
    vector = WorkerVectorEnv(Noise, 2, 1)
    observations, _ = vector.reset(seed=3, options={"reset_mask": [True, False]})
    assert observations[0].any()
    assert not observations[1].any()
    _, _, terminated, truncated, _ = vector.step([0, 0])
    np.testing.assert_array_equal(terminated | truncated, [False, True])
    vector.close()


def test_without_a_seed_every_episode_is_new_but_follows_the_last_seed():
    vector = WorkerVectorEnv(Noise, 2, 1)
    runs = []
    for _ in range(2):
        vector.reset(seed=1)
        runs.append(np.stack([vector.reset()[0], vector.reset()[0]]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len(np.unique(runs[0].reshape(4, -1), axis=0)) == 4
    vector.close()


def test_copies_are_kept_and_views_are_not():
    for copy in (True, False):
        vector = WorkerVectorEnv(Noise, 2, 1, copy=copy)
        first, _ = vector.reset(seed=0)
        kept = first.copy()
        second = vector.step([0, 0])[0]
        assert np.array_equal(first, kept) is copy
        assert np.shares_memory(second, first) is not copy
        vector.close()


def test_split_steps_and_their_order():
    vector = WorkerVectorEnv(Noise, 2, 2)
    vector.reset(seed=0)
    with pytest.raises(NoAsyncCallError, match="step_async"):
        vector.step_wait()
    vector.step_async([0, 1])
    with pytest.raises(AlreadyPendingCallError, match="step_wait"):
        vector.step_async([0, 1])
    split = vector.step_wait()[0]
    vector.reset(seed=0)
    vector.step_async([1, 1])
    vector.reset(seed=0)  # an unfinished step does no harm
    np.testing.assert_array_equal(vector.step([0, 1])[0], split)
    vector.close()


def test_groups_step_each_on_its_own():
    vector, whole = WorkerVectorEnv(Noise, 5, 2), WorkerVectorEnv(Noise, 5, 2)
    assert [group.num_envs for group in vector.groups(9)] == [3, 2]  # no more than rows of a worker
    groups = vector.groups(2)
    rows = [slice(0, None, 2), slice(1, None, 2)]
    seeds = np.arange(20, 25)
    expected, _ = whole.reset(seed=seeds.tolist())
    for group, part in zip(groups, rows, strict=True):
        group.reset_async(seed=seeds[part].tolist())
    with pytest.raises(AlreadyPendingCallError, match="reset_wait"):
        groups[0].step_async([0, 0, 0])
    for group, part in zip(groups, rows, strict=True):
        np.testing.assert_array_equal(group.reset_wait()[0], expected[part])
    actions = np.array([0, 1, 2, 3, 0])
    for _ in range(6):
        expected = whole.step(actions)
        for group, part in zip(groups, rows, strict=True):
            group.step_async(actions[part])
        for group, part in reversed(list(zip(groups, rows, strict=True))):
            found = group.step_wait()
            for mine, all_rows in zip(found[:4], expected[:4], strict=True):
                np.testing.assert_array_equal(mine, all_rows[part])
            for key, values in found[4].items():
                np.testing.assert_array_equal(values, expected[4][key][part])
    for group in groups:
        group.close()  # together with the vector
    assert not groups[0].closed
    vector.close()
    whole.close()
    assert groups[0].closed
    with pytest.raises(ClosedEnvironmentError):
        groups[0].step([0, 0, 0])


def test_groups_keep_their_vector_alive():
    groups = WorkerVectorEnv(Noise, 2, 1).groups(2)
    gc.collect()
    for group in groups:
        group.reset(seed=4)
    del group, groups


@pytest.mark.parametrize("actions", [[0], [[0, 0]], [0.0, 1.0], [0, 4], [-1, 0], ["a", "b"], 0])
def test_bad_actions_are_refused_before_any_step(two_rows, actions):
    before, _ = two_rows.reset(seed=5)
    with pytest.raises(ValueError, match="actions"):
        two_rows.step(actions)
    np.testing.assert_array_equal(two_rows._observe(), before)
    assert not two_rows.step([0, 0])[2].any()


@pytest.fixture(scope="module")
def two_rows():
    vector = WorkerVectorEnv(Noise, 2, 1)
    yield vector
    vector.close()


def test_bad_resets_and_sizes_are_refused(two_rows):
    with pytest.raises(ValueError, match="3 seeds for 2"):
        two_rows.reset(seed=[1, 2, 3])
    for options in ({"reset_mask": [True]}, {"difficulty": 3}):
        with pytest.raises(ValueError, match="reset options"):
            two_rows.reset(options=options)
    for sizes in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one"):
            WorkerVectorEnv(Noise, *sizes)


def test_render_row(two_rows):
    two_rows.reset(seed=4)
    two_rows.step([0, 0])
    np.testing.assert_array_equal(two_rows.render_row(1), np.full((2, 2, 3), 1))
