"""Exact episodes of the symbolic tasks, and their settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rate.envs.tasks.arshot import ARShot, ARShotOptions
from rate.envs.tasks.base import Task
from rate.envs.tasks.bits import Bits, BitsOptions
from rate.envs.tasks.distributed import SETTINGS, DistributedMemory, DistributedMemoryOptions
from rate.envs.tasks.endless_tmaze import (
    FORWARD,
    LEFT,
    RIGHT,
    EndlessTMaze,
    EndlessTMazeOptions,
)
from rate.envs.tasks.memory_rl import ActiveTMaze, PassiveTMaze
from rate.errors import ConfigError

DOWN, UP = 3, 1


def episode(task: Task[Any], actions: list[int], **options: Any) -> tuple[Any, list[float], Any]:
    """Returns the observations, rewards and the last step of an episode of these actions."""
    seen, rewards = [task.reset(seed=0, options=options)[0]], []
    for number, action in enumerate(actions, start=1):
        observation, reward, terminated, truncated, info = task.step(action)
        seen.append(observation)
        rewards.append(reward)
        assert (terminated or truncated) == (number == len(actions))
    return np.array(seen), rewards, (terminated, truncated, info["success"])


@pytest.mark.parametrize(
    ("number", "steps"),
    {
        0: [0, 1, 2],
        1: [0, 3, 4],
        4: [0, 2, 4, 6, 9],
        5: [0, 2, 3, 4, 5, 6, 9],
        7: [12, 24, 27],
        9: [1, 8, 12, 13, 16, 24, 27],
        11: [1, 2, 4, 6, 8, 9, 11, 12, 13, 15, 16, 19, 22, 23, 24, 27, 28],
        12: [*range(3), 4, *range(6, 10), *range(11, 17), *range(19, 30)],
    }.items(),
)
def test_published_cues_of_distributed_memory(number: int, steps: list[int]) -> None:
    task = DistributedMemory(DistributedMemoryOptions(setting=f"memory_custom/{number}"))
    length, bits = SETTINGS[f"memory_custom/{number}"]
    assert (task.max_steps, task.observation_space.shape) == (length, (2 + bits,))
    context = [1 if bit % 2 else -1 for bit in range(bits)]  # most are -1
    seen, rewards, last = episode(task, [1] * (length - 1) + [0], context=context)
    assert task.state["cue_steps"][0].tolist() == steps
    for bit, step in enumerate(steps):
        assert np.flatnonzero(seen[:, 2 + bit]).tolist() == [step]
        assert seen[step, 2 + bit] == context[bit]
    np.testing.assert_array_equal(seen[:, 0], (1 - np.arange(length + 1) / length).astype("f4"))
    assert (rewards, last) == ([0] * (length - 1) + [1], (True, False, True))


def test_cues_of_distributed_memory_are_drawn_by_option() -> None:
    options = DistributedMemoryOptions(num_bits=3, cue_steps="resample")
    task, drawn = DistributedMemory(options, 6), set()
    for seed in range(30):
        task.reset(seed=seed)
        drawn.add(tuple(task.state["cue_steps"][0].tolist()))
    assert len(drawn) > 10
    assert all(sorted(set(steps)) == list(steps) for steps in drawn)
    task.reset(options={"cue_steps": [5, 0, 2]})
    assert task.state["cue_steps"].tolist() == [[0, 2, 5]]
    with pytest.raises(ConfigError, match="episodes of one length"):
        DistributedMemory(options, (5, 6))


def test_the_majority_decides() -> None:
    task = DistributedMemory(DistributedMemoryOptions(num_bits=3), 3)
    _, rewards, last = episode(task, [0, 0, 0], context=[1, -1, 1])
    assert (rewards, last) == ([0, 0, -1], (True, False, False))


def test_a_passive_tmaze_shows_its_goal_once() -> None:
    seen, rewards, last = episode(PassiveTMaze(length=10), [0] * 10 + [UP], goal=1)
    assert seen.tolist() == [[0, 1]] + [[0, 0]] * 9 + [[1, 0], [1, 1]]
    assert (rewards, last) == ([0] * 10 + [1], (True, False, True))
    seen, rewards, last = episode(PassiveTMaze(length=2), [LEFT + 1, 0, 0], goal=-1)
    assert seen.tolist() == [[0, -1], [0, 0], [0, 0], [1, 0]]  # a wall, and late from then on
    assert (rewards, last) == ([-0.5, -0.5, 0], (True, False, False))


def test_an_active_tmaze_shows_its_goal_to_the_left_of_the_start() -> None:
    seen, rewards, last = episode(ActiveTMaze(length=2), [2, 0, 0, 0, DOWN], goal=-1)
    assert seen.tolist() == [[0, 0], [0, -1], [0, 0], [0, 0], [1, 0], [1, -1]]
    assert (rewards, last) == ([0, 0, 0, 0, 1], (True, False, True))
    # The straight way is at the junction early, and must wait.
    seen, rewards, last = episode(ActiveTMaze(length=2), [0, 0, DOWN, DOWN, UP], goal=-1)
    assert seen.tolist() == [[0, 0], [0, 0], [1, 0], [1, -1], [1, -1], [1, 0]]
    assert (rewards, last) == ([0, 0, 0, 0, 0], (True, False, False))


def test_bits_are_shown_one_a_step_and_asked_for_by_index() -> None:
    task = Bits(BitsOptions(num_bits=2, num_queries=2), 6)
    seen, rewards, last = episode(task, [0, 0, 0, 0, 1, 0], bits=[1, 0], queries=[0, 1])
    assert seen[:-1].tolist() == [
        *([1, 0, 1, 0], [-1, 0, 0, 1], [0] * 4, [0] * 4),
        *([0, 1, 1, 0], [0, 1, 0, 1]),
    ]
    assert (rewards, last) == ([0, 0, 0, 0, 1, 1], (True, False, True))
    _, rewards, last = episode(task, [0, 0, 0, 0, 0, 0], bits=[1, 0], queries=[0, 1])
    assert (rewards, last) == ([0, 0, 0, 0, 0, 1], (True, False, False))


def test_endless_tmaze() -> None:
    task = EndlessTMaze(EndlessTMazeOptions(longest_corridor=4), 2)
    case = {"clues": [1, -1], "lengths": [2, 1]}
    seen, rewards, last = episode(task, [0, 0, RIGHT, 0, LEFT], **case)
    assert seen[:-1].tolist() == [[0, 0, 1], [0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 0]]
    assert (rewards, last) == ([0, 0, 1, 0, 1], (True, False, True))
    _, rewards, last = episode(task, [0, LEFT, 0, FORWARD, LEFT], **case)
    assert (rewards, last) == ([0, -0.01, 0, -0.01, -0.01], (True, False, False))
    _, _, last = episode(task, [LEFT] * 60, **case)  # 6 * (4 + 1) * 2
    assert last == (False, True, False)
    place = EndlessTMaze(EndlessTMazeOptions(longest_corridor=4, position="x"), 2)
    seen, *_ = episode(place, [0, 0, LEFT], **case)
    assert seen[:3].tolist() == [[0, 0, 1], [0.25, 0, 0], [0.5, 0, 0]]


def test_arshot() -> None:
    task = ARShot(ARShotOptions(vocabulary=8), 2)
    mark, colon, shot, skip = 8, 9, 10, 8
    case = {"pairs": [[7, 3], [0, 7]], "query": 0}
    seen, rewards, last = episode(task, [skip] * 13 + [7], **case)
    first, second = [mark, 7, colon, 3, mark], [mark, 0, colon, 7, mark]
    assert seen.tolist() == [*first, *second, mark, 0, colon, shot, shot]
    assert (rewards, last) == ([0] * 13 + [1], (True, False, True))
    _, rewards, last = episode(task, [7] * 13 + [3], **case)
    assert (sum(rewards), last) == (0, (True, False, False))
    with pytest.raises(ConfigError, match="it must be one of the keys"):
        task.reset(options={**case, "query": 3})
    with pytest.raises(ConfigError, match="no key twice"):
        task.reset(options={"pairs": [[7, 3], [7, 1]]})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DistributedMemoryOptions(num_bits=4), r"env\.num_bits is 4; it must be odd"),
        (lambda: DistributedMemoryOptions(setting="13"), r"env\.setting is '13'; choose one of"),
        (lambda: DistributedMemory(length=4), "DistributedMemory length 4: the minimum is 5"),
        (lambda: Bits(length=3), "Bits length 3: the minimum is 4"),
        (lambda: BitsOptions(num_queries=0), r"env\.num_queries is 0"),
        (lambda: EndlessTMazeOptions(longest_corridor=0), r"env\.longest_corridor is 0"),
        (lambda: EndlessTMazeOptions(shortest_corridor=10), r"env\.shortest_corridor=10 is above"),
        (lambda: EndlessTMazeOptions(position="y"), r"env\.position is 'y'; choose one of: flag"),
        (lambda: ARShotOptions(pairs=40), r"env\.pairs=40 needs as many different words"),
        (lambda: ARShot(length=33), "ARShot length 33 needs as many different words"),
    ],
)
def test_settings_that_cannot_work_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
