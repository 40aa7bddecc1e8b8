from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rate.envs.mujoco import (
    TASKS,
    VERSIONS,
    Mujoco,
    MujocoOptions,
    MujocoVector,
    mujoco_spec,
    normalised_score,
)
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

needs_mujoco = pytest.mark.skipif(find_spec("mujoco") is None, reason="MuJoCo is not installed")
ROOT = Path(__file__).parents[3]
EVERY = [MujocoOptions(task, version) for task in TASKS for version in VERSIONS]


def play(env, seed, steps=25):
    """Returns observations, rewards and flags of an episode; actions depend on the seed."""
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    seen = [(observation, 0.0, False, False)]
    for _ in range(steps):
        *step, _ = env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32))
        seen.append(tuple(step))
    return [np.array(column) for column in zip(*seen, strict=True)]


def test_importing_the_module_does_not_import_the_simulator():
    program = "import sys, rate.envs.mujoco as m; m.mujoco_spec(); print('mujoco' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("task", "earned", "score"),
    [  # 100 times `d4rl.get_normalized_score`
        ("hopper", 1800.0, 55.9304),
        ("hopper", -20.272305, 0.0),
        ("halfcheetah", 12135.0, 100.0),
        ("walker2d", 5000.0, 108.8810),
    ],
)
def test_normalised_scores_equal_d4rls(task, earned, score):
    assert normalised_score(earned, MujocoOptions(task)) == pytest.approx(score, abs=1e-3)


def test_other_reference_returns():
    options = MujocoOptions("hopper", "v5", score_0=100, score_100=300)
    assert normalised_score(200, options) == 50
    assert MujocoOptions("hopper", score_100=4000).references == (TASKS["hopper"].random, 4000)
    with pytest.raises(ConfigError, match=r"env\.score_0 is 5 and env\.score_100 is 5"):
        MujocoOptions(score_0=5, score_100=5)
    for scores in ((-np.inf, 5), (0, np.inf), (np.nan, 5)):
        with pytest.raises(ConfigError, match=r"both must be finite"):
            MujocoOptions(score_0=scores[0], score_100=scores[1])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "ant"}, r"env\.task is 'ant'; choose one of: halfcheetah, hopper, walker2d"),
        ({"version": "v2"}, r"env\.version is 'v2'; choose one of: v4, v5"),
    ],
)
def test_invalid_settings_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MujocoOptions(**settings)


@pytest.mark.parametrize("options", EVERY[::2], ids=lambda options: options.task)
def test_a_specification_survives_json(options):
    spec = mujoco_spec(options)
    assert EnvironmentSpec.from_dict(spec.to_dict()) == spec
    assert spec.target_return == TASKS[options.task].target_return


@needs_mujoco
@pytest.mark.parametrize("options", EVERY, ids=lambda options: f"{options.task}-{options.version}")
def test_it_equals_gymnasiums_environment(options, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Gymnasium's leaves a file
    name = f"{TASKS[options.task].gym_name}-{options.version}"
    theirs, ours = gymnasium.make(name, disable_env_checker=True), Mujoco(options)
    assert ours.observation_space.shape == theirs.observation_space.shape
    assert ours.action_space == theirs.action_space
    steps = 5  # no task terminates that early
    for seed in (1, 2):
        for mine, other in zip(play(ours, seed, steps), play(theirs, seed, steps), strict=True):
            np.testing.assert_array_equal(mine, other.astype(mine.dtype))


@needs_mujoco
@pytest.mark.parametrize("options", EVERY[::2], ids=lambda options: options.task)
def test_an_episode_depends_on_its_seed_alone(options):
    fresh, used = Mujoco(options, 20), Mujoco(options, 20)
    play(used, 8)
    for first, second in zip(play(fresh, 3), play(used, 3), strict=True):
        np.testing.assert_array_equal(first, second)
    observation, _ = fresh.reset(seed=3)
    assert not np.array_equal(observation, fresh.reset()[0])


@needs_mujoco
def test_an_episode_is_truncated_at_its_length_and_stays_finished():
    env = Mujoco(MujocoOptions("halfcheetah"), 7)
    check_env(env, skip_render_check=True)
    observations, rewards, terminated, truncated = play(env, 0, 10)
    assert truncated.tolist() == [False] * 7 + [True] * 4
    assert not terminated.any()
    assert (rewards[8:] == 0).all()
    assert (observations[7:] == observations[7]).all()
    *_, info = env.step(np.zeros(6, np.float32))
    expected = normalised_score(float(rewards.sum()), env.options)
    assert info == {"normalised_score": pytest.approx(expected)}
    assert env.max_steps == 7


@needs_mujoco
@pytest.mark.parametrize("task", ["hopper", "walker2d"])
def test_falling_terminates(task):
    _, rewards, terminated, truncated = play(Mujoco(MujocoOptions(task)), 0, 200)
    end = int(np.argmax(terminated))
    assert 5 < end < 200
    assert terminated[end:].all()
    assert not truncated.any()
    assert (rewards[end + 1 :] == 0).all()


@needs_mujoco
def test_rows_equal_single_environments():
    options = MujocoOptions("hopper")
    vector, seeds, ended = MujocoVector(3, options, 30), [4, 5, 6], {}
    rngs = [np.random.default_rng(seed) for seed in seeds]
    seen, _ = vector.reset(seed=seeds)
    total = np.zeros(3)
    for _ in range(30):
        actions = np.stack([rng.uniform(-1, 1, 3) for rng in rngs]).astype(np.float32)
        seen, rewards, terminated, truncated, info = vector.step(actions)
        total += rewards
    assert (terminated | truncated).all()
    for row, seed in enumerate(seeds):
        observations, rewards, *_ = play(Mujoco(options, 30), seed, 30)
        np.testing.assert_array_equal(seen[row], observations[-1])
        assert total[row] == rewards.sum()
        ended[row] = info["normalised_score"][row]
    assert ended == pytest.approx({r: normalised_score(total[r], options) for r in range(3)})
    again, _ = vector.reset(seed=[0, 5, 0], options={"reset_mask": np.array([False, True, False])})
    np.testing.assert_array_equal(again[0], seen[0])
    np.testing.assert_array_equal(again[1], Mujoco(options).reset(seed=5)[0])
    vector.close()


@needs_mujoco
@pytest.mark.parametrize("action", [[0, 0], [np.nan, 0, 0], [2, 0, 0]])
def test_a_bad_action_is_refused(action):
    env = Mujoco(MujocoOptions("hopper"))
    with pytest.raises(ResetNeeded):
        env.step(np.zeros(3))
    with pytest.raises(ResetNeeded):
        env.render()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="MuJoCo action"):
        env.step(np.array(action))
    env.close()
    env.close()


def test_a_length_below_1_is_refused():
    with pytest.raises(ValueError, match="MuJoCo length 0"):
        Mujoco(length=0)


@needs_mujoco
def test_nothing_is_printed_and_no_file_is_written(tmp_path):
    program = "from rate.envs.mujoco import *; Mujoco(MujocoOptions('walker2d')).reset(seed=0)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    assert list(tmp_path.iterdir()) == []
