from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, ClosedEnvironmentError, NoAsyncCallError
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from rate.envs.tmaze import TMaze, TMazeVector
from rate.envs.workers import EnvironmentFailure, WorkerVector
from rate.errors import ConfigError, UserError
from tests.worker_envs import Noise, refuse, stumble


@pytest.fixture(autouse=True)
def _nothing_left_behind():
    """No process and no open file outlives the vector that had it."""
    gc.collect()  # what other tests left is not ours to count
    processes_before, files_before = children(), open_files()
    yield
    gc.collect()  # tracebacks that the test looked at hold on to views of the memory
    assert children() <= processes_before
    assert open_files() <= files_before


def open_files():
    return {path.name for path in Path("/proc/self/fd").glob("*")}


def children():
    own = str(os.getpid())
    return {s["Pid"] for s in processes() if s["PPid"] == own and s["State"] != "Z"}


def processes():
    for path in Path("/proc").glob("[0-9]*/status"):
        try:
            lines = path.read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        yield {**status, "State": status["State"].split()[0]}


def alive(pid):
    return any(int(status["Pid"]) == pid and status["State"] != "Z" for status in processes())


def wait_until(condition, seconds=15.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


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
    vector = WorkerVector(make_env, num_envs, num_workers)
    assert vector.metadata["autoreset_mode"] == AutoresetMode.DISABLED
    assert vector.single_action_space == action_space
    assert_plays_like_loops(vector, make_env, list(range(7, 7 + num_envs)))
    vector.close()


def test_agrees_with_the_tmaze_in_numpy():
    workers, reference = WorkerVector(lambda: TMaze(6), 3, 2), TMazeVector(3, 6)
    for seed in (3, [4, 8, 1]):
        theirs, ours = reference.reset(seed=seed)[0], workers.reset(seed=seed)[0]
        np.testing.assert_array_equal(theirs, ours)
        for actions in ([0, 0, 1], [0, 0, 0], [0, 2, 0], [0, 0, 0], [1, 3, 1]):
            for a, b in zip(workers.step(actions)[:4], reference.step(actions)[:4], strict=True):
                np.testing.assert_array_equal(a, b)
                assert a.dtype == b.dtype
    workers.close()


def test_outcomes_come_with_the_end_and_go_with_a_reset():
    vector = WorkerVector(Noise, 3, 2)
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
    vector, lone = WorkerVector(Noise, 4, 2), Noise()
    before, _ = vector.reset(seed=20)
    after, _ = vector.reset(seed=40, options={"reset_mask": [False, True, False, False]})
    np.testing.assert_array_equal(after[[0, 2, 3]], before[[0, 2, 3]])
    assert_row(after, 1, lone.reset(seed=41)[0])
    assert_row(vector.step([1] * 4)[0], 1, lone.step(1)[0])
    vector.close()


def test_rows_without_a_reset_count_as_finished():
    vector = WorkerVector(Noise, 2, 1)
    observations, _ = vector.reset(seed=3, options={"reset_mask": [True, False]})
    assert observations[0].any()
    assert not observations[1].any()
    _, _, terminated, truncated, _ = vector.step([0, 0])
    np.testing.assert_array_equal(terminated | truncated, [False, True])
    vector.close()


def test_without_a_seed_every_episode_is_new_but_follows_the_last_seed():
    vector = WorkerVector(Noise, 2, 1)
    runs = []
    for _ in range(2):
        vector.reset(seed=1)
        runs.append(np.stack([vector.reset()[0], vector.reset()[0]]))
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len(np.unique(runs[0].reshape(4, -1), axis=0)) == 4
    vector.close()


def test_copies_are_kept_and_views_are_not():
    for copy in (True, False):
        vector = WorkerVector(Noise, 2, 1, copy=copy)
        first, _ = vector.reset(seed=0)
        kept = first.copy()
        second = vector.step([0, 0])[0]
        assert np.array_equal(first, kept) is copy
        assert np.shares_memory(second, first) is not copy
        vector.close()


def test_split_steps_and_their_order():
    vector = WorkerVector(Noise, 2, 2)
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
    vector, whole = WorkerVector(Noise, 5, 2), WorkerVector(Noise, 5, 2)
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
    groups = WorkerVector(Noise, 2, 1).groups(2)
    gc.collect()
    for group in groups:
        group.reset(seed=4)
    del group, groups


def test_a_worker_that_dies_begins_the_episodes_of_all_groups_again(tmp_path):
    make_env = partial(Noise, misdeed="kill", once=tmp_path / "once")
    vector = WorkerVector(make_env, 4, 2)
    asked, thinking = vector.groups(2)  # rows 0 and 2, rows 1 and 3
    first = asked.reset(seed=[13, 7])[0], thinking.reset(seed=[7, 7])[0]
    asked.step([0, 0])
    asked.step_async([0, 0])  # row 0 kills its worker, which has row 1 as well
    thinking.step_async([0, 0])
    for group, begun in zip((asked, thinking), first, strict=True):
        observations, rewards, terminated, truncated, info = group.step_wait()
        np.testing.assert_array_equal(info["restarted"], [True, False])
        np.testing.assert_array_equal(observations[0], begun[0])
        assert rewards.astype(bool).tolist() == [False, True]
        assert not (terminated | truncated).any()
        assert not group.step([0, 0])[4]["restarted"].any()
    os.kill(vector._crew.workers[1].pid, signal.SIGKILL)
    assert asked.step([0, 0])[4]["restarted"].tolist() == [False, True]
    assert thinking.step([0, 0])[4]["restarted"].tolist() == [False, True]  # it had not asked
    vector.close()


@pytest.mark.parametrize("actions", [[0], [[0, 0]], [0.0, 1.0], [0, 4], [-1, 0], ["a", "b"], 0])
def test_bad_actions_are_refused_before_any_step(two_rows, actions):
    before, _ = two_rows.reset(seed=5)
    with pytest.raises(ValueError, match="actions"):
        two_rows.step(actions)
    np.testing.assert_array_equal(two_rows._observe(), before)
    assert not two_rows.step([0, 0])[2].any()


@pytest.fixture(scope="module")
def two_rows():
    vector = WorkerVector(Noise, 2, 1)
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
            WorkerVector(Noise, *sizes)


def test_render_row(two_rows):
    two_rows.reset(seed=4)
    two_rows.step([0, 0])
    np.testing.assert_array_equal(two_rows.render_row(1), np.full((2, 2, 3), 1))


@pytest.mark.parametrize(
    ("misdeed", "why"),
    [
        ("segfault", "SIGSEGV"),
        ("exit", "exit code 5"),
        ("hang", "answer within 1 seconds"),
        ("user error", "UserError: the engine is gone"),
    ],
)
def test_a_dead_worker_is_replaced(misdeed, why, tmp_path, caplog):
    """Its unfinished rows begin again; finished rows and other workers notice nothing."""
    make_env = partial(Noise, misdeed=misdeed, once=tmp_path / "once")
    vector = WorkerVector(make_env, 4, 2, timeout=1)
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
    vector = WorkerVector(Noise, 2, 1)
    first, _ = vector.reset(seed=[4, 7])
    for _ in range(3):
        before = vector.step([2, 2])
    os.kill(vector._crew.workers[0].pid, signal.SIGKILL)
    observations, rewards, terminated, truncated, info = vector.step([2, 2])
    np.testing.assert_array_equal(info["restarted"], [False, True])
    np.testing.assert_array_equal(info["steps"], [3, np.nan])
    np.testing.assert_array_equal(terminated | truncated, [True, False])
    np.testing.assert_array_equal(observations[0], before[0][0])
    np.testing.assert_array_equal(observations[1], first[1])
    assert not rewards.any()
    vector.close()


def test_killed_before_a_masked_reset_and_while_rendering():
    vector = WorkerVector(Noise, 2, 1)
    first, _ = vector.reset(seed=[4, 7])
    vector.step([0, 0])
    os.kill(vector._crew.workers[0].pid, signal.SIGKILL)
    assert vector.render_row(0) is None
    again, info = vector.reset(seed=[4, 0], options={"reset_mask": [True, False]})
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(info["restarted"], [True, True])
    vector.close()


def test_too_many_deaths():
    vector = WorkerVector(partial(Noise, misdeed="kill"), 2, 1, max_restarts=1)
    vector.reset(seed=[13, 1])
    vector.step([0, 0])
    assert vector.step([0, 0])[4]["restarted"].all()
    vector.step([0, 0])
    with pytest.raises(EnvironmentFailure, match=r"(?s)^Noise: .*SIGKILL.*scripts/doctor\.py"):
        vector.step([0, 0])
    assert vector.closed
    with pytest.raises(ClosedEnvironmentError):
        vector.step([0, 0])


def test_a_simulator_that_dies_when_it_is_made():
    with pytest.raises(EnvironmentFailure, match=r"(?s)^Noise: .*exit code 3.*1 times"):
        WorkerVector(partial(Noise, misdeed="crash when made"), 1, max_restarts=1)


def test_what_make_env_raises():
    with pytest.raises(ConfigError, match=r"^env.level 'x' is no level; take one of a, b$") as got:
        WorkerVector(refuse, 2, 2)
    assert "refuse" in str(got.value.__cause__)
    with pytest.raises(EnvironmentFailure, match=r"(?s)could not be made.*KeyError: 'missing'"):
        WorkerVector(stumble, 2, 1)


def test_a_bug_is_raised_as_it_is_and_a_reset_mends():
    vector = WorkerVector(partial(Noise, misdeed="bug"), 3, 2)
    vector.reset(seed=[13, 4, 4])
    vector.step([0, 0, 0])
    with pytest.raises(KeyError, match="a bug") as got:
        vector.step([0, 0, 0])
    assert "_misbehave" in str(got.value.__cause__)
    assert vector.step([0, 0, 0])[2].all()
    first, _ = vector.reset(seed=4)
    assert_row(first, 0, Noise().reset(seed=4)[0])
    assert not vector.step([0, 0, 0])[2].any()
    vector.close()


class OwnError(UserError):
    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")


def test_an_error_that_cannot_travel_still_says_what_it_was():
    def make_env():
        raise OwnError("this", "that")

    with pytest.raises(RuntimeError, match="OwnError: this and that"):
        WorkerVector(make_env, 1)


def test_spaces_that_do_not_fit_arrays():
    from gymnasium.spaces import Tuple

    with pytest.raises(ValueError, match=r"workers share arrays.*Tuple"):
        WorkerVector(partial(Noise, action_space=Tuple([Discrete(2)])), 1)


def test_workers_do_not_load_torch():
    def make_env():
        return Noise(shape=(1 + ("torch" in sys.modules),))

    vector = WorkerVector(make_env, 1)
    assert vector.single_observation_space.shape == (1,)
    vector.close()


def test_close_twice_and_by_the_collector():
    vector = WorkerVector(Noise, 2, 2)
    pids = [worker.pid for worker in vector._crew.workers]
    vector.close()
    vector.close()
    assert not any(map(alive, pids))
    other = WorkerVector(Noise, 1)
    pid = other._crew.workers[0].pid
    del other
    wait_until(lambda: not alive(pid))


PARENT = """
import sys, time
from functools import partial
from rate.envs.workers import WorkerVector
from tests.worker_envs import Noise

vector = WorkerVector(partial(Noise, misdeed="hang"), 2, 2)
vector.reset(seed=[{seed}, 4])
vector.step([0, 0])
print(*[worker.pid for worker in vector._crew.workers], flush=True)
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
        out, err = parent.communicate(timeout=60)
    assert message in err
    assert bool(err) is bool(message)  # no warnings of leaks either
    assert not any(alive(int(pid)) for pid in out.split())


def test_a_fork_of_the_parent_ends_without_the_workers():
    """As the workers of a data loader are, where that is how processes are made."""
    ending = "import os\nif not os.fork(): del vector; sys.exit()\nos.wait(); vector.step([0, 0])"
    with start_parent(ending, warnings="ignore") as parent:
        _, err = parent.communicate(timeout=60)
    assert (err, parent.returncode) == ("", 0)  # a restart would be logged


@pytest.mark.parametrize("seed", [4, 13], ids=["idle", "hanging"])
def test_nothing_is_left_when_the_parent_is_killed(seed):
    with start_parent("vector.step_async([0, 0]); time.sleep(60)", seed) as parent:
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        time.sleep(0.2)
        assert all(map(alive, pids))
        parent.kill()
    wait_until(lambda: not any(map(alive, pids)))


def test_ctrl_c_reaches_the_parent_only():
    ending = """try:
    print("now", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    print(vector.step([0, 0])[4])"""
    with start_parent(ending) as parent:
        for pid in parent.stdout.readline().split():
            os.kill(int(pid), signal.SIGINT)
        assert parent.stdout.readline() == "now\n"
        os.killpg(parent.pid, signal.SIGINT)
        out, err = parent.communicate(timeout=60)
    assert "[False, False]" in out
    assert err == ""
