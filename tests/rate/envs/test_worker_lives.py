"""Environments in worker processes: those that die, hang, raise, and end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gymnasium.error import ClosedEnvironmentError
from gymnasium.spaces import Discrete

from rate.envs.worker_vector import WorkerFailure, WorkerVectorEnv
from rate.errors import ConfigError, UserError
from tests.processes import PATIENCE, alive, wait_until
from tests.worker_envs import Noise, refuse, stumble

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


def test_a_worker_that_dies_begins_the_episodes_of_all_groups_again(tmp_path):
    make_env = partial(Noise, misdeed="kill", once=tmp_path / "once")
    vector = WorkerVectorEnv(make_env, 4, 2)
    waiting, thinking = vector.groups(2)  # rows 0 and 2, rows 1 and 3
    first = waiting.reset(seed=[13, 7])[0], thinking.reset(seed=[7, 7])[0]
    waiting.step([0, 0])
    waiting.step_async([0, 0])  # row 0 kills its worker, which has row 1 as well
    thinking.step_async([0, 0])
    for group, begun in zip((waiting, thinking), first, strict=True):
        observations, rewards, terminated, truncated, info = group.step_wait()
        np.testing.assert_array_equal(info["restarted"], [True, False])
        np.testing.assert_array_equal(observations[0], begun[0])
        assert rewards.astype(bool).tolist() == [False, True]
        assert not (terminated | truncated).any()
        assert not group.step([0, 0])[4]["restarted"].any()
    os.kill(vector._pool.workers[1].pid, signal.SIGKILL)
    assert waiting.step([0, 0])[4]["restarted"].tolist() == [False, True]
    assert thinking.step([0, 0])[4]["restarted"].tolist() == [False, True]  # it had not asked
    vector.close()


@pytest.mark.parametrize(
    ("misdeed", "why"),
    [
        ("segfault", "SIGSEGV"),
        ("exit", "exit code 5"),
        ("hang", "answer within 5 seconds"),
        ("user error", "UserError: the engine is gone"),
    ],
)
def test_a_dead_worker_is_replaced(misdeed, why, tmp_path, caplog):
    """Its unfinished rows begin again; finished rows and other workers notice nothing."""
    make_env = partial(Noise, misdeed=misdeed, once=tmp_path / "once")
    vector = WorkerVectorEnv(make_env, 4, 2, timeout=5)
    first, _ = vector.reset(seed=[4, 13, 7, 7])  # row 1 misbehaves at its second step
    vector.step([1] * 4)
    observations, rewards, terminated, truncated, info = vector.step([1] * 4)
    assert why in caplog.text
    np.testing.assert_array_equal(info["restarted"], [True, True, False, False])
    np.testing.assert_array_equal(observations[:2], first[:2])
    assert not rewards[:2].any()
    assert rewards[2:].all()
    assert not (terminated | truncated).any()
    references = [Noise() for _ in range(2)]
    for env, seed in zip(references, (4, 13), strict=True):
        env.reset(seed=seed)
    for _ in range(3):
        observations, rewards, *_, info = vector.step([1] * 4)
        assert not info["restarted"].any()
        for row, env in enumerate(references):
            frame, reward, *_ = env.step(1)
            np.testing.assert_array_equal(observations[row], frame)
            assert rewards[row] == reward
    vector.close()


def test_killed_from_outside_while_a_row_has_finished():
    vector = WorkerVectorEnv(Noise, 2, 1)
    first, _ = vector.reset(seed=[4, 7])
    for _ in range(3):
        before = vector.step([2, 2])
    os.kill(vector._pool.workers[0].pid, signal.SIGKILL)
    observations, rewards, terminated, truncated, info = vector.step([2, 2])
    np.testing.assert_array_equal(info["restarted"], [False, True])
    np.testing.assert_array_equal(info["steps"], [3, np.nan])
    np.testing.assert_array_equal(terminated | truncated, [True, False])
    np.testing.assert_array_equal(observations[0], before[0][0])
    np.testing.assert_array_equal(observations[1], first[1])
    assert not rewards.any()
    vector.close()


def test_killed_before_a_masked_reset_and_while_rendering():
    vector = WorkerVectorEnv(Noise, 2, 1)
    first, _ = vector.reset(seed=[4, 7])
    vector.step([0, 0])
    os.kill(vector._pool.workers[0].pid, signal.SIGKILL)
    assert vector.render_row(0) is None
    again, info = vector.reset(seed=[4, 0], options={"reset_mask": [True, False]})
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(info["restarted"], [True, True])
    vector.close()


def test_too_many_deaths():
    vector = WorkerVectorEnv(partial(Noise, misdeed="kill"), 2, 1, max_restarts=1)
    vector.reset(seed=[13, 1])
    vector.step([0, 0])
    assert vector.step([0, 0])[4]["restarted"].all()
    vector.step([0, 0])
    with pytest.raises(WorkerFailure, match=r"(?s)^Noise: .*SIGKILL.*scripts/doctor\.py"):
        vector.step([0, 0])
    assert vector.closed
    with pytest.raises(ClosedEnvironmentError):
        vector.step([0, 0])


def test_a_simulator_that_dies_when_it_is_made():
    with pytest.raises(WorkerFailure, match=r"(?s)^Noise: .*exit code 3.*1 times"):
        WorkerVectorEnv(partial(Noise, misdeed="crash when made"), 1, max_restarts=1)


def test_what_make_env_raises():
    with pytest.raises(ConfigError, match=r"^env.level 'x' is no level; take one of a, b$") as got:
        WorkerVectorEnv(refuse, 2, 2)
    assert "refuse" in str(got.value.__cause__)
    with pytest.raises(WorkerFailure, match=r"(?s)could not be made.*KeyError: 'missing'"):
        WorkerVectorEnv(stumble, 2, 1)


def test_a_bug_is_raised_as_it_is_and_a_reset_mends():
    vector = WorkerVectorEnv(partial(Noise, misdeed="bug"), 3, 2)
    vector.reset(seed=[13, 4, 4])
    vector.step([0, 0, 0])
    with pytest.raises(KeyError, match="a bug") as got:
        vector.step([0, 0, 0])
    assert "_misbehave" in str(got.value.__cause__)
    assert vector.step([0, 0, 0])[2].all()
    first, _ = vector.reset(seed=4)
    np.testing.assert_array_equal(first[0], Noise().reset(seed=4)[0])
    assert not vector.step([0, 0, 0])[2].any()
    vector.close()


class OwnError(UserError):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_travel_still_says_what_it_was():
    def make_env():
        raise OwnError("this", "that")

    with pytest.raises(RuntimeError, match="OwnError: this and that"):
        WorkerVectorEnv(make_env, 1)


def test_spaces_that_do_not_fit_arrays():
    from gymnasium.spaces import Tuple

    with pytest.raises(ValueError, match=r"workers share arrays.*Tuple"):
        WorkerVectorEnv(partial(Noise, action_space=Tuple([Discrete(2)])), 1)


def test_workers_do_not_load_torch():
    def make_env():
        return Noise(shape=(1 + ("torch" in sys.modules),))

    vector = WorkerVectorEnv(make_env, 1)
    assert vector.single_observation_space.shape == (1,)
    vector.close()


def test_close_twice_and_by_the_collector():
    vector = WorkerVectorEnv(Noise, 2, 2)
    pids = [worker.pid for worker in vector._pool.workers]
    vector.close()
    vector.close()
    assert not any(map(alive, pids))
    other = WorkerVectorEnv(Noise, 1)
    pid = other._pool.workers[0].pid
    del other
    wait_until(lambda: not alive(pid))


PARENT = """
import sys, time
from functools import partial
from rate.envs.worker_vector import WorkerVectorEnv
from tests.worker_envs import Noise

vector = WorkerVectorEnv(partial(Noise, misdeed="hang"), 2, 2)
vector.reset(seed=[{seed}, 4])
vector.step([0, 0])
print(*[worker.pid for worker in vector._pool.workers], flush=True)
{ending}
"""


def start_parent(ending, seed=4, warnings="error"):
    return subprocess.Popen(
        [sys.executable, "-W", warnings, "-c", PARENT.format(ending=ending, seed=seed)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[3],
        start_new_session=True,
    )


@pytest.mark.parametrize(
    ("ending", "message"), [("", ""), ("vector.step('no')", "ValueError: actions")]
)
def test_nothing_is_left_when_the_interpreter_ends(ending, message):
    with start_parent(ending) as parent:
        out, err = parent.communicate(timeout=PATIENCE)
    assert message in err
    assert bool(err) is bool(message)  # no warnings of leaks either
    assert not any(alive(int(pid)) for pid in out.split())


def test_a_fork_of_the_parent_ends_without_the_workers():
    """As the workers of a data loader are, where that is how processes are made."""
    ending = "import os\nif not os.fork(): del vector; sys.exit()\nos.wait(); vector.step([0, 0])"
    with start_parent(ending, warnings="ignore") as parent:
        _, err = parent.communicate(timeout=PATIENCE)
    assert (err, parent.returncode) == ("", 0)  # a restart would be logged


@pytest.mark.parametrize("seed", [4, 13], ids=["idle", "hanging"])
def test_nothing_is_left_when_the_parent_is_killed(seed):
    with start_parent("vector.step_async([0, 0]); time.sleep(3600)", seed) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        assert all(map(alive, pids))
        parent.kill()
    wait_until(lambda: not any(map(alive, pids)))


def test_ctrl_c_reaches_the_parent_only():
    ending = """try:
    print("now", flush=True)
    time.sleep(3600)
except KeyboardInterrupt:
    print(vector.step([0, 0])[4])"""
    with start_parent(ending) as parent:
        for pid in parent.stdout.readline().split():
            os.kill(int(pid), signal.SIGINT)
        assert parent.stdout.readline() == "now\n"
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=PATIENCE)
    assert "[False, False]" in out
    assert err == ""
