"""POPGym's experts reach their documented returns."""

from __future__ import annotations

import numpy as np
import pytest

from datamodules.popgym import EXPERTS, PopgymExpert
from datamodules.popgym_experts.boards import mine_chances
from rate.envs.popgym import Popgym, PopgymOptions
from rate.envs.popgym_tasks import TASKS

pytest.importorskip("popgym", reason="POPGym is not installed (extra popgym)")
pytest.importorskip("mazelib", reason="POPGym's labyrinths are not installed (extra popgym)")


def returns(task: str, episodes: int, noise: float = 0.0, **options: bool) -> np.ndarray:
    env, expert = Popgym(PopgymOptions(task, **options)), PopgymExpert(noise)
    earned = np.zeros(episodes)
    for seed in range(episodes):
        env.reset(seed=1000 + seed)
        expert.reset(env, 1000 + seed)
        over = False
        while not over:
            _, reward, terminated, truncated, _ = env.step(expert.act())
            earned[seed] += reward
            over = terminated or truncated
    return earned


def test_there_is_an_expert_for_every_family() -> None:
    assert set(EXPERTS) == {task.family for task in TASKS.values()}


@pytest.mark.parametrize("task", TASKS)
def test_an_expert_reaches_its_documented_return(task: str) -> None:
    # Hard labyrinths and boards are slow; other tasks play more episodes.
    long = TASKS[task].steps > 500 or task.startswith(("Battleship", "LabyrinthExplore"))
    earned = returns(task, 5 if long else 20)
    expected = TASKS[task].expert_return
    if expected == 1.0:
        np.testing.assert_allclose(earned, 1.0)
    else:
        error = max(earned.std(), 0.01) / len(earned) ** 0.5
        assert abs(earned.mean() - expected) < 4 * error + 0.01


def test_an_expert_is_deterministic_and_noise_lowers_its_return() -> None:
    assert (returns("MineSweeperEasy", 5, 0.1) == returns("MineSweeperEasy", 5, 0.1)).all()
    assert returns("RepeatFirstEasy", 10, 0.2).mean() < 0.9
    with pytest.raises(ValueError, match="a probability"):
        PopgymExpert(noise=2.0)


def test_an_expert_uses_the_action_space_of_the_environment() -> None:
    pairs = returns("BattleshipEasy", 3)
    np.testing.assert_array_equal(returns("BattleshipEasy", 3, flat_actions=True), pairs)


def test_probabilities_of_mines() -> None:
    a, b, c, d = (0, 0), (0, 1), (0, 2), (0, 3)
    assert mine_chances({a, b}, [], 1) == {a: 0.5, b: 0.5}
    chances = mine_chances({a, b, c, d}, [(frozenset({a, b}), 1)], 1)
    assert chances == {a: 0.5, b: 0.5, c: 0.0, d: 0.0}
    # One mine in {a, b} and one in {b, c}: either b, or a and c; d has the remaining mines.
    chances = mine_chances({a, b, c, d}, [(frozenset({a, b}), 1), (frozenset({b, c}), 1)], 2)
    assert chances == {a: 0.5, b: 0.5, c: 0.5, d: 0.5}
