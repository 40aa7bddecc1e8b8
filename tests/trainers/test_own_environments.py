"""Environments of users: training, scores, resumption and videos; and data without one."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.episodes import DatasetError, Episode
from datamodules.writing import write_store
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError, UserError
from rate.weights import load_model
from tests.other_python import make_other_python
from tests.trainers.conftest import WALK, MakeConfig
from trainers import registry, trust
from trainers.commands.evaluate import find_candidates, prepare
from trainers.commands.scoring import score
from trainers.commands.video import play
from trainers.config import RunConfig
from trainers.config_files import load_config_file
from trainers.registry import check_run, environment_of, environment_of_run, get_environment
from trainers.train import train
from trainers.working_folder import with_own_paths

RECORD = """\
    from dataclasses import dataclass
    from rate.envs.spec import EnvironmentSpec
    from their_envs import Walk
    from trainers.environment import Environment


    @dataclass(frozen=True)
    class ShortWalkOptions:
        size: int = 4


    class ShortWalk(Walk):
        def __init__(self, options, length=20):
            super().__init__(options.size, max_steps=length)


    class Forward:
        def reset(self, env, seed):
            pass

        def act(self):
            return 1


    class Record(Environment):
        name = "theirs"
        options = ShortWalkOptions
        env = ShortWalk

        @classmethod
        def make_spec(cls, settings):
            walk = Walk(settings.size)
            return EnvironmentSpec("walk", walk.observation_space, walk.action_space, 1.0)

        def expert(self, noise):
            return Forward()
"""


def test_a_users_environment_trains_scores_resumes_and_is_recorded(
    walk_config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = train(walk_config)
    assert result.folder.name == "their_envs-Walk-rate-1"
    assert {row["length"] for row in result.rows} == {6}
    assert all(row["steps"] <= 6 for row in result.rows)
    saved = load_model(result.folder / "checkpoints" / "last")
    assert (saved.spec.name, saved.spec.options) == (WALK, {"size": 4})
    assert saved.spec.target_return == 4.0  # the best of the data

    again = load_config_file(result.folder / "config.yaml")
    assert again == walk_config
    longer = train(replace(again, training=replace(again.training, max_steps=10)), result.folder)
    assert longer.steps == 10

    candidate = prepare(find_candidates(result.folder)[0], {"lengths": [3], "episodes": 2}, None)
    (row,) = score(candidate, torch.device("cpu"))
    assert (row["environment"], row["length"]) == (WALK, 3)
    film = play(candidate, 5, 1, None)
    assert film.moments[0].picture is not None
    assert film.moments[0].picture.shape == (4, 4, 3)  # by the user's render()


def test_a_run_without_its_module_names_it(walk_config: RunConfig, tmp_path: Path) -> None:
    folder = train(walk_config).folder
    program = (
        "import sys; from pathlib import Path\n"
        "from trainers.commands.evaluate import main\n"
        "main([sys.argv[1], '--episodes', '2'])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "there is no module 'their_envs'. Install its package, or run from" in done.stderr
    done = subprocess.run(  # found in the folder that holds the module
        command,
        cwd=tmp_path / "theirs",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_environment_that_has_changed_is_refused(walks: Path, user_module: Path) -> None:
    spec = get_environment(WALK).spec
    changed = spec.to_dict()
    changed["observation_space"]["shape"] = [3]
    trust.remember(WALK, {})
    with pytest.raises(
        ConfigError, match=r"has shape \(2,\) instead of \(3,\)\. Bring that version"
    ):
        environment_of(EnvironmentSpec.from_dict(changed))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"env": {"sise": 3}}, r"no setting env\.sise"),
        ({"environment": "their_envs:Gone"}, "no attribute 'Gone'"),
        ({"data": {"store": None}}, r"has no expert that makes data here; name those to train on"),
        ({"evaluation": {"lengths": [0]}}, r"evaluation\.lengths has 0"),
        ({"evaluation": {"lengths": [None]}}, r"lengths has null: .*no time limit of its own"),
    ],
)
def test_invalid_settings_are_refused_before_data_are_loaded(
    walk_config: RunConfig, changes: dict[str, Any], message: str
) -> None:
    for name, change in changes.items():
        if name in ("data", "evaluation"):
            change = replace(getattr(walk_config, name), **change)
        walk_config = replace(walk_config, **{name: change})
    with pytest.raises(ConfigError, match=message):
        check_run(walk_config)


def test_its_own_length_is_its_time_limit(walk_config: RunConfig) -> None:
    evaluation = replace(walk_config.evaluation, lengths=[None], selection_lengths=[])
    walk_config = replace(walk_config, environment="their_envs:TheirWalk-v0", evaluation=evaluation)
    check_run(walk_config)
    assert {row["length"] for row in train(walk_config).rows} == {25}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CartPole-v1", r"the data have shape \(2,\) instead of \(4,\)"),
        ("Pendulum-v1", r"the data have shape \(2,\) instead of \(3,\)"),
    ],
)
def test_data_of_other_spaces_are_refused_with_the_difference(
    walk_config: RunConfig, name: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        train(replace(walk_config, environment=name, env={}))


def test_an_entry_point_names_an_environment(
    user_module: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = user_module / "their_envs-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-envs\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rate.environments]\nwalk = their_envs:Walk\n")
    environment = get_environment("walk", {"size": 3})
    assert environment.spec.name == "walk"
    assert environment.make_env(2) is not None
    with pytest.raises(ConfigError, match="did you mean 'walk'"):
        registry.find_environment("wlak")


def test_a_package_may_register_a_record_with_an_expert(
    user_module: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (user_module / "their_record.py").write_text(textwrap.dedent(RECORD))
    info = user_module / "their_record-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-record\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rate.environments]\ntheirs = their_record:Record\n")
    environment = get_environment("theirs", {"size": 3})
    assert (environment.spec.name, environment.spec.options) == ("theirs", {"size": 3})
    with pytest.raises(ConfigError, match="does not have these settings"):
        get_environment("theirs", {"sise": 3})
    episode = environment.make_collector("expert", 9).collect(1)
    assert (len(episode), episode.terminated) == (3, True)


def test_random_actions_are_scored_for_comparison(
    walks: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = get_environment(WALK, {"size": 2})
    again = pickle.loads(pickle.dumps(environment))
    assert (again.spec.options, again.name, again.maker) == ({"size": 2}, WALK, environment.maker)
    assert len(again.make_collector("random", 9).collect(3)) <= 9
    with pytest.raises(ConfigError, match="has no expert that plays"):
        again.make_collector("expert", 9)


def test_data_without_an_environment_train_without_rollouts(
    walk_config: RunConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    logging = replace(walk_config.logging, progress=True)
    walk_config = replace(walk_config, environment="none", env={}, logging=logging)
    result = train(walk_config)
    assert (result.folder.name, result.rows, result.best_step) == ("walks-rate-1", [], None)
    assert "is not scored by rollouts" in capsys.readouterr().err
    report = json.loads((result.folder / "evaluation.json").read_text())
    assert (report["rows"], report["trained_steps"]) == ([], 8)
    saved = load_model(result.folder / "checkpoints" / "last")
    with pytest.raises(ConfigError, match="trained on data alone"):
        environment_of(saved.spec)
    assert load_config_file(result.folder / "config.yaml") == walk_config
    with pytest.raises(ConfigError, match="neither an environment nor data"):
        environment_of_run(replace(walk_config, data=replace(walk_config.data, store=None)))


def test_an_environment_under_another_python_trains_and_scores_from_its_run(
    make_config: MakeConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other").mkdir()
    make_other_python(tmp_path / "other")
    monkeypatch.chdir(tmp_path)
    for oddity, message in (("nested", "dictionaries of them"), ("made", "ValueError: no licence")):
        with pytest.raises(UserError, match=message):
            get_environment("Count-v0", {"python": "other/python", "misdeed": oddity})
    options = {"python": "other/python", "start": 1}
    spec = get_environment("Count-v0", options).spec

    def episode(number: int) -> Episode:
        seen = np.full((4, 9), number, dtype=np.uint8)
        actions = np.arange(4) % 4
        return Episode(seen, actions, actions + np.float32(0.25), False, True, number)

    write_store(
        map(episode, range(12)),
        tmp_path / "store",
        replace(spec, target_return=7.0),
        {"source": "x"},
    )
    changes = {"evaluation__lengths": [None], "evaluation__selection_lengths": [2]}
    config = make_config(data__store=str(tmp_path / "store"), training__segments=1, **changes)
    config = replace(config, environment="Count-v0", env=options)
    check_run(config)
    result = train(config)
    assert {row["length"] for row in result.rows} == {5}  # the limit of its registration
    assert all(0 < row["steps"] <= 5 for row in result.rows)
    saved = load_model(result.folder / "checkpoints" / "last")
    assert saved.spec.options == {"python": str(tmp_path / "other/python"), "start": 1}
    monkeypatch.chdir("/")  # its full path is kept
    again, _ = with_own_paths(load_config_file(result.folder / "config.yaml"), result.folder)
    assert again.env["python"] == str(tmp_path / "other/python")
    longer = replace(again, training=replace(again.training, max_steps=10))
    assert train(longer, result.folder).steps == 10
    candidate = find_candidates(result.folder)[0]
    film = play(candidate, 5, 1, None)
    assert film.moments[0].picture is not None
    assert film.steps <= 5
    with pytest.raises(ConfigError, match="is played by models alone"):
        environment_of(saved.spec).make_collector("random", 5)


def test_a_model_without_an_environment_plays_in_a_given_one(walk_config: RunConfig) -> None:
    folder = train(replace(walk_config, environment="none", env={})).folder
    candidate = find_candidates(folder)[0].playing_in(WALK, {"size": 3})
    (row,) = score(prepare(candidate, {"lengths": [4], "episodes": 2}, None), torch.device("cpu"))
    assert (row["environment"], row["length"]) == (WALK, 4)
    other = find_candidates(folder)[0].playing_in("CartPole-v1", {})
    with pytest.raises(ConfigError, match="another environment than this model was trained for"):
        prepare(other, {}, None)
