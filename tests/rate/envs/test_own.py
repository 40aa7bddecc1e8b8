"""User environments: lookup by id or import path, the check before training, error messages."""

from __future__ import annotations

import textwrap
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from rate.envs.own import check_settings, drawing_mode, find_maker, make_own
from rate.envs.own_trial import describe
from rate.errors import ConfigError

MODULE = """\
    import gymnasium, numpy as np
    from gymnasium import spaces


    class Walk(gymnasium.Env):
        metadata = {"render_modes": ["rgb_array"]}

        def __init__(self, size=4, render_mode=None, max_steps=None):
            self.observation_space = spaces.Box(-1, 1, (2,), np.float32)
            self.action_space = spaces.Discrete(2)
            self.size, self.render_mode, self.max_steps = size, render_mode, max_steps

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.place = 0
            return self.see(), {}

        def see(self):  # float64, as many environments return
            return np.array([self.place / self.size, 0.0])

        def step(self, action):
            self.place += int(action)
            return self.see(), float(action), self.place >= self.size, False, {}

        def render(self):
            return np.full((4, 4, 3), self.place, np.uint8)


    class Odd(Walk):
        def __init__(self, oddity="", needed=0):
            super().__init__()
            self.oddity = oddity
            if oddity == "tuple":
                self.observation_space = spaces.Tuple([spaces.Discrete(2)])
            if oddity == "nested":
                self.observation_space = spaces.Dict(a=spaces.Dict(b=spaces.Discrete(2)))
            if oddity == "complex":
                self.action_space = spaces.Discrete(100_000)
            if oddity == "broken":
                raise RuntimeError("no licence")

        def reset(self, *, seed=None, options=None):
            observation, info = super().reset(seed=seed)
            if self.oddity == "alone":
                return observation
            return (np.zeros(3) if self.oddity == "shape" else observation), info

        def step(self, action):
            if self.oddity == "crash":
                raise KeyError("speed")
            result = super().step(action)
            return (result[0], result[1], result[2], {}) if self.oddity == "old" else result


    def make(size=4, **more):
        return gymnasium.wrappers.TimeLimit(Walk(size), 30)


    def need(level):
        return Walk()


    def nothing():
        return {}


    number = 3
    gymnasium.register("TheirWalk-v0", entry_point=Walk, max_episode_steps=25, kwargs={"size": 5})
    gymnasium.register("TheirAlone", entry_point="their_envs:Walk")
    gymnasium.register("TheirLost-v0", entry_point="their_envs:Gone")
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns the folder of a user's module."""
    (tmp_path / "their_envs.py").write_text(textwrap.dedent(MODULE))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def described(reference: str, **settings: object):
    maker = find_maker(reference)
    check_settings(reference, maker, settings)
    return describe(reference, maker, settings)


@pytest.mark.parametrize(
    ("reference", "max_steps"),
    [
        ("CartPole-v1", 500),
        ("their_envs:TheirWalk-v0", 25),
        ("TheirWalk-v0", 25),  # registered when the module is imported
        ("their_envs:TheirAlone", None),  # an id without a version, which is not an attribute
        ("their_envs:Walk", None),
        ("their_envs:make", 30),
    ],
)
def test_environments_are_found_with_their_time_limit(
    reference: str, max_steps: int | None
) -> None:
    find_maker("their_envs:TheirWalk-v0")
    assert described(reference).max_steps == max_steps


def test_a_time_limit_can_be_an_attribute() -> None:
    assert described("their_envs:Walk", max_steps=12).max_steps == 12


@pytest.mark.parametrize(
    "reference", ["their_envs:TheirWalk-v0", "their_envs:Walk", "their_envs:make"]
)
@pytest.mark.parametrize("limit", [3, 40])
def test_a_length_is_a_time_limit(reference: str, limit: int) -> None:
    env = make_own(find_maker(reference), {"size": 100}, limit)
    env.reset(seed=1)
    steps, truncated = 0, False
    while not truncated:
        *_, truncated, _ = env.step(0)
        steps += 1
    assert steps == limit


def test_settings_reach_the_constructor_and_render_mode_is_set() -> None:
    for reference in ("their_envs:TheirWalk-v0", "their_envs:Walk"):
        maker = find_maker(reference)
        env = make_own(maker, {"size": 9}, render_mode=drawing_mode(maker))
        assert env.unwrapped.size == 9
        env.reset(seed=0)
        assert np.asarray(env.render()).shape == (4, 4, 3)
    assert drawing_mode(find_maker("their_envs:make")) is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("CartPol-v1", r"no environment 'CartPol-v1'.*Near it there are: CartPole-v"),
        ("their_envs:Gone-v0", r"Gymnasium has no such id after importing 'their_envs'"),
        ("their_envs:Wolk", r"their_envs has no attribute 'Wolk'\. Did you mean Walk\?"),
        ("their_env:Walk", r"there is no module 'their_env'\. Install its package, or run from"),
        ("their_env:Walk-v0", r"there is no module 'their_env'"),
        ("their_envs:number", r"must be an environment's class, or a function that returns"),
    ],
)
def test_an_unknown_environment_is_refused_with_advice(reference: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_maker(reference)


@pytest.mark.parametrize(
    ("reference", "settings", "message"),
    [
        ("their_envs:Walk", {"sise": 3}, r"no setting env\.sise .*Did you mean env\.size\?"),
        ("their_envs:TheirWalk-v0", {"sise": 3}, r"no setting env\.sise"),
        ("their_envs:Walk", {"size": object()}, r"env\.size is <object"),
        ("their_envs:need", {}, r"needs the setting env\.level: --env\.level=VALUE"),
        ("their_envs:TheirLost-v0", {}, r"Gymnasium cannot load their_envs:Gone"),
    ],
)
def test_unknown_settings_are_refused(reference, settings, message) -> None:
    find_maker("their_envs:Walk")
    with pytest.raises(ConfigError, match=message):
        check_settings(reference, find_maker(reference), settings)


def test_a_factory_with_keyword_arguments_gets_all_settings() -> None:
    check_settings("their_envs:make", find_maker("their_envs:make"), {"colour": "red"})


@pytest.mark.parametrize(
    ("oddity", "message"),
    [
        ("tuple", r"Tuple is not supported.*Make a Dict of a Tuple"),
        ("nested", r"observation 'a' is a dictionary in a dictionary"),
        ("complex", r"no action head for the space Discrete\(100000\)"),
        ("broken", r"could not be made: RuntimeError: no licence"),
        ("alone", r"reset\(seed=\.\.\.\) has returned ndarray; Gymnasium's returns a pair"),
        ("shape", r"the observation is float64 \(3,\), but its space is Box"),
        ("old", r"step\(\) has returned 4 values.*--env\.python"),
        ("crash", r"cannot be played: KeyError: 'speed'"),
    ],
)
def test_violations_of_the_interface_are_found_before_training(oddity: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        described("their_envs:Odd", oddity=oddity)


def test_a_factory_must_return_an_environment() -> None:
    with pytest.raises(ConfigError, match=r"nothing has returned builtins\.dict, which is no gymn"):
        described("their_envs:nothing")


def test_the_description_has_the_environments_spaces() -> None:
    found = described("their_envs:Walk")
    assert found.observation_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    assert found.action_space == gymnasium.spaces.Discrete(2)
