"""SelectNonMatching: trials, what is seen of the example, rewards and refused values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rate.envs.tasks.select_non_matching import SelectNonMatching, SelectNonMatchingOptions
from rate.errors import ConfigError

NORTH, SOUTH, WEST, EAST = range(4)
LEFT, RIGHT = 0, 1


def started(distance: int = 4, **options: Any) -> SelectNonMatching:
    env = SelectNonMatching(SelectNonMatchingOptions(distance=distance))
    env.reset(seed=0, options={"objects": [0, 12], "sides": [LEFT, RIGHT], **options})
    return env


def walk(env: SelectNonMatching, *actions: int) -> list[Any]:
    return [env.step(action) for action in actions]


def colours(observation: Any) -> set[tuple[int, ...]]:
    return set(map(tuple, observation.reshape(3, -1).T.tolist()))


def test_a_trial_pays_for_the_pad_and_for_the_other_object() -> None:
    steps = walk(started(), *[NORTH] * 4, *[NORTH] * 3, EAST, EAST, NORTH)
    assert [step[1] for step in steps] == [0, 0, 0, 1, 0, 0, 0, 0, 0, 10]
    assert [step[4]["success"] for step in steps] == [False] * 9 + [True]


def test_the_object_of_the_example_costs_and_success_is_lost() -> None:
    env = started()
    steps = walk(env, *[NORTH] * 4, *[NORTH] * 3, WEST, WEST, NORTH)
    assert steps[-1][1] == -10
    for _ in range(10):
        *_, reward, _, _, info = env.step(env.oracle_action)
    assert (reward, info["success"]) == (10, False)


def test_the_example_is_seen_at_the_start_alone() -> None:
    env = started(distance=6)
    red, green = (255, 0, 0), (0, 255, 0)
    seen = [step[0] for step in walk(env, *[NORTH] * 6, *[NORTH] * 6)]
    shown = [(red in colours(frame), green in colours(frame)) for frame in seen]
    assert shown[:2] == [(True, False)] * 2
    assert shown[2:8] == [(False, False)] * 6  # the pad leads into the second room
    assert shown[-1] == (True, True)


def test_the_example_is_out_of_reach() -> None:
    env = started()
    steps = walk(env, WEST, WEST)  # the second is blocked
    np.testing.assert_array_equal(steps[0][0], steps[1][0])


def test_the_example_stays_and_the_rest_is_drawn_for_each_trial() -> None:
    env = SelectNonMatching()
    env.reset(seed=3)
    objects, sides = [], []
    for _ in range(env.max_steps):
        objects.append(tuple(env.state["objects"][0].tolist()))
        sides.append(tuple(env.state["sides"][0].tolist()))
        env.step(env.oracle_action)
    assert len({example for example, _ in objects}) == 1
    assert len({other for _, other in objects}) > 2
    assert len(set(sides)) > 1
    assert all(example != other for example, other in objects)


@pytest.mark.parametrize(("distance", "best"), [(14, 66.0), (8, 110.0), (12, 67.0)])
def test_the_return_of_the_expert(distance: int, best: float) -> None:
    options = SelectNonMatchingOptions(distance=distance)
    vector = SelectNonMatching.make_vector(20, options)
    assert vector.task.best_return == best
    _, info = vector.reset(seed=0)
    returns = np.zeros(20)
    for _ in range(180):
        _, rewards, _, truncated, info = vector.step(info["oracle_action"])
        returns += rewards
    assert truncated.all()
    assert (returns == best).all()


def test_impossible_values_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"env\.distance is 2; it must be"):
        SelectNonMatchingOptions(distance=2)
    for objects in ([1, 1], [0, 36], [-1, 0]):
        with pytest.raises(ConfigError, match=r"The reset option 'objects' is .*distinct"):
            SelectNonMatching().reset(options={"objects": objects})
    with pytest.raises(ConfigError, match=r"SelectNonMatching length 20: the minimum is 30"):
        SelectNonMatching(length=20)
