"""All 48 tasks of POPGym, with supported spaces."""

from __future__ import annotations

import random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from rate.envs.popgym import Popgym, PopgymOptions, PopgymVector, popgym_spec
from rate.envs.popgym_tasks import TASKS
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

pytest.importorskip("popgym", reason="POPGym is not installed (extra popgym)")
pytest.importorskip("mazelib", reason="POPGym's labyrinths are not installed (extra popgym)")


def play(env: Popgym, seed: int, steps: int) -> list[Any]:
    """Returns what random actions lead to."""
    env.action_space.seed(seed)
    seen, _ = env.reset(seed=seed)
    story = [seen]
    for _ in range(steps):
        seen, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        story.append((seen, reward, terminated, truncated))
        if terminated or truncated:
            break
    return story


def test_there_are_48_tasks() -> None:
    assert len(TASKS) == 48
    assert len({task.family for task in TASKS.values()}) == 16


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_depends_on_its_seed_alone(task: str) -> None:
    env = Popgym(PopgymOptions(task))
    first = play(env, 1 << 40, 40)  # a seed as data sets have them
    for seen, *_ in first[1:]:
        assert env.observation_space.contains(seen)
    play(env, 2, 10)
    np.random.seed(3)  # noqa: NPY002 (labyrinths use and restore this generator)
    random.seed(3)
    again = play(Popgym(PopgymOptions(task)), 1 << 40, 40)
    np.testing.assert_equal(again, first)
    state = np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    np.random.seed(3)  # noqa: NPY002
    random.seed(3)
    np.testing.assert_array_equal(np.random.get_state()[1], state[0])  # noqa: NPY002
    assert random.getstate() == state[1]


@pytest.mark.parametrize("task", TASKS)
def test_a_specification_survives_json(task: str) -> None:
    for privileged in (False, True):
        options = PopgymOptions(task, privileged=privileged)
        spec = popgym_spec(options)
        assert EnvironmentSpec.from_dict(spec.to_dict()) == spec
        env = Popgym(options)
        seen, _ = env.reset(seed=1)
        assert spec.observation_space.contains(seen)
        assert isinstance(spec.observation_space, spaces.Dict) == privileged


@pytest.mark.parametrize("task", ["RepeatFirstEasy", "MultiarmedBanditEasy", "CountRecallHard"])
def test_the_largest_number_of_steps_is_that_of_the_table(task: str) -> None:
    assert len(play(Popgym(PopgymOptions(task)), 1, 10_000)) - 1 == TASKS[task].steps


def test_a_time_out_truncates() -> None:
    env = Popgym(PopgymOptions("RepeatFirstEasy"), length=5)
    assert env.max_steps == 5
    *_, (_, _, terminated, truncated) = play(env, 1, 100)
    assert (terminated, truncated) == (False, True)
    assert Popgym(PopgymOptions("RepeatFirstEasy"), length=1024).max_steps == 51
    with pytest.raises(ValueError, match="at least 1 step"):
        Popgym(length=0)


@pytest.mark.parametrize(
    ("task", "observation", "action"),
    [
        ("AutoencodeEasy", spaces.MultiDiscrete([2, 4]), spaces.Discrete(4)),
        ("BattleshipEasy", spaces.Discrete(2), spaces.MultiDiscrete([8, 8])),
        ("CountRecallHard", spaces.MultiDiscrete([13, 13]), spaces.Discrete(17)),
        ("ConcentrationHard", spaces.MultiDiscrete([14] * 52), spaces.Discrete(52)),
        ("PositionOnlyPendulumEasy", None, spaces.Box(-2, 2, (1,), np.float32)),
    ],
)
def test_spaces_are_supported_ones(task: str, observation: Any, action: Any) -> None:
    env = Popgym(PopgymOptions(task))
    assert env.action_space == action
    assert observation is None or env.observation_space == observation


def test_flat_actions() -> None:
    flat, pair = (
        Popgym(PopgymOptions("BattleshipEasy", flat_actions=True)),
        Popgym(PopgymOptions("BattleshipEasy")),
    )
    assert flat.action_space == spaces.Discrete(64)
    flat.reset(seed=1)
    pair.reset(seed=1)
    for cell in range(64):
        assert flat.step(cell)[:2] == pair.step(np.array(divmod(cell, 8)))[:2]
        if flat.task.hits == flat.task.needed_hits:
            break


def test_invalid_arguments_are_refused() -> None:
    with pytest.raises(ConfigError, match="Did you mean RepeatFirstEasy"):
        PopgymOptions("RepeatFirstEazy")
    env = Popgym()
    env.reset(seed=1)
    for action in (4, -1, 1.0, [1, 2]):
        with pytest.raises(ValueError, match="RepeatFirstEasy action"):
            env.step(action)


def test_rows_and_gymnasium_make_give_the_same_episode() -> None:
    rows = PopgymVector(3, PopgymOptions("CountRecallEasy"), 20)
    seen, _ = rows.reset(seed=7)
    made = gymnasium.make("RATE/Popgym-v0", task="CountRecallEasy", length=20)
    first, _ = made.reset(seed=8)
    np.testing.assert_array_equal(seen[1], first)
