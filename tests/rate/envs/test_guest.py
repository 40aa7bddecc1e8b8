"""Simulators under another Python, by messages: old interfaces, misdeeds, and what is refused.

The other Python is this one without its packages: all it has is NumPy and a small `gym` with the
interface of version 0.21. A real one is made where `RATE_TEST_NETWORK` allows it.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rate.envs import _guest_messages, _guest_program
from rate.envs.spec import space_from_dict, space_to_dict
from rate.envs.worker_vector import Elsewhere, WorkerFailure, WorkerVectorEnv
from rate.errors import ConfigError
from rate.workers import loop
from tests.other_python import make_other_python, write_program
from tests.processes import PATIENCE, alive, wait_until

pytestmark = pytest.mark.usefixtures("nothing_left_behind")


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The other Python."""
    return make_other_python(tmp_path_factory.mktemp("other"))


@pytest.fixture
def vector(python: str, nothing_left_behind: None) -> Iterator[Any]:
    """Makes rows of the `gym` of the other Python, and closes them."""
    made: list[WorkerVectorEnv] = []

    def make(
        rows: int = 2,
        env: str = "Count-v0",
        limit: int | None = None,
        draws: bool = False,
        max_restarts: int = 3,
        **how: Any,
    ) -> WorkerVectorEnv:
        there = Elsewhere(python, env, how, limit, draws)
        made.append(WorkerVectorEnv(there, rows, max(1, rows // 2), 5, max_restarts))
        return made[-1]

    yield make
    while made:
        made.pop().close()


def seeds_of(observations: np.ndarray[Any, Any]) -> list[int]:
    return [int.from_bytes(bytes(row[:8].tolist()), "little") for row in observations]


def test_the_old_interface_is_played(vector: Any) -> None:
    """Seeds of 64 bits, one flag for both ends, infos, and prints that are no messages."""
    rows = vector(4)
    assert rows.single_observation_space == spaces.Box(0, 255, (9,), np.uint8)
    assert rows.single_action_space == spaces.Discrete(4)
    assert rows.max_steps == 5
    seeds = [(1 << 64) - 4, (1 << 63) + 1, 7, 6]  # of 3, 4, 6 and 5 steps, where the limit is 5
    observations, _ = rows.reset(seed=seeds)
    assert seeds_of(observations) == seeds
    ends: dict[int, tuple[int, bool, bool]] = {}
    for step in range(1, 7):
        _, rewards, terminated, truncated, info = rows.step([3, 2, 1, 0])
        for row in np.flatnonzero(terminated | truncated).tolist():
            ends.setdefault(row, (step, bool(terminated[row]), bool(truncated[row])))
        if step == 1:
            assert rewards.tolist() == [3.25, 2.25, 1.25, 0.25]
    assert ends == {
        0: (3, True, False),
        1: (4, True, False),
        2: (5, False, True),
        3: (5, True, False),
    }
    assert info["success"].tolist() == [False, True, True, False]
    assert info["score"].tolist() == [0.5] * 4
    assert not {"thing", "TimeLimit.truncated"} & info.keys()


@pytest.mark.parametrize("env", ["Count-v0", "gym:Count", "gym:Count-v0"])
def test_a_length_is_a_time_limit(vector: Any, env: str) -> None:
    rows = vector(1, env=env, limit=2)
    rows.reset(seed=[1])
    assert not rows.step([0])[3].any()
    *_, terminated, truncated, _ = rows.step([0])
    assert (terminated[0], truncated[0]) == (False, True)


def test_settings_and_pictures(vector: Any) -> None:
    rows = vector(start=2, draws=True)
    observations, _ = rows.reset(seed=[5, 6])
    assert observations[:, 8].tolist() == [2, 2]
    rows.step([1, 1])
    assert rows.render_row(1).tolist() == np.full((2, 2, 3), 3).tolist()


@pytest.mark.parametrize(
    ("misdeed", "why"),
    [
        ("exit", "exit code 5"),
        ("hang", "did not answer within 5 seconds"),
        ("junk", "something that is no message"),
    ],
)
def test_one_that_dies_or_hangs_is_replaced(
    misdeed: str, why: str, vector: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = vector(2, misdeed=misdeed, once=str(tmp_path / "once"))
    first, _ = rows.reset(seed=[13, 7])
    rows.step([0, 0])
    observations, rewards, _, _, info = rows.step([1, 1])
    assert info["restarted"].all()
    np.testing.assert_array_equal(observations, first)
    assert not rewards.any()
    assert why in caplog.text
    assert not rows.step([0, 0])[4]["restarted"].any()


def test_one_that_dies_again_and_again_is_given_up(vector: Any) -> None:
    rows = vector(1, misdeed="exit")
    rows.reset(seed=[13])

    def play() -> None:
        for _ in range(9):
            rows.step([0])

    message = r"Count-v0 under .*exit code 5.*restarted 3 times"
    with pytest.raises(WorkerFailure, match=message):
        play()


def test_what_it_raises_is_told_with_its_place(vector: Any, caplog: Any) -> None:
    rows = vector(2, misdeed="raise")
    rows.reset(seed=[13, 7])
    rows.step([0, 0])
    observations, *_, info = rows.step([0, 0])
    assert re.search(r"(?s)Count-v0 under .*misbehave.*KeyError: 'a bug'", caplog.text)
    assert info["restarted"].all()  # the episodes begin again in another process
    assert seeds_of(observations) == [13, 7]


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"misdeed": "tuple"}, r"the space Tuple is not supported.*make a Dict of it"),
        ({"misdeed": "made"}, r"ValueError: no licence"),
        ({"colour": "red"}, r"unexpected keyword argument 'colour'"),
        ({"env": "Nothing-v0"}, r"no environment 'Nothing-v0' \(gymnasium: ModuleNotFound"),
        ({"env": "no_such_module:Env"}, r"No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_made_is_told(vector: Any, how: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkerFailure, match=message):
        vector(**how)


@pytest.mark.parametrize("misdeed", ["shape", "kind"])
def test_an_observation_of_another_form_is_refused(misdeed: str, vector: Any) -> None:
    rows = vector(misdeed=misdeed)
    with pytest.raises(WorkerFailure, match=r"an observation .*its space says uint8 \(9,\)"):
        rows.reset(seed=[1, 2])


def test_a_python_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no program that can be run.*the program itself"):
        Elsewhere(str(tmp_path / "nothing"), "CartPole-v1")
    (tmp_path / "bin").mkdir()
    write_program(tmp_path / "bin/python", "exit")
    with pytest.raises(ConfigError, match=r"that folder's is .*/bin/python"):
        Elsewhere(str(tmp_path), "CartPole-v1")


def test_a_python_without_numpy_is_refused(tmp_path: Path) -> None:
    bare = write_program(tmp_path / "bare", f"PYTHONPATH= exec {sys.executable} -S")
    with pytest.raises(WorkerFailure, match=r"has no NumPy; install it there: .*bare -m pip"):
        WorkerVectorEnv(Elsewhere(bare, "Count-v0"), 1, 1)


def test_it_ends_with_its_parent(python: str) -> None:
    program = (
        "import sys, time\n"
        "from rate.envs.worker_vector import Elsewhere, WorkerVectorEnv\n"
        "rows = WorkerVectorEnv(Elsewhere(sys.argv[1], 'Count-v0', {'misdeed': 'hang'}), 1, 1)\n"
        "print(rows._pool.workers[0].pid, flush=True)\n"
        "rows.reset(seed=[13]); rows.step([0]); rows.step_async([0]); time.sleep(3600)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(
        [sys.executable, "-c", program, python], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.kill()
    wait_until(lambda: not alive(pid), PATIENCE)


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(-np.inf, np.inf, (3,), np.float32),
        spaces.Box(np.array([0.0, -1]), np.array([1.0, 5])),
        spaces.Box(0, 255, (4, 4, 3), np.uint8),
        spaces.Discrete(5, start=-2),
        spaces.MultiDiscrete([2, 3]),
        spaces.MultiBinary(4),
        spaces.MultiBinary([2, 3]),
        spaces.Dict(b=spaces.Discrete(2), a=spaces.Box(-1, 1, (2,), np.float64)),
    ],
)
def test_spaces_are_described_as_here(space: gymnasium.Space[Any]) -> None:
    encoded = _guest_messages.space_to_dict(space)
    assert encoded == space_to_dict(space)
    assert space_from_dict(encoded) == space


def test_messages_go_round_and_others_are_refused() -> None:
    arrays = {"a": np.arange(6, dtype=np.float32).reshape(2, 3)[:, ::2], "b": np.array([True])}
    data = b"".join(_guest_messages.encode({"done": {"x": [1, None]}}, arrays))
    sizes = _guest_messages.SIZES.unpack_from(data)
    start = _guest_messages.SIZES.size
    message, found = _guest_messages.decode(
        data[start : start + sizes[0]], data[start + sizes[0] :]
    )
    assert message == {"done": {"x": [1, None]}}
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)
    for text in (
        b"3",
        b'{"arrays": [["a", "O", [1]]]}',
        b'{"arrays": [["a"]]}',
        b"{}",
        b"nonsense",
    ):
        with pytest.raises(ValueError, match=r"."):
            _guest_messages.decode(text, b"01234567")


@pytest.mark.parametrize("module", [loop, _guest_messages, _guest_program])
def test_the_program_runs_where_there_is_an_old_python_and_numpy_alone(module: ModuleType) -> None:
    """What it imports, and its syntax; annotations are never evaluated."""
    text = Path(str(module.__file__)).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    imported = [node.names[0].name for node in ast.walk(tree) if isinstance(node, ast.Import)]
    imported += [str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    sent = {"rate.workers.loop", "rate.envs._guest_messages"}
    assert set(imported) - set(sys.stdlib_module_names) - sent <= {"numpy"}
    assert "__future__" in imported


@pytest.mark.skipif("RATE_TEST_NETWORK" not in os.environ, reason="asks a package index")
def test_gymnasium_of_another_age_plays_as_it_does_here(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "old"], check=True)
    other = tmp_path / "old/bin/python"
    command = [other, "-m", "pip", "install", "-q", "gymnasium==0.29.1", "numpy==1.26.4"]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("gymnasium 0.29 cannot be installed here")
    rows = WorkerVectorEnv(Elsewhere(str(other), "CartPole-v1"), 2, 1)
    alone = gymnasium.make("CartPole-v1")
    seen, _ = rows.reset(seed=[1, (1 << 63) + 5])
    expected, _ = alone.reset(seed=(1 << 63) + 5)
    np.testing.assert_array_equal(seen[1], expected)
    for action in (0, 1, 1, 0, 1):
        seen, *_ = rows.step([action, action])
        expected, *_ = alone.step(action)
        np.testing.assert_allclose(seen[1], expected, rtol=1e-6)
    rows.close()
