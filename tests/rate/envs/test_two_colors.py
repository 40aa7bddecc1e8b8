from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env

from rate.envs.spec import EnvironmentSpec
from rate.envs.two_colors import (
    FORWARD,
    TURN_LEFT,
    TwoColors,
    TwoColorsOptions,
    is_red,
    two_colors_spec,
)
from rate.errors import ConfigError
from tests.processes import PATIENCE

pytest.importorskip("vizdoom")

RED_SEED = next(seed for seed in range(100) if is_red(seed))
GREEN_SEED = next(seed for seed in range(100) if not is_red(seed))


@pytest.fixture(scope="module")
def room():
    env = TwoColors(length=400)
    yield env
    env.close()


@pytest.fixture(scope="module")
def other():
    env = TwoColors(TwoColorsOptions(privileged=True), length=60)
    yield env
    env.close()


def image(observation):
    return observation["image"] if isinstance(observation, dict) else observation


def roll(env, seed, steps=60):
    actions = np.random.default_rng(seed).integers(5, size=steps)
    observation, _ = env.reset(seed=seed)
    frames, rewards = [image(observation).tobytes()], []
    for action in actions:
        observation, reward, *_, info = env.step(action)
        frames.append(image(observation).tobytes())
        rewards.append(reward)
    return frames, rewards, info


@pytest.mark.filterwarnings("ignore:.*render.*", "ignore:.*Box.*")
def test_gymnasium_accepts_it(room):
    check_env(room, skip_close_check=True)


def test_the_specification_has_the_environments_spaces(other):
    plain, privileged = two_colors_spec(), two_colors_spec(TwoColorsOptions(privileged=True))
    assert plain.observation_space.shape == (3, 64, 112)
    assert plain.action_space.n == 5
    observation, _ = other.reset(seed=RED_SEED)
    assert privileged.observation_space.contains(observation)
    assert observation["privileged"].tolist() == [1]
    assert other.reset(seed=GREEN_SEED)[0]["privileged"].tolist() == [0]
    assert EnvironmentSpec.from_dict(privileged.to_dict()) == privileged


def test_an_episode_depends_on_its_seed_alone(room, other):
    first = {seed: roll(room, seed) for seed in range(4)}
    again = {seed: roll(other, seed) for seed in (2, 0, 3, 1)}
    assert first == again
    assert len({frames[0] for frames, _, _ in first.values()}) == 4


def test_without_a_seed_episodes_come_from_the_generator(room):
    room.reset(seed=3)
    one = [room.reset()[0].tobytes() for _ in range(2)]
    room.reset(seed=3)
    assert [room.reset()[0].tobytes() for _ in range(2)] == one
    assert one[0] != one[1]


def test_half_of_the_seeds_are_red():
    assert abs(np.mean([is_red(seed) for seed in range(4000)]) - 0.5) < 0.03
    assert is_red(1 << 40) in (True, False)


@pytest.mark.parametrize(("seed", "channel"), [(RED_SEED, 0), (GREEN_SEED, 1)])
def test_the_agent_starts_in_front_of_the_pillar(room, seed, channel):
    observation, info = room.reset(seed=seed)
    pillar = observation[:, 24:34, 54:58].reshape(3, -1).mean(axis=1)
    assert info["red"] == room.red == (channel == 0)
    assert pillar.argmax() == channel
    assert pillar[channel] > 1.5 * np.delete(pillar, channel).max()


def test_the_colours_differ_in_the_pillar_alone(room):
    # With one engine seed, both maps have the same items: they must not reveal the colour.
    scenes = []
    for red in (True, False):
        room._engine.new_episode(red, seed=5)
        scenes.append(room.scene())
    assert (scenes[0].red == scenes[1].red).all()
    assert (scenes[0].green == scenes[1].green).all()


@pytest.mark.parametrize("seed", [1, 2])
def test_the_pillar_is_in_exactly_pillar_steps_observations(room, seed):
    room.reset(seed=seed)
    seen = 0
    while room.scene().pillar:
        seen += 1
        room.step(TURN_LEFT)
    assert seen == room.options.pillar_steps == 45


def test_without_items_the_agent_dies_at_step_320(room):
    room.reset(seed=GREEN_SEED)
    rewards, terminated = [], False
    while not terminated:
        _, reward, terminated, truncated, info = room.step(TURN_LEFT)
        rewards.append(reward)
    assert not truncated
    assert rewards == [0.02] * 319 + [0.0]
    assert info == {"lifetime": 640, "red": False, "right_items": 0, "wrong_items": 0}
    _, reward, terminated, truncated, after = room.step(FORWARD)
    assert (reward, terminated, truncated, after) == (0.0, True, False, info)


def test_a_time_out_truncates(other):
    _, _, info = roll(other, seed=RED_SEED, steps=60)
    assert info["lifetime"] == 120
    *_, terminated, truncated, _ = other.step(0)
    assert (terminated, truncated) == (False, True)


def test_items_change_health_by_the_rules(room):
    room.reset(seed=RED_SEED)
    assert (
        room._count((1, 0)) == 0.02
    )  # an item of the pillar's colour has no effect at full health
    assert room.health == 100 - 10 / 32
    assert room._count((2, 0)) == 1.02
    assert room.health == 100 - 10 / 32
    assert room._count((2, 1)) == 0.02
    assert room.health == 75 - 20 / 32
    assert room._count((4, 2)) == 2.02
    assert room.health == 75 - 10 / 32
    assert room._count((4, 5)) == 0.0
    assert room.health < 0


def test_the_number_of_items_is_constant(room):
    room.reset(seed=RED_SEED)
    taken = 0
    for step in range(300):
        *_, info = room.step(FORWARD if step % 12 else TURN_LEFT)
        if info["right_items"] + info["wrong_items"] > taken:
            taken = info["right_items"] + info["wrong_items"]
            room.step(FORWARD)  # an item reappears one tic after it is taken
            room.step(FORWARD)
    scene = room.scene()
    assert taken > 0
    assert abs(len(scene.red) + len(scene.green) - 20) <= 1


def test_render_returns_the_engines_frame(room):
    room.reset(seed=0)
    frame = room.render()
    assert frame.shape == (180, 320, 3)
    assert frame.dtype == np.uint8


def test_invalid_arguments_are_refused(room):
    room.reset(seed=0)
    for action in (5, -1):
        with pytest.raises(ValueError, match="expected 0, 1, 2, 3 or 4"):
            room.step(action)
    with pytest.raises(ValueError, match="at least 1 step"):
        TwoColors(length=0)
    for options in ({"pillar_steps": 0}, {"items": 0}, {"items": 1000}):
        with pytest.raises(ConfigError, match=rf"env\.{next(iter(options))}"):
            TwoColorsOptions(**options)
    with pytest.raises(ResetNeeded):
        TwoColors().step(0)


def test_importing_the_module_does_not_import_the_simulator():
    code = "import sys; import rate.envs.two_colors; sys.exit('vizdoom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=PATIENCE).returncode == 0
