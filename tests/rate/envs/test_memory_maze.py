from __future__ import annotations

import os
import subprocess
import sys
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rate.envs import headless
from rate.envs.memory_maze import (
    FORWARD,
    LEFT,
    PRIVILEGED_SIZE,
    MemoryMaze,
    MemoryMazeOptions,
    memory_maze_spec,
    privileged_state,
    shortest_path,
)
from rate.envs.memory_maze_packages import _gymnasium_as_gym, check_packages
from rate.envs.memory_maze_simulator import MazeState
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

# These actions lead to the requested target in the 9x9 maze of this seed.
NEAR_SEED = 20
ROUTE = [3, 3, 3, 3, 3, 3, 3, 5, 5, 1, 5, 2, 0, 2, 2, 4]


@pytest.fixture(scope="module")
def renderer():
    """Skips without the packages or an OpenGL backend."""
    try:
        check_packages()
        headless.choose_renderer()
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def env(renderer):
    env = MemoryMaze(MemoryMazeOptions(privileged=True), length=len(ROUTE))
    yield env
    env.close()
    env.close()


def play(env, seed, actions=ROUTE):
    """Returns the frames `(T + 1, 64, 64, 3)`, privileged states and rewards of an episode."""
    observation, _ = env.reset(seed=seed)
    seen, rewards = [observation], []
    for action in actions:
        observation, reward, _, _, _ = env.step(action)
        seen.append(observation)
        rewards.append(reward)
    return (
        np.array([item["image"] for item in seen]),
        np.array([item["privileged"] for item in seen]),
        np.array(rewards),
    )


def test_options_and_spec():
    with pytest.raises(ConfigError, match=r"env\.size is 10"):
        MemoryMazeOptions(size=10)
    spec = memory_maze_spec()
    assert spec.observation_space.shape == (64, 64, 3)
    assert spec.action_space.n == 6
    both = memory_maze_spec(MemoryMazeOptions(privileged=True)).observation_space
    assert set(both.spaces) == {"image", "privileged"}
    assert EnvironmentSpec.from_dict(spec.to_dict()) == spec
    assert memory_maze_spec(MemoryMazeOptions(size=15)).target_return < spec.target_return


def test_importing_the_module_does_not_import_the_simulator():
    code = (
        "import sys, rate.envs.memory_maze as m; m.memory_maze_spec();"
        "assert not {'memory_maze', 'dm_control', 'mujoco', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(
        "rate.envs.memory_maze_packages.find_spec",
        lambda name: None if name == "dm_control" else find_spec(name),
    )
    with pytest.raises(ConfigError, match=r"dm_control.*make install EXTRAS=memory-maze"):
        MemoryMaze()


def test_gym_is_replaced_only_during_the_import():
    if find_spec("gym") is not None:
        pytest.skip("gym is installed here")
    with _gymnasium_as_gym():
        assert import_module("gym.envs.registration").register(id="nothing") is None
    assert not [name for name in sys.modules if name.split(".")[0] == "gym"]


def test_the_first_backend_that_works_is_chosen(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "glfw")
    assert headless.choose_renderer() == "glfw"
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(headless, "_try", lambda name: "" if name == "osmesa" else "no EGL")
    assert headless.choose_renderer() == "osmesa" == os.environ["MUJOCO_GL"]
    monkeypatch.delenv("MUJOCO_GL")
    monkeypatch.setattr(headless, "_try", lambda name: f"no {name}")
    with pytest.raises(ConfigError, match=r"no egl.*no osmesa.*libegl1.*MUJOCO_GL"):
        headless.choose_renderer()


def test_the_error_of_a_driver_is_returned(monkeypatch):
    monkeypatch.setattr(headless, "_PROBE", "raise OSError('no library')")
    assert headless._try("egl") == "OSError: no library"
    monkeypatch.setattr(headless, "_PROBE", "import os; os._exit(3)")
    assert headless._try("egl") == "exit status 3"


def test_the_shortest_path():
    layout = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]], dtype=bool)  # row 0 is at the bottom
    path = [(0, 0), (1, 0), (2, 0), (2, 1), (2, 2), (1, 2), (0, 2)]
    assert shortest_path(layout, (0, 0), (0, 2)) == path
    assert shortest_path(layout, (1, 0), (1, 0)) == [(1, 0)]
    layout[1, 2] = False
    assert shortest_path(layout, (0, 0), (0, 2)) == [(0, 2)]


def test_the_privileged_state_is_relative_to_the_agent():
    layout = np.array([[1, 1, 1], [0, 0, 1], [1, 1, 1]], dtype=bool)
    position, target = np.array([1.5, 0.5]), np.array([1.5, 2.5])
    diagonal = 3 * np.sqrt(2)
    up = privileged_state(MazeState(layout, position, np.array([0.0, 1.0]), target, target[None]))
    np.testing.assert_allclose(up, [2 / diagonal, 0, 0, -1, 4 / 12], atol=1e-6)
    right = privileged_state(
        MazeState(layout, position, np.array([1.0, 0.0]), target, target[None])
    )
    np.testing.assert_allclose(right, [0, 2 / diagonal, 1, 0, 4 / 12], atol=1e-6)
    there = privileged_state(MazeState(layout, target, np.array([1.0, 0.0]), target, target[None]))
    np.testing.assert_array_equal(there, np.zeros(PRIVILEGED_SIZE))


def test_invalid_calls_are_refused(renderer):
    with pytest.raises(ValueError, match="at least 1 step"):
        MemoryMaze(length=0)
    env = MemoryMaze()
    with pytest.raises(ResetNeeded):
        env.step(0)
    with pytest.raises(ResetNeeded):
        env.state  # noqa: B018
    env.close()


@pytest.mark.filterwarnings("ignore:.*render modes.*")
def test_gymnasium_accepts_it(env):
    check_env(env, skip_render_check=True)


def test_an_episode_ends_at_its_length(env):
    env.reset(seed=1)
    for bad in (6, -1):
        with pytest.raises(ValueError, match="from 0 to 5"):
            env.step(bad)
    ends = [env.step(FORWARD)[2:4] for _ in ROUTE]
    assert ends == [(False, False)] * (len(ROUTE) - 1) + [(False, True)]
    last = env.render()
    observation, reward, terminated, truncated, info = env.step(LEFT)
    np.testing.assert_array_equal(observation["image"], last)
    assert (reward, terminated, truncated, info) == (0.0, False, True, {"targets": 0})


def test_an_episode_depends_on_its_seed_alone(env):
    before = play(env, 3)
    large = play(env, 2**62 + 3)
    other = MemoryMaze(MemoryMazeOptions(privileged=True))  # a longer one, in which 3 comes second
    play(other, NEAR_SEED, [FORWARD])
    for first, again in zip(before, play(other, 3), strict=True):
        np.testing.assert_array_equal(first, again)
    for first, again in zip(large, play(env, 2**62 + 3), strict=True):
        np.testing.assert_array_equal(first, again)
    assert (large[0][0] != before[0][0]).any()
    frames, _, rewards = play(env, NEAR_SEED)
    other.close()
    assert rewards.sum() == 1
    reached = int(np.argmax(rewards))
    assert env.step(0)[4] == {"targets": 1}
    border = frames[:, 0, 0].tolist()  # the frame after the reward requests another target
    assert border[: reached + 1] == [border[0]] * (reached + 1)
    assert border[reached + 1] != border[0]


def test_without_a_seed_episodes_follow_the_generator(env):
    env.reset(seed=5)
    first = env.reset()[0]["image"]
    second = env.reset()[0]["image"]
    env.reset(seed=5)
    np.testing.assert_array_equal(env.reset()[0]["image"], first)
    assert (first != second).any()


@pytest.mark.parametrize("size", [9, 15])
def test_frames_and_rewards_equal_the_packages_to_the_bit(size, renderer):
    env = MemoryMaze(MemoryMazeOptions(size=size, privileged=True), length=len(ROUTE))
    env.reset(seed=0)  # the agent of 9x9 starts on a target; that must not affect later episodes
    with _gymnasium_as_gym():
        tasks = import_module("memory_maze.tasks")
    original = getattr(tasks, f"memory_maze_{size}x{size}")(global_observables=True, seed=NEAR_SEED)
    step = original.reset()
    seen, _ = env.reset(seed=NEAR_SEED)
    total = 0.0
    for action in [*ROUTE, None]:
        true = step.observation
        np.testing.assert_array_equal(seen["image"], true["image"])
        state = MazeState(
            true["maze_layout"].astype(bool),
            true["agent_pos"],
            true["agent_dir"],
            true["target_pos"],
            true["target_pos"][None],
        )
        np.testing.assert_array_equal(seen["privileged"], privileged_state(state))
        if action is None:
            break
        step = original.step(action)
        seen, reward, _, _, _ = env.step(action)
        assert reward == step.reward
        total += reward
    assert total == (1 if size == 9 else 0)
    original.close()
    env.close()
