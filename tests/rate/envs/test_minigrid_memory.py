from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rate.encoders import SymbolEncoder, make_encoder
from rate.envs.minigrid_memory import (
    FORWARD,
    LEFT,
    RIGHT,
    MinigridMemory,
    MinigridMemoryOptions,
    minigrid_memory_spec,
)
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError

memory = pytest.importorskip("minigrid.envs.memory")
wrappers = pytest.importorskip("minigrid.wrappers")

SYMBOLS = MinigridMemoryOptions(observation="symbols")
PIXELS = MinigridMemoryOptions()


def walk_to_the_end(env, succeed=True):
    """Walks straight to the junction, then to an object. Returns the results of the last step."""
    simulator = env.simulator
    junction = int(simulator.success_pos[0])
    while simulator.agent_pos[0] < junction:
        env.step(FORWARD)
    up = simulator.success_pos[1] < simulator.agent_pos[1]
    env.step(LEFT if up == succeed else RIGHT)
    return env.step(FORWARD)


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return first.dtype == second.dtype and np.array_equal(first, second)


@pytest.mark.filterwarnings("ignore:.*render")
@pytest.mark.parametrize("privileged", [False, True])
@pytest.mark.parametrize("observation", ["pixels", "symbols"])
def test_gymnasium_accepts_it(observation, privileged):
    options = MinigridMemoryOptions(observation=observation, privileged=privileged)
    env = MinigridMemory(options, 7)
    check_env(env)
    spec = minigrid_memory_spec(options)
    assert spec.observation_space == env.observation_space
    assert EnvironmentSpec.from_dict(spec.to_dict()) == spec
    seen, _ = env.reset(seed=0)
    assert env.observation_space.contains(seen)
    keys = {"privileged", "image" if observation == "pixels" else "symbols"}
    assert (set(seen) == keys) if privileged else isinstance(seen, np.ndarray)


@pytest.mark.parametrize("random_length", [False, True])
@pytest.mark.parametrize("size", [7, 13, 41])
def test_it_equals_minigrids_environment(size, random_length):
    """Grid, pixels, symbols, rewards and ends equal MiniGrid's for the same seed and actions."""
    theirs = memory.MemoryEnv(
        size=size, random_length=random_length, agent_view_size=3, max_steps=4 * size
    )
    pictures = wrappers.RGBImgPartialObsWrapper(theirs, tile_size=28)
    ours = [
        MinigridMemory(MinigridMemoryOptions(observation=name, random_length=random_length), size)
        for name in ("pixels", "symbols")
    ]
    rng = np.random.default_rng(0)
    ends = set()
    for seed in range(12):
        theirs.reset(seed=seed)
        rows = [env.reset(seed=seed) for env in ours]
        for env in ours:
            assert env.simulator.grid == theirs.grid
        done = False
        while not done:
            pixels = pictures.observation({})["image"].transpose(2, 0, 1)
            np.testing.assert_array_equal(rows[0][0], pixels)
            np.testing.assert_array_equal(rows[1][0], theirs.gen_obs()["image"])
            action = int(rng.choice(3, p=[0.15, 0.15, 0.7]))
            _, reward, terminated, truncated, _ = theirs.step(action)
            rows = [env.step(action) for env in ours]
            done = terminated or truncated
            for row in rows:
                assert row[1:4] == (reward, terminated, truncated and not terminated)
        ends.add((terminated, reward > 0))
    assert len(ends) > 1


@pytest.mark.parametrize("length", [11, (7, 31)])
def test_an_episode_depends_on_its_seed_alone(length):
    options = MinigridMemoryOptions(privileged=True)
    first, second = MinigridMemory(options, length), MinigridMemory(options, length)
    actions = np.random.default_rng(1).choice(3, size=40, p=[0.2, 0.2, 0.6])

    def play(env, seed):
        seen = [env.reset(seed=seed)]
        return [*seen, *(env.step(action) for action in actions)]

    episodes = {seed: play(first, seed) for seed in (5, 6, 7)}
    for seed in (7, 5, 6, 5):
        for ours, again in zip(episodes[seed], play(second, seed), strict=True):
            assert same(ours[0], again[0])
            assert ours[1:] == again[1:]


def test_without_a_seed_episodes_differ_and_follow_the_generator():
    env = MinigridMemory(SYMBOLS, (7, 41))

    def layouts():
        env.reset(seed=3)
        out = []
        for _ in range(6):
            _, info = env.reset()
            out.append((info["size"], info["cue"], *map(int, env.simulator.agent_pos)))
        return out

    first = layouts()
    assert len(set(first)) > 3
    assert layouts() == first


def test_cues_sides_and_sizes_are_uniform_over_seeds():
    env = MinigridMemory(SYMBOLS, (7, 13))
    kinds, sizes = np.zeros((2, 2)), np.zeros(14)
    for seed in range(2000):
        _, info = env.reset(seed=seed)
        up = env.simulator.success_pos[1] < env.simulator.height // 2
        kinds[info["cue"], int(up)] += 1
        sizes[info["size"]] += 1
    assert kinds.min() > 400
    assert sizes[[7, 9, 11, 13]].min() > 400
    assert sizes.sum() == sizes[[7, 9, 11, 13]].sum()


@pytest.mark.parametrize("succeed", [True, False])
def test_rewards_and_outcomes(succeed):
    env = MinigridMemory(SYMBOLS, 11)
    for seed in range(8):
        env.reset(seed=seed)
        last = walk_to_the_end(env, succeed)
        steps, cue = env.simulator.step_count, env.cue
        reward = 1 - 0.9 * steps / 44 if succeed else 0
        assert last[1] == pytest.approx(reward)
        assert last[2:] == (True, False, {"success": succeed, "cue": cue, "size": 11})
        # A finished episode keeps its observation and flags.
        again = env.step(LEFT)
        assert same(again[0], last[0])
        assert again[1:] == (0, *last[2:])


def test_the_time_out_truncates():
    for options, steps in ((SYMBOLS, 28), (MinigridMemoryOptions(time_out=5), 5)):
        env = MinigridMemory(options, 7)
        assert env.max_steps == steps
        env.reset(seed=0)
        rows = [env.step(LEFT) for _ in range(steps)]
        assert [row[3] for row in rows] == [False] * (steps - 1) + [True]
        assert not any(row[2] for row in rows)
        assert rows[-1][4]["success"] is False


def test_the_privileged_state_is_the_cue():
    env = MinigridMemory(MinigridMemoryOptions(observation="symbols", privileged=True), 7)
    for seed in range(8):
        seen, info = env.reset(seed=seed)
        kind = env.simulator.grid.get(*env.cue_position).type
        assert seen["privileged"] == [kind == "key"] == [info["cue"]]


def test_each_symbol_has_an_embedding():
    space = minigrid_memory_spec(SYMBOLS).observation_space
    assert isinstance(space, spaces.MultiDiscrete)
    encoder = make_encoder(space, 8)
    assert isinstance(encoder, SymbolEncoder)
    env = MinigridMemory(SYMBOLS, 7)
    seen = np.stack([env.reset(seed=seed)[0] for seed in range(6)])
    assert (seen < space.nvec).all()
    assert encoder(torch.from_numpy(seen)[None]).shape == (1, 6, 8)


def test_the_default_time_out_is_enough_in_large_mazes():
    env = MinigridMemory(PIXELS, 501)
    seen, info = env.reset(seed=0)
    assert seen.shape == (3, 84, 84)
    assert info["size"] == 501
    assert env.max_steps == env.simulator.max_steps == 2004


def test_render():
    env = MinigridMemory(PIXELS, 13)
    seen, _ = env.reset(seed=0)
    picture = env.render()
    assert picture.shape == (252, 504, 3)
    assert picture.dtype == np.uint8
    np.testing.assert_array_equal(picture[:252:3, :252:3], seen.transpose(1, 2, 0))
    # The agent is in the middle of the map; the cells in its view are highlighted.
    lit = picture[14::28, 252 + 14 :: 28].astype(int).sum(-1)
    mask = env._seen_around(4)
    assert mask[4, 4]
    assert mask[6, 4]
    assert not mask[3].any()
    assert lit[mask.T].min() > 0


@pytest.mark.parametrize("length", [5, 8, 0, -7, (9, 7), (7, 10), (8, 11)])
def test_impossible_sizes_are_refused(length):
    with pytest.raises(ValueError, match="odd number from 7 on"):
        MinigridMemory(SYMBOLS, length)


def test_invalid_settings_are_named():
    with pytest.raises(ConfigError, match=r"env\.observation is 'rgb'"):
        MinigridMemoryOptions(observation="rgb")
    with pytest.raises(ConfigError, match=r"env\.time_out is 0"):
        MinigridMemoryOptions(time_out=0)
    env = MinigridMemory(SYMBOLS, 7)
    with pytest.raises(ResetNeeded):
        env.step(LEFT)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 0, 1 or 2"):
        env.step(3)
    env.close()
    env.close()


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "minigrid.envs.memory", None)
    with pytest.raises(ConfigError, match="make install EXTRAS=minigrid"):
        MinigridMemory(SYMBOLS, 7)


def test_importing_the_module_does_not_import_the_simulator():
    code = (
        "import sys, rate.envs.minigrid_memory as m; m.minigrid_memory_spec(); "
        "sys.exit(any(name in sys.modules for name in ('minigrid', 'torch', 'pygame')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
