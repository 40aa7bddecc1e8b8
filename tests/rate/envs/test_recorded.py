"""The environment that a data set was recorded in."""

from __future__ import annotations

import inspect
import json
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec, load_env_creator
from gymnasium.wrappers import ClipAction, NormalizeObservation, TimeLimit

import rate.envs  # noqa: F401 (registers the environments)
from rate.envs.minigrid_memory import MinigridMemoryOptions
from rate.envs.mujoco import TASKS, VERSIONS, Mujoco, MujocoOptions, mujoco_spec
from rate.envs.mujoco_arguments import MODELS, constructor_arguments, plain, usual_arguments
from rate.envs.recorded import (
    Recorded,
    about,
    differences,
    mujoco_recorded,
    mujoco_settings,
    own_recorded,
    own_settings,
)
from rate.errors import ConfigError

needs_mujoco = pytest.mark.skipif(find_spec("mujoco") is None, reason="MuJoCo is not installed")
EVERY = [(task, version) for task in TASKS for version in VERSIONS]


def env_spec(id="Hopper-v5", **values):
    return json.dumps({"id": id, "kwargs": {}, "additional_wrappers": [], **values})


def made_of(text, **changes):
    """Returns the specification of rollouts for data with this `EnvSpec`, with changed settings."""
    settings = mujoco_settings(Recorded.parse(text)) | changes
    return replace(mujoco_spec(MujocoOptions(**settings)), options=settings, recorded=text)


@needs_mujoco
@pytest.mark.parametrize(("task", "version"), EVERY)
def test_the_table_has_the_constructors_arguments_and_defaults(task, version):
    found = gymnasium.spec(f"{TASKS[task].gym_name}-{version}")
    parameters = inspect.signature(load_env_creator(found.entry_point).__init__).parameters
    theirs = {
        name: plain(parameter.default)
        for name, parameter in parameters.items()
        if parameter.default is not parameter.empty and name != "default_camera_config"
    }
    assert usual_arguments(task, version) == theirs
    assets = Path(inspect.getfile(load_env_creator(found.entry_point))).parent / "assets"
    for model in MODELS[task]:
        assert "<mujoco" in (assets / model).read_text(encoding="utf-8")


UNUSUAL = {
    "halfcheetah": {"ctrl_cost_weight": 0.7, "exclude_current_positions_from_observation": False},
    "hopper": {
        "healthy_reward": 3.0,
        "healthy_z_range": (0.9, float("inf")),
        "healthy_angle_range": (-0.05, 0.05),
        "reset_noise_scale": 0.02,
        "exclude_current_positions_from_observation": False,
    },
    "walker2d": {"terminate_when_unhealthy": False, "forward_reward_weight": 2},
}
SINCE_V5 = {"walker2d": {"xml_file": "walker2d.xml", "frame_skip": 3}}


@needs_mujoco
@pytest.mark.parametrize(("task", "version"), EVERY)
def test_rollouts_use_the_environment_of_the_data(task, version, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # Gymnasium's leaves a file
    arguments = UNUSUAL[task] | (SINCE_V5.get(task, {}) if version == "v5" else {})
    theirs = gymnasium.make(
        f"{TASKS[task].gym_name}-{version}",
        max_episode_steps=40,
        disable_env_checker=True,
        **arguments,
    )
    spec = made_of(theirs.spec.to_json())
    assert differences(spec) == []
    assert spec.observation_space.shape == theirs.observation_space.shape
    options = MujocoOptions(**spec.options)
    assert mujoco_settings(Recorded.parse(mujoco_recorded(options))) == spec.options
    ours, rng = Mujoco(options), np.random.default_rng(0)
    mine, other = ours.reset(seed=3)[0], theirs.reset(seed=3)[0]
    for _ in range(40):
        np.testing.assert_array_equal(mine, other.astype(np.float32))
        action = rng.uniform(-1, 1, TASKS[task].actions).astype(np.float32)
        mine, reward, *ends, _ = ours.step(action)
        other, earned, terminated, truncated, _ = theirs.step(action)
        assert (reward, *ends[:1]) == (pytest.approx(earned), terminated)
        if terminated:
            break
        assert ends[1] == truncated
    else:
        assert ends[1]
    theirs.close()


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        (env_spec("HalfCheetah-v4"), {"task": "halfcheetah", "version": "v4"}),
        (env_spec("Walker2d-v3"), {"task": "walker2d", "version": "v4"}),
        (env_spec("Hopper-v6"), {"task": "hopper", "version": "v5"}),
        (env_spec(kwargs={"ctrl_cost_weight": 1e-3}), {"task": "hopper", "version": "v5"}),
        (env_spec(max_episode_steps=1000), {"task": "hopper", "version": "v5"}),
        (
            env_spec(max_episode_steps=200),
            {"task": "hopper", "version": "v5", "max_episode_steps": 200},
        ),
        (
            env_spec(kwargs={"healthy_z_range": [0.1, float("inf")], "render_mode": "human"}),
            {"task": "hopper", "version": "v5", "arguments": {"healthy_z_range": [0.1, "inf"]}},
        ),
    ],
)
def test_settings_follow_from_the_recorded_environment(text, settings):
    assert mujoco_settings(Recorded.parse(text)) == settings
    json.dumps(settings, allow_nan=False)


HOSTILE = {
    "xml_file": "/etc/passwd",
    "frame_skip": 10**9,
    "healthy_reward": float("nan"),
    "healthy_z_range": [0, 1, 2],
    "healthy_angle_range": ["-inf", "nan"],
    "ctrl_cost_weight": True,
    "terminate_when_unhealthy": "no",
    "forward_reward_weight": {"a": float("inf")},
    "__class__": "x\x1b[31m",
    "entry_point": "os:system",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_only_plain_values_of_known_arguments_are_used(name):
    text = env_spec(kwargs={name: HOSTILE[name], "reset_noise_scale": 0.1})
    spec = made_of(text)
    assert spec.options["arguments"] == {"reset_noise_scale": 0.1}
    (note,) = differences(spec)
    assert note.startswith(f"the data were recorded with {name}=")
    assert note.isprintable()
    with pytest.raises(ConfigError, match=f"env.arguments {name}"):
        MujocoOptions("hopper", "v5", {name: plain(HOSTILE[name])})


def test_a_long_value_is_abbreviated():
    spec = made_of(env_spec(kwargs={"xml_file": "x" * 10_000}))
    assert max(map(len, differences(spec))) < 300


DIFFERENT = {
    "an old version": (
        env_spec("Hopper-v2"),
        {},
        "recorded in Hopper-v2, but rollouts are made in Hopper-v4 (v2 and v3 need mujoco-py",
    ),
    "another version": (
        env_spec("Hopper-v4"),
        {"version": "v5"},
        "recorded in Hopper-v4, but rollouts are made in Hopper-v5: scores are not comparable",
    ),
    "another argument": (
        env_spec(kwargs={"healthy_reward": 2}),
        {"arguments": {}},
        "recorded with healthy_reward=2, but rollouts have healthy_reward=1.0",
    ),
    "an argument of one's own": (
        env_spec(),
        {"arguments": {"healthy_reward": 2}},
        "recorded with healthy_reward=1.0, but rollouts have healthy_reward=2",
    ),
    "an argument that v4 has not": (
        env_spec(kwargs={"frame_skip": 8}),
        {"version": "v4", "arguments": {}},
        "recorded with frame_skip=8, but rollouts do not have it",
    ),
    "a time limit": (
        env_spec(max_episode_steps=300),
        {"max_episode_steps": None},
        "episodes end after 300 steps, but those of rollouts after 1000",
    ),
    "a wrapper": (
        env_spec(additional_wrappers=[{"name": "NormalizeReward", "entry_point": "x:Y"}]),
        {},
        "the data went through NormalizeReward, which rollouts do not",
    ),
    "another maker": (
        env_spec(entry_point="mine:Hopper"),
        {},
        "Hopper-v5 was made by mine:Hopper, but rollouts are made in Gymnasium's own",
    ),
    "another task": (
        env_spec("Walker2d-v5"),
        {"task": "hopper"},
        "recorded in Walker2d-v5, but rollouts are made in Hopper-v5",
    ),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_difference_has_a_message(name):
    text, changes, words = DIFFERENT[name]
    notes = differences(made_of(text, **changes))
    assert any(words in sentence for sentence in notes), notes
    spec = made_of(text, **changes)
    assert differences(type(spec).from_dict(json.loads(json.dumps(spec.to_dict())))) == notes


@needs_mujoco
def test_wrappers_of_gymnasiums_json():
    env = gymnasium.make("Hopper-v5", disable_env_checker=True)
    plainly = made_of(TimeLimit(ClipAction(env), 50).spec.to_json())
    assert differences(plainly) == []
    assert plainly.options["max_episode_steps"] == 50
    (note,) = differences(made_of(NormalizeObservation(env).spec.to_json()))
    assert "went through NormalizeObservation" in note


@pytest.mark.parametrize(
    "text", ["", "null", "5", "[]", "{}", '{"id": null, "kwargs": 5}', "{", "[" * 100_000]
)
def test_other_text_is_not_parsed(text):
    assert Recorded.parse(text) is None
    assert differences(replace(mujoco_spec(), options={"task": "hopper"}, recorded=text)) == []


@pytest.mark.parametrize(
    "options", [{"task": ["hopper"]}, {"task": "hopper", "no": 1}, {"task": "hopper", "version": 3}]
)
def test_invalid_settings_have_no_messages(options):
    spec = replace(mujoco_spec(), options=options, recorded=env_spec("Ant-v5"))
    assert differences(spec) == about(spec) == []


def test_messages_of_a_conversion():
    assert about(made_of(env_spec())) == []
    (note,) = about(made_of(env_spec("Hopper-v4", kwargs={"healthy_reward": 2})))
    assert note == (
        "the data were recorded in Hopper-v4 with healthy_reward=2, and rollouts are made in it"
    )
    (note,) = about(replace(made_of(env_spec("Hopper-v4")), recorded=""))
    assert note.endswith("by their name Hopper-v4 is assumed")
    (note,) = about(replace(made_of(env_spec()), options={}))
    assert "their spaces are not its" in note


def test_environments_of_this_package():
    options = asdict(MinigridMemoryOptions(random_length=False))
    text = own_recorded("RATE/MinigridMemory-v0", options)
    assert EnvSpec.from_json(text).kwargs.items() >= options.items()
    recorded = Recorded.parse(text)
    assert recorded.is_own
    assert own_settings(recorded) == options
    spec = replace(mujoco_spec(), options=options, recorded=text)
    assert differences(spec) == []
    other = replace(spec, options={**options, "random_length": True, "privileged": True})
    assert differences(other) == [
        "the data were recorded with env.random_length=False, but rollouts are made with "
        "env.random_length=True"
    ]


def test_infinities_reach_the_constructor():
    assert constructor_arguments({"healthy_z_range": [0.7, "inf"], "xml_file": "hopper.xml"}) == {
        "healthy_z_range": (0.7, float("inf")),
        "xml_file": "hopper.xml",
    }
