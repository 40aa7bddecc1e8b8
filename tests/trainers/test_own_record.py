"""An environment registered by a package: its expert collects data, and commands find it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec

from datamodules import Store
from rate.envs import register
from rate.envs.recorded import Recorded, own_settings
from rate.errors import ConfigError
from tests import own_environment
from tests.own_environment import CorridorOptions
from trainers.api import Run, train
from trainers.cli import parse
from trainers.commands.main import main as rate
from trainers.registry import ENVIRONMENTS, find_environment, get_environment

SMALL = {
    "model.d_model": 16,
    "model.context_length": 4,
    "model.num_heads": 1,
    "training.batch_size": 4,
    "data.num_episodes": 20,
    "data.max_length": 12,
    "data.workers": 1,
    "evaluation.episodes": 2,
    "evaluation.lengths": [12, 30],
    "evaluation.every_n_steps": 0,
    "logging.tensorboard": False,
}


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that registers `tests.own_environment`, and a working directory."""
    info = tmp_path / "packages" / "corridor-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: corridor\nVersion: 1.0\n")
    points = "[rate.environments]\ncorridor = tests.own_environment:Record\n"
    (info / "entry_points.txt").write_text(points)
    monkeypatch.syspath_prepend(info.parent)
    monkeypatch.chdir(tmp_path)


def test_it_collects_trains_and_scores() -> None:
    run = train(env="corridor", model="rate", steps=2, progress=False, settings=SMALL)
    assert [row["length"] for row in run.scores if row["which"] == "last"] == [12, 30]
    assert Run.open(run.folder).environment().settings == CorridorOptions()


def test_commands_find_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"--{name}={value}" for name, value in SMALL.items() if name[:4] in ("data", "mode")]
    monkeypatch.setattr(sys, "argv", ["rate", "collect", "corridor", "--env.cue_steps=2", *words])
    rate()
    assert "20 episodes, 240 steps" in capsys.readouterr().out
    (path,) = Path("data").glob("corridor-12-20-seed0-????????")
    recorded = Store.open(path).spec.recorded
    assert own_settings(Recorded.parse(recorded)) == {"cue_steps": 2}
    env = gymnasium.make(EnvSpec.from_json(recorded), length=7)
    assert (env.unwrapped.options, env.unwrapped.max_steps) == (CorridorOptions(2), 7)


def test_invalid_settings_are_named() -> None:
    with pytest.raises(ConfigError, match="cue_steps"):
        train(env="corridor", settings={**SMALL, "env.cue_stops": 3})
    assert get_environment("corridor").spec.options == {"cue_steps": 1}


def test_an_unknown_setting_on_the_command_line_has_the_nearest_as_a_hint() -> None:
    message = r"no option --env\.cue_stops\. Did you mean --env\.cue_steps\?"
    with pytest.raises(ConfigError, match=message):
        parse("corridor", ["--env.cue_stops=3"])


def test_help_shows_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse("corridor", ["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "--env.cue_steps N At how many steps the cue is shown." in text


def test_settings_of_another_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Settings:
        cue_steps: int = 1

    monkeypatch.setattr(own_environment.Record, "options", Settings)
    message = r"own_environment\.Corridor are the class Settings; rename it CorridorOptions"
    with pytest.raises(ConfigError, match=message):
        find_environment("corridor")


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_the_environments_of_the_project_are_registered_in_gymnasium(name: str) -> None:
    record = find_environment(name)
    assert gymnasium.spec(f"RATE/{record.env.__name__}-v0").id == record.gym_id()


def test_an_id_belongs_to_one_class() -> None:
    with pytest.raises(ConfigError, match="RATE/Retrieval-v0: another environment has this id"):
        register("tests.own_environment:Retrieval")
