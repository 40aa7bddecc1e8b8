from __future__ import annotations

from collections import deque

import numpy as np
import pytest

from datamodules.collector import Collector
from datamodules.minigrid_memory import MinigridMemoryExpert
from rate.envs.minigrid_memory import FORWARD, MinigridMemory, MinigridMemoryOptions
from rate.envs.tmaze import TMaze

pytest.importorskip("minigrid")

SYMBOLS = MinigridMemoryOptions(observation="symbols")


def sees(simulator, cue):
    """Returns whether the cue is in view, and whether the agent faces up at the fork."""
    column, row = min(simulator.success_pos, simulator.failure_pos, key=lambda p: p[1])
    pose = *map(int, simulator.agent_pos), int(simulator.agent_dir)
    return simulator.agent_sees(*cue), pose == (column, row + 1, 3)


def both(first, second):
    return tuple(a or b for a, b in zip(first, second, strict=True))


def play(env, expert, seed):
    """Returns whether all required objects were in view, the success, and the actions."""
    env.reset(seed=seed)
    expert.reset(env, seed)
    actions, seen = [], (False, False)
    while True:
        seen = both(seen, sees(env.simulator, env.cue_position))
        actions.append(expert.act())
        *_, terminated, truncated, info = env.step(actions[-1])
        if terminated or truncated:
            return all(seen), info["success"], actions


@pytest.mark.parametrize(("size", "seeds"), [(7, 60), (11, 60), (13, 60), (31, 30), (41, 30)])
def test_the_expert_sees_all_objects_and_succeeds(size, seeds):
    env, expert = MinigridMemory(SYMBOLS, size), MinigridMemoryExpert()
    for seed in range(seeds):
        seen, success, actions = play(env, expert, seed)
        assert seen
        assert success
        assert len(actions) <= 2 * size - 2


def test_the_expert_takes_the_shortest_path_that_sees_both_objects():
    """Compares with a forward search that asks MiniGrid for every step and view."""
    env, expert = MinigridMemory(SYMBOLS, 11), MinigridMemoryExpert()
    for seed in range(6):
        _, _, actions = play(env, expert, seed)
        env.reset(seed=seed)
        assert len(actions) == shortest(env.simulator, env.cue_position)


def shortest(simulator, cue):
    simulator.max_steps = 10**9

    def state(seen):
        pose = (*map(int, simulator.agent_pos), int(simulator.agent_dir))
        return pose, both(seen, sees(simulator, cue))

    start = state((False, False))
    steps, frontier = {start: 0}, deque([start])
    while frontier:
        before = frontier.popleft()
        (column, row, direction), seen = before
        for action in range(3):
            simulator.agent_pos, simulator.agent_dir = (column, row), direction
            _, reward, terminated, _, _ = simulator.step(action)
            if reward > 0 and all(seen):
                return steps[before] + 1
            after = state(seen)
            if not terminated and after not in steps:
                steps[after] = steps[before] + 1
                frontier.append(after)
    raise AssertionError("no way")


@pytest.mark.parametrize("noise", [0.2, 0.9])
def test_episodes_with_noise_succeed(noise):
    env, quiet, noisy = (
        MinigridMemory(SYMBOLS, 13),
        MinigridMemoryExpert(),
        MinigridMemoryExpert(noise),
    )
    longer = 0
    for seed in range(40):
        seen, success, actions = play(env, noisy, seed)
        assert seen
        assert success
        longer += len(actions) - len(play(env, quiet, seed)[2])
        assert play(env, noisy, seed)[2] == actions
    assert longer > 40


def test_the_expert_acts_when_the_time_is_too_short():
    env = MinigridMemory(MinigridMemoryOptions(observation="symbols", time_out=4), 13)
    _, success, actions = play(env, MinigridMemoryExpert(noise=1.0), 0)
    assert not success
    assert len(actions) == 4


def test_the_expert_may_be_reset_before_the_environment():
    env, expert = MinigridMemory(SYMBOLS, (7, 31)), MinigridMemoryExpert()
    for seed in range(10):
        _, _, actions = play(env, expert, seed)
        expert.reset(env, seed)
        env.reset(seed=seed)
        for action in actions:
            assert expert.act() == action
            env.step(action)


def test_a_player_records_the_expert():
    options = MinigridMemoryOptions(privileged=True)
    collector = Collector(lambda: MinigridMemory(options, 11), MinigridMemoryExpert)
    episode = collector.collect(4)
    collector.close()
    assert episode.observations["image"].shape == (len(episode), 3, 84, 84)
    assert episode.observations["image"].dtype == np.uint8
    assert np.unique(episode.observations["privileged"]).tolist() == [episode.outcome["cue"]]
    assert episode.terminated
    assert episode.actions[-1] == FORWARD
    assert episode.outcome["success"] == 1
    assert episode.outcome["size"] == 11
    np.testing.assert_allclose(episode.rewards.sum(), 1 - 0.9 * len(episode) / 44)


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="probability"):
        MinigridMemoryExpert(noise=1.5)
    with pytest.raises(TypeError, match="not TMaze"):
        MinigridMemoryExpert().reset(TMaze(5), 0)
