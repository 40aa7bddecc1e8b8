"""Color-Cubes: phases, what is shown and when, moved cubes, and refused values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rate.envs.tasks.color_cubes import ALL, DIFFICULTIES, POSITIONS, ColorCubes, ColorCubesOptions
from rate.errors import ConfigError

NORTH, SOUTH, WEST, EAST = range(4)


def started(positions: Any, targets: Any, **settings: Any) -> tuple[ColorCubes, Any]:
    given = {"grid": 5, "cubes": len(positions), "phases": len(targets), "teleport": 0.0}
    env = ColorCubes(ColorCubesOptions(**{**given, **settings}))
    seen, _ = env.reset(seed=0, options={"positions": positions, "targets": targets})
    return env, seen


def test_cubes_are_shown_at_the_start_of_a_phase_alone() -> None:
    env, seen = started([[0, 2], [4, 4]], [0, 1])
    assert seen.tolist() == [0, 0, 1, 0, 1, 0, -1, 0, 1, 1]
    seen, reward, *_ = env.step(NORTH)
    assert (reward, seen.tolist()) == (0, [-0.5, 0, *[0] * 8])
    seen, reward, terminated, _, info = env.step(NORTH)  # the first target
    assert (reward, terminated, info["success"]) == (1, False, False)
    assert seen[:6].tolist() == [-1, 0, 1, 0, 0, 1]
    assert seen[6:8].tolist() != [-1, 0]  # it was moved
    assert seen[8:].tolist() == [1, 1]
    for action in (SOUTH, SOUTH, SOUTH, SOUTH, EAST):
        assert env.step(action)[1] == 0
    _, reward, terminated, _, info = env.step(EAST)
    assert (reward, terminated, info["success"]) == (1, True, True)


def test_another_cube_is_worth_nothing() -> None:
    env, _ = started([[0, 2], [1, 2]], [0])
    assert [env.step(NORTH)[1] for _ in range(2)] == [0, 1]


@pytest.mark.parametrize("update", ["nothing", "all", "positions"])
def test_a_moved_cube_is_shown_as_the_setting_says(update: str) -> None:
    env, _ = started([[4, 4], [0, 0], [2, 0]], [0], teleport=1.0, update=update)
    before = env.state["positions"][0].tolist()
    seen, *_ = env.step(NORTH)
    after = env.state["positions"][0].tolist()
    assert after[0] == before[0]
    assert sum(old != new for old, new in zip(before, after, strict=True)) == 1
    cells = (np.array(after) / 2 - 1).tolist()
    if update == "nothing":
        assert not seen[2:].any()
    elif update == "all":
        assert seen[2:7].tolist() == [1, 0, 1, 0, 0]
        assert seen[7:].reshape(3, 2).tolist() == cells
    else:
        assert seen[2:7].tolist() == [0, 1, 0, 0, 0]
        assert seen[7:].reshape(3, 2).tolist() == sorted(cells)


def test_cubes_move_as_often_as_the_setting_says_and_to_free_cells() -> None:
    options = ColorCubesOptions(grid=4, cubes=5, phases=100, teleport=0.25, update="positions")
    vector = ColorCubes.make_vector(100, options)
    vector.reset(seed=0)
    shown, random = [], np.random.default_rng(0)
    for _ in range(100):
        vector.step(random.integers(4, size=100))
        positions = vector.state["positions"]
        index = np.sort(positions[..., 0] * 4 + positions[..., 1], axis=1)
        assert (np.diff(index, axis=1) > 0).all()
        assert ((positions >= 0) & (positions < 4)).all()
        shown.append(vector.state["shown"])
    taken = np.mean(np.stack(shown) == ALL)
    assert np.mean(np.stack(shown) == POSITIONS) == pytest.approx(0.25 * (1 - taken), abs=0.02)


def test_a_single_cube_is_never_moved_before_it_is_taken() -> None:
    env, _ = started([[4, 4]], [0, 0], teleport=1.0, update="all")
    env.step(NORTH)
    assert env.state["positions"][0].tolist() == [[4, 4]]


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_an_expert_fetches_all_in_half_of_the_time(difficulty: str) -> None:
    options = ColorCubesOptions(difficulty=difficulty)
    vector = ColorCubes.make_vector(50, options)
    _, info = vector.reset(seed=0)
    returns = np.zeros(50)
    for _ in range(vector.task.shortest):
        _, rewards, terminated, _, info = vector.step(info["oracle_action"])
        returns += rewards
    assert terminated.all()
    assert info["success"].all()
    assert (returns == DIFFICULTIES[difficulty].phases).all()


def test_settings_replace_those_of_the_difficulty() -> None:
    level = ColorCubesOptions(difficulty="extreme", cubes=2).level
    assert level == DIFFICULTIES["extreme"]._replace(cubes=2)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"difficulty": "hard"}, "env.difficulty is 'hard'; choose one of: trivial, easy"),
        ({"grid": 1}, "env.grid is 1; it must be a whole number of at least 2"),
        ({"grid": 2, "cubes": 3}, "env.cubes is 3; a grid of 2 x 2 cells has room for 2"),
        ({"cubes": 0}, "env.cubes is 0"),
        ({"phases": 0}, "env.phases is 0"),
        ({"teleport": 1.5}, "env.teleport is 1.5; it must be from 0 to 1"),
        ({"update": "colours"}, "env.update is 'colours'; choose one of: nothing, all"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        ColorCubesOptions(**settings)


def test_impossible_cells_and_targets_are_refused() -> None:
    env = ColorCubes(ColorCubesOptions(grid=5, cubes=2, phases=1))
    for positions in ([[0, 0], [0, 0]], [[2, 2], [0, 0]], [[0, 5], [0, 0]]):
        with pytest.raises(ConfigError, match=r"The reset option 'positions' is .*distinct"):
            env.reset(options={"positions": positions})
    with pytest.raises(ConfigError, match=r"The reset option 'targets' is .*from 0 to 1"):
        env.reset(options={"targets": [2]})
