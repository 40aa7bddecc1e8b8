"""Frame stacking is the same in training and in rollouts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from rate.batch import stack_frames
from rate.envs.autoreset import WAITING
from rate.envs.frame_stack import FrameStackVector, stacked_space
from rate.envs.worker_vector import WorkerVectorEnv
from rate.errors import ConfigError
from tests.worker_envs import Noise

FRAMES = [(6, 5), (2, 6, 5), (6, 5, 2)]


class Film(VectorEnv):
    """All pixels of frame t of seed s are 10 s + t + 1; row i ends after 3 + i steps."""

    metadata = WAITING

    def __init__(self, shape, restart_at=None):
        self.num_envs, self.shape, self.restart_at = 3, shape, restart_at
        self.single_observation_space = spaces.Box(0, 255, shape, np.uint8)
        self.single_action_space = spaces.Discrete(2)
        self.seeds, self.time, self.calls = np.zeros(3, int), np.zeros(3, int), 0

    def frames(self):
        values = 10 * self.seeds + self.time + 1
        return np.broadcast_to(
            values.astype(np.uint8).reshape(3, *(1 for _ in self.shape)), (3, *self.shape)
        ).copy()

    def reset(self, *, seed=None, options=None):
        rows = (options or {}).get("reset_mask", np.ones(3, bool))
        self.seeds[rows], self.time[rows] = np.asarray(seed)[rows], 0
        return self.frames(), {}

    def step(self, actions):
        self.calls += 1
        last = np.array([3, 4, 5])
        self.time += self.time < last
        info = {}
        if self.calls == self.restart_at:
            self.time[2] = 0
            info["restarted"] = np.array([False, False, True])
        return self.frames(), np.ones(3), self.time == last, np.zeros(3, bool), info

    def answer(self):
        return "from the environment itself"


def values(observations, count):
    """Returns the value of each frame of observations `(N, *obs)`: `(N, count)`."""
    channels = (
        observations if observations.shape[2:] == (6, 5) else np.moveaxis(observations, -1, 1)
    )
    each = channels.shape[1] // count
    assert (channels == channels[:, :, :1, :1]).all()
    grouped = channels[:, :, 0, 0].reshape(len(channels), count, each)
    assert (grouped == grouped[:, :, :1]).all()
    return grouped[:, :, 0].tolist()


@pytest.mark.parametrize("shape", FRAMES)
def test_rows_stack_the_last_frames_of_their_own_episode(shape):
    env = FrameStackVector(Film(shape), 3)
    seen, _ = env.reset(seed=[1, 2, 3])
    assert env.observation_space.contains(seen)
    assert values(seen, 3) == [[0, 0, 11], [0, 0, 21], [0, 0, 31]]
    first = seen.copy()
    for _ in range(3):
        after, _, terminated, _, _ = env.step(np.zeros(3, int))
    assert terminated.tolist() == [True, False, False]
    np.testing.assert_array_equal(seen, first)  # returned observations are copies
    assert values(after, 3) == [[12, 13, 14], [22, 23, 24], [32, 33, 34]]
    after = env.step(np.zeros(3, int))[0]
    assert values(after, 3) == [[12, 13, 14], [23, 24, 25], [33, 34, 35]]
    again, _ = env.reset(seed=[5, 2, 3], options={"reset_mask": np.array([True, False, False])})
    assert values(again, 3) == [[0, 0, 51], [23, 24, 25], [33, 34, 35]]


def test_the_first_observation_of_a_restarted_row_is_padded_with_zeros():
    env = FrameStackVector(Film((6, 5), restart_at=2), 2)
    env.reset(seed=[1, 2, 3])
    env.step(np.zeros(3, int))
    assert values(env.step(np.zeros(3, int))[0], 2) == [[12, 13], [22, 23], [0, 31]]
    assert values(env.step(np.zeros(3, int))[0], 2) == [[13, 14], [23, 24], [31, 32]]


@pytest.mark.parametrize("shape", FRAMES)
@pytest.mark.parametrize("count", [1, 4])
def test_training_and_rollouts_stack_the_same_frames(shape, count):
    rng = np.random.default_rng(0)
    film = rng.integers(0, 256, (7, 3, *shape), dtype=np.uint8)
    inner = Film(shape)
    inner.frames = lambda: film[inner.time[0]].copy()
    inner.step = lambda actions: (
        inner.time.__iadd__(1),
        (inner.frames(), np.zeros(3), np.zeros(3, bool), np.zeros(3, bool), {}),
    )[1]
    env = FrameStackVector(inner, count)
    acting = [env.reset(seed=[0, 0, 0])[0]] + [env.step(None)[0] for _ in range(6)]
    before = np.zeros((count - 1, 3, *shape), np.uint8)
    frames = torch.from_numpy(np.concatenate([before, film]).swapaxes(0, 1))
    training = stack_frames(frames, count)
    assert training.shape[2:] == env.single_observation_space.shape
    np.testing.assert_array_equal(training.numpy(), np.stack(acting, axis=1))


def test_stacked_spaces_keep_their_bounds_and_must_be_images():
    low = np.arange(2 * 6 * 5, dtype=np.uint8).reshape(2, 6, 5)
    space = stacked_space(spaces.Box(low, low + 100, dtype=np.uint8), 3)
    assert space.shape == (6, 6, 5)
    np.testing.assert_array_equal(space.low, np.concatenate([low] * 3))
    for space in (spaces.Discrete(3), spaces.Box(0, 1, (4,)), spaces.Dict(a=spaces.Discrete(2))):
        with pytest.raises(ConfigError, match=r"data\.frame_stack=4 is for images alone"):
            stacked_space(space, 4)


def test_groups_of_rows_in_worker_processes_stack_their_own_frames():
    vectors = [FrameStackVector(WorkerVectorEnv(Noise, 4, 2), 3) for _ in range(2)]
    whole, (even, odd) = vectors[0], vectors[1].groups(2)
    expected, _ = whole.reset(seed=[4, 5, 6, 7])
    even.reset_async(seed=[4, 6])
    odd.reset_async(seed=[5, 7])
    for group, first in ((even, 0), (odd, 1)):
        np.testing.assert_array_equal(group.reset_wait()[0], expected[first::2])
    for _ in range(4):
        expected = whole.step([0, 1, 2, 3])[0]
        even.step_async([0, 2])
        odd.step_async([1, 3])
        for group, first in ((even, 0), (odd, 1)):
            np.testing.assert_array_equal(group.step_wait()[0], expected[first::2])
    for vector in vectors:
        vector.close()
    assert (
        FrameStackVector(Film((6, 5)), 2).groups(2)[0].num_envs == 3
    )  # this environment has no groups
