"""The registry of environments, and checks of runs before slow imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rate.advice import command, install
from rate.envs.retrieval import Retrieval, RetrievalOptions
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from trainers import environment, registry
from trainers.cli import parse
from trainers.config_files import config_from_dict
from trainers.registry import (
    ENVIRONMENTS,
    check_run,
    environment_of,
    find_environment,
    get_environment,
)

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_every_environment_has_serialisable_settings(name: str) -> None:
    options = find_environment(name).options()
    config = config_from_dict({"environment": name})
    assert json.loads(json.dumps(config.env)) == config.env == vars(options)
    assert hasattr(options, "privileged") == (name not in ("tmaze", "mujoco", "atari"))
    assert registry.length_name(name)


def test_an_entry_has_its_registered_name_and_all_settings() -> None:
    spec = get_environment("retrieval", {"privileged": True}).spec
    assert (spec.name, spec.options) == ("retrieval", {"privileged": True})
    assert set(spec.observation_space.spaces) == {"vector", "privileged"}
    assert get_environment("retrieval").spec.options == {"privileged": False}


def test_a_saved_specification_finds_its_environment_and_keeps_its_target() -> None:
    saved = get_environment("retrieval", {"privileged": True}).spec
    changed = EnvironmentSpec.from_dict({**saved.to_dict(), "target_return": 0.25})
    entry = environment_of(changed)
    assert entry.spec == changed
    env = entry.make_vector(2, 5)
    assert env.single_observation_space == changed.observation_space
    without = EnvironmentSpec.from_dict({**changed.to_dict(), "options": {}})
    with pytest.raises(ConfigError, match="another environment than this model was trained for"):
        environment_of(without)


def test_settings_of_another_version_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"retrieval does not have these settings.*colour"):
        get_environment("retrieval", {"colour": "red"})


def test_a_vector_is_the_environment_of_its_settings() -> None:
    env = get_environment("retrieval", {"privileged": True}).make_vector(3, 7)
    alone = Retrieval(RetrievalOptions(privileged=True), 7)
    seen, _ = env.reset(seed=[4, 5, 6])
    expected, _ = alone.reset(seed=5)
    for key, value in expected.items():
        np.testing.assert_array_equal(seen[key][1], value)


@pytest.mark.parametrize("name", [name for name in ENVIRONMENTS if find_environment(name).needs])
def test_a_missing_package_is_named_with_its_installation(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = find_environment(name)
    needs, extra = record.needs, record.extra
    looked_up: list[str] = []

    def find(package: str) -> Any:
        looked_up.append(package)
        return None if package == needs[-1] else object()

    monkeypatch.setattr(environment, "find_spec", find)
    with pytest.raises(ConfigError) as caught:
        get_environment(name)
    assert tuple(looked_up) == needs
    message = str(caught.value)
    assert message.startswith(f"{name} needs {needs[-1]}, which this Python does not have.")
    assert message.endswith(f"{install(extra)} ({command('doctor')} tells what runs here)")
    monkeypatch.chdir(ROOT)
    assert f"[{extra}]" in install(extra) or f"EXTRAS={extra}" in install(extra)


def test_extras_are_those_of_the_project() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in (find_environment(name).extra for name in ENVIRONMENTS):
        assert not extra or f"\n{extra} = [" in text


def test_a_missing_package_ends_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "find_spec", lambda package: None)
    with pytest.raises(ConfigError, match="minigrid needs minigrid, which this Python"):
        parse("minigrid", [])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluation": {"lengths": [90, 2]}}, r"evaluation\.lengths has 2: Retrieval length 2"),
        ({"evaluation": {"selection_lengths": [0]}}, r"evaluation\.selection_lengths has 0"),
        ({"data": {"max_length": 89}}, r"data\.max_length=89 is shorter than a training window"),
        ({"model": {"context_length": 29}}, None),
    ],
)
def test_check_run(settings: dict[str, Any], message: str | None) -> None:
    values = {"environment": "retrieval", "data": {"max_length": 90}, **settings}
    config = config_from_dict(values)  # K * N is 90
    if message is None:
        check_run(config)
        return
    with pytest.raises(ConfigError, match=message):
        check_run(config)


def test_a_users_data_set_is_not_checked_against_max_length() -> None:
    values = {"environment": "retrieval", "data": {"max_length": 10, "store": "mine"}}
    check_run(config_from_dict(values))


def test_lengths_are_in_the_units_of_the_environment() -> None:
    pytest.importorskip("minigrid")
    config = {"environment": "minigrid", "evaluation": {"lengths": [8], "selection_lengths": []}}
    with pytest.raises(ConfigError, match=r"evaluation\.lengths has 8.*odd"):
        check_run(config_from_dict(config))
    # A maze of 31 cells has a time limit of 124 steps, which fills a window of 90.
    config |= {"evaluation": {"lengths": [9], "selection_lengths": []}, "data": {"max_length": 31}}
    check_run(config_from_dict(config))
    with pytest.raises(ConfigError, match=r"data\.max_length=31 is shorter than a training window"):
        check_run(config_from_dict({**config, "env": {"time_out": 80}}))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("retrieval", "--evaluation.lengths 9 2", "evaluation.lengths has 2"),
        ("retrieval", "--data.max_length 20", "is shorter than a training window"),
        ("retrieval", "--env.priviledged true", "Did you mean --env.privileged?"),
        ("minigrid", "--env.observation pixel", "env.observation is 'pixel'"),
    ],
)
def test_a_wrong_command_fails_before_slow_imports(name: str, options: str, message: str) -> None:
    heavy = {"torch", "lightning", "matplotlib", "mujoco", "dm_control", "vizdoom", "minigrid"}
    program = (
        f"import runpy, sys\ntry:\n    runpy.run_path('scripts/train_{name}.py', "
        f"run_name='__main__')\nfinally:\n    print(sorted({heavy!r} & set(sys.modules)))"
    )
    command = [sys.executable, "-c", program, *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "[]\n")
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
