"""`SerialVectorEnv` does what every vector environment here does."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode

from rate.envs.serial_vector import SerialVectorEnv


def _simulators() -> Any:
    path = Path(__file__).parents[2] / "worker_envs.py"
    spec = importlib.util.spec_from_file_location("worker_envs_for_sync", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Noise = _simulators().Noise  # an episode of 3 + seed % 4 steps
ACTIONS = np.zeros(4, dtype=np.int64)


@pytest.mark.parametrize("keyed", [False, True])
def test_rows_are_the_environment_alone(keyed: bool) -> None:
    rows, alone = SerialVectorEnv(lambda: Noise(keyed), 4), Noise(keyed)
    seen, _ = rows.reset(seed=5)
    for row in range(4):
        first, _ = alone.reset(seed=5 + row)
        again = {key: value[row] for key, value in seen.items()} if keyed else seen[row]
        np.testing.assert_equal(again, first)
    after, rewards, *_ = rows.step(ACTIONS)
    first, reward, *_ = alone.step(0)
    np.testing.assert_equal(
        after["image"][3] if keyed else after[3], first["image"] if keyed else first
    )
    assert rewards[3] == reward
    assert rows.metadata["autoreset_mode"] == AutoresetMode.DISABLED


def test_a_finished_row_waits_until_it_is_reset() -> None:
    rows = SerialVectorEnv(Noise, 4)
    rows.reset(seed=[0, 1, 2, 3])  # 3, 4, 5 and 6 steps
    for _ in range(3):
        seen, _, terminated, _, info = rows.step(ACTIONS)
    assert terminated.tolist() == [True, False, False, False]
    assert info["steps"][0] == 3
    assert info["_steps"].tolist() == [True, False, False, False]
    later, rewards, terminated, truncated, info = rows.step(ACTIONS)
    np.testing.assert_array_equal(later[0], seen[0])
    assert rewards[0] == 0
    assert (terminated | truncated).tolist() == [True, True, False, False]
    assert info["success"].tolist() == [False, True, False, False]
    mask = np.array([True, False, False, False])
    seeds = [9, 9, 9, 9]
    fresh, info = rows.reset(seed=seeds, options={"reset_mask": mask})
    assert info["_steps"].tolist() == [False, True, False, False]
    np.testing.assert_array_equal(fresh[1:], later[1:])
    alone, _ = Noise().reset(seed=9)
    np.testing.assert_array_equal(fresh[0], alone)


def test_what_is_seen_belongs_to_whoever_sees_it() -> None:
    rows = SerialVectorEnv(Noise, 2)
    seen, _ = rows.reset(seed=1)
    kept = seen.copy()
    rows.step(ACTIONS[:2])
    np.testing.assert_array_equal(seen, kept)


@pytest.mark.parametrize("actions", [[0, 1, 2], [0, 1, 2, 4], [0.0, 1.0, 2.0, 3.0], [[0]] * 4])
def test_actions_of_another_kind_are_refused(actions: list[Any]) -> None:
    rows = SerialVectorEnv(Noise, 4)
    rows.reset(seed=1)
    with pytest.raises(ValueError, match="actions are"):
        rows.step(actions)


def test_continuous_actions_are_left_to_the_environment() -> None:
    rows = SerialVectorEnv(lambda: Noise(action_space=spaces.Box(-1, 1, (2,), np.float32)), 2)
    rows.reset(seed=1)
    rows.step(np.zeros((2, 2), np.float32))
    with pytest.raises(ValueError, match="actions are"):
        rows.step(np.zeros((2, 3), np.float32))


def test_there_is_at_least_one_row_and_a_mask_has_their_number() -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        SerialVectorEnv(Noise, 0)
    with pytest.raises(ValueError, match=r"reset_mask has shape \(1,\)"):
        SerialVectorEnv(Noise, 2).reset(seed=1, options={"reset_mask": np.array([True])})
