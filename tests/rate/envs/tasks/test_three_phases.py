"""Visual Match and Key-to-Door: what is drawn, phases, apples, doors and refused values.

Their dynamics are compared with recordings of the originals in `tests/parity/test_pixel_tasks.py`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rate.envs.tasks import apples
from rate.envs.tasks.key_to_door import KeyToDoor
from rate.envs.tasks.three_phases import ThreePhasesOptions
from rate.envs.tasks.visual_match import VisualMatch, VisualMatchOptions
from rate.errors import ConfigError

NORTH, SOUTH, WEST, EAST = range(4)
RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 255]


def mean_return(env: Any, rows: int = 200) -> tuple[float, float]:
    """Returns the mean return and success rate of the expert."""
    vector = env.make_vector(rows, env.options, env.lengths)
    _, info = vector.reset(seed=0)
    returns = np.zeros(rows)
    for _ in range(env.max_steps):
        _, rewards, terminated, _, info = vector.step(info["oracle_action"])
        returns += rewards
    assert terminated.all()
    return float(returns.mean()), float(info["success"].mean())


@pytest.mark.parametrize("task", [VisualMatch, KeyToDoor])
@pytest.mark.parametrize(("length", "published"), [(60, 25.6), (120, 46)])
def test_the_expert_always_succeeds_and_eats_as_many_apples_as_published(
    task: Any, length: int, published: float
) -> None:
    env = task(length=length)
    found, success = mean_return(env)
    assert success == 1
    assert found > published
    assert found == pytest.approx(env.best_return, abs=1)


@pytest.mark.parametrize(("task", "steps"), [(VisualMatch, 90), (KeyToDoor, 85)])
def test_the_setting_is_the_length_of_the_second_phase(task: Any, steps: int) -> None:
    assert task().max_steps == steps
    assert task(task.options_class(distractor=7)).max_steps == steps - 60 + 7
    assert task(length=9).max_steps == steps - 60 + 9
    with pytest.raises(ConfigError, match=r"env\.distractor is 0; it must be a whole number"):
        task.options_class(distractor=0)


def test_the_target_is_seen_in_the_first_phase_alone() -> None:
    env = VisualMatch(length=5)
    options = {"target": 1, "target_cell": [1, 4], "colors": [RED, [10, 20, 30], BLUE]}
    seen, _ = env.reset(seed=0, options=options)
    assert seen.shape == (3, 5, 5)
    assert seen[:, 1, 1].tolist() == [10, 20, 30]  # north-west of the player
    for step in range(20):
        seen, *_ = env.step(NORTH)
        shown = (seen.reshape(3, 25).T == [10, 20, 30]).all(axis=1).any()
        assert shown == (step < 14)


@pytest.mark.parametrize(
    ("target", "reward", "success"), [(0, 0.0, False), (1, 5.0, True), (2, 0.0, False)]
)
def test_one_door_can_be_chosen(target: int, reward: float, success: bool) -> None:
    env = VisualMatch(length=1)
    env.reset(seed=0, options={"target": target})
    for _ in range(16 + 3):
        seen, *_ = env.step(NORTH)
    assert len(np.unique(seen.reshape(3, 25), axis=1).T) > 3  # the middle door is in view
    seen, earned, _, _, info = env.step(NORTH)
    assert (earned, info["success"]) == (reward, success)
    assert not (seen.max(axis=0) == 255).any()  # all doors have vanished
    later = [env.step(action) for action in (SOUTH, EAST, EAST, EAST, NORTH)]
    assert [step[1] for step in later] == [0] * 5
    assert later[-1][4]["success"] == success


def test_colours_are_drawn_as_the_setting_says() -> None:
    def colors(**settings: Any) -> list[Any]:
        rows = VisualMatch.make_vector(200, VisualMatchOptions(**settings))
        rows.reset(seed=0)
        found: list[Any] = np.unique(rows.state["colors"], axis=0).tolist()
        return found

    assert len(colors()) == 6
    assert colors(color_map="fixed") == [[RED, GREEN, BLUE]]
    per_env = [colors(color_map="per_env", color_seed=seed) for seed in range(20)]
    assert all(len(found) == 1 for found in per_env)
    assert len({str(found) for found in per_env}) > 3
    env = VisualMatch(VisualMatchOptions(color_map="fixed"))
    env.reset(seed=0, options={"colors": [BLUE, GREEN, RED]})
    assert env.state["colors"][0].tolist() == [BLUE, GREEN, RED]
    with pytest.raises(ConfigError, match=r"env\.color_map is 'random'; choose one of: per_ep"):
        VisualMatchOptions(color_map="random")


def test_what_is_drawn_is_uniform() -> None:
    rows = VisualMatch.make_vector(4000)
    rows.reset(seed=0)
    state = rows.state
    assert np.allclose(np.bincount(state["target"]) / 4000, 1 / 3, atol=0.03)
    cells, counts = np.unique(state["target_cell"], axis=0, return_counts=True)
    assert len(cells) == 8
    assert np.allclose(counts / 4000, 1 / 8, atol=0.03)
    assert (state["planted"].sum(axis=1) == apples.NUM_APPLES).all()
    assert np.allclose(state["planted"].mean(axis=0), 10 / 22, atol=0.04)


def test_an_apple_is_back_after_more_than_20_frames() -> None:
    cells = [[5, 7], [1, 1], [1, 3], [1, 5], [1, 7], [1, 9], [2, 2], [2, 4], [2, 6], [2, 8]]
    env = KeyToDoor(length=60)
    env.reset(seed=0, options={"apples": cells})
    for _ in range(15):
        env.step(NORTH)
    assert [env.step(EAST)[1] for _ in range(2)] == [0, 1]  # eaten at frame 2
    waiting = [env.step(SOUTH)[1] for _ in range(25)]  # in front of a wall
    assert np.flatnonzero(waiting).tolist() == [21]  # it grew at frame 23


@pytest.mark.parametrize(("color_map", "steps"), [("per_episode", [7, 4, 9]), ("fixed", [7, 4, 7])])
def test_the_expert_looks_before_it_chooses(color_map: str, steps: list[int]) -> None:
    """Only where colours are drawn for each episode: there it cannot know what it has not seen."""
    for target in range(3):
        env = VisualMatch(VisualMatchOptions(color_map=color_map), length=1)
        env.reset(seed=0, options={"target": target})
        for _ in range(16):
            env.step(NORTH)
        taken = []
        while env.state["chosen"][0] < 0:
            taken.append(env.oracle_action)
            env.step(taken[-1])
        assert (len(taken), env.state["chosen"][0]) == (steps[target], target)


@pytest.mark.parametrize("task", [VisualMatch, KeyToDoor])
def test_the_expert_can_be_imitated(task: Any) -> None:
    """What it does in the first and third phase is a function of the observations in them."""
    rows = task.make_vector(400, length=1)
    seen, info = rows.reset(seed=0)
    known: list[Any] = [()] * 400
    answers: dict[Any, int] = {}
    for step in range(rows.task.max_steps):
        state = rows.state
        done = state["has_key"] if task is KeyToDoor else state["chosen"] >= 0
        for row in np.flatnonzero(~done) if step != 15 else ():
            known[row] += (seen[row].tobytes(),)
            action = int(info["oracle_action"][row])
            assert answers.setdefault(known[row], action) == action
        seen, _, _, _, info = rows.step(info["oracle_action"])


def test_any_number_of_apples_can_be_fixed() -> None:
    env = VisualMatch(length=20)
    rewards = []
    for cells in ([[5, 3]], np.zeros((0, 2), dtype=int), apples.CELLS):
        env.reset(seed=0, options={"apples": cells})
        rewards.append(sum(env.step(WEST)[1] for _ in range(15 + 2)))
        assert env.state["planted"].sum() == len(cells)
    assert rewards == [1, 0, 1]
    rows = VisualMatch.make_vector(2)
    rows.reset(seed=0, options={"apples": [[[5, 3], [1, 1]], [[5, 7], [1, 1]]]})
    assert rows.state["planted"].sum(axis=1).tolist() == [2, 2]


def key_to_door(*actions: int, door: tuple[int, ...] = (NORTH, NORTH)) -> list[Any]:
    env = KeyToDoor(length=1)
    env.reset(seed=0, options={"key": [2, 5], "player": [4, 5]})
    steps = [env.step(action) for action in actions]
    steps += [env.step(SOUTH) for _ in range(16 - len(actions))]
    return steps + [env.step(action) for action in door]


def test_the_door_opens_for_who_has_the_key() -> None:
    taken = key_to_door(NORTH, NORTH)
    assert [step[1] for step in taken[-2:]] == [0, 5]
    assert taken[-1][4]["success"]
    left = key_to_door(NORTH)
    assert [step[1] for step in left[-2:]] == [0, 0]
    assert not left[-1][4]["success"]


def test_the_reward_is_paid_once_and_the_door_stays_open() -> None:
    door = (NORTH, NORTH, NORTH, SOUTH, SOUTH, NORTH)
    steps = key_to_door(NORTH, NORTH, door=door)
    assert [step[1] for step in steps[-6:]] == [0, 5, 0, 0, 0, 0]
    on_door = (134, 206, 235)  # drawn above the player
    for step in (steps[-5], steps[-3], steps[-1]):
        assert tuple(step[0][:, 2, 2]) == on_door


def test_taking_the_key_is_shown_for_one_step() -> None:
    white = [bool((step[0] == 255).all(axis=0).any()) for step in key_to_door(NORTH, NORTH)]
    assert white[:3] == [False, True, False]
    assert not any(white[3:])


def test_impossible_values_are_refused() -> None:
    match, door = VisualMatch(), KeyToDoor()
    for option, value, words in (
        ("target", 3, "from 0 to 2"),
        ("target_cell", [2, 5], "one of"),
        ("colors", [RED, RED, BLUE], "distinct"),
        ("colors", [RED, [0, 0, 256], BLUE], "from 0 to 255"),
        ("apples", [[1, 1]] * 10, "distinct"),
        ("apples", [1, 1], "shape"),
        ("apples", [[1, 2]], "distinct"),
    ):
        with pytest.raises(ConfigError, match=rf"The reset option '{option}' is .*{words}"):
            match.reset(options={option: value})
    for option in ("key", "player"):
        with pytest.raises(ConfigError, match=rf"The reset option '{option}' is .*one of"):
            door.reset(options={option: [3, 5]})
    with pytest.raises(ConfigError, match="reset has no option 'target'"):
        door.reset(options={"target": 1})
    assert ThreePhasesOptions().distractor == 60
