"""Presets are adapted to a task."""

from __future__ import annotations

import pytest

from rate.errors import ConfigError
from trainers.cli import parse
from trainers.preset_files import load_preset, preset_names
from trainers.tasks import preset_for_task

pytest.importorskip("mazelib", reason="POPGym is not installed (extra popgym)")

PRESET = {
    "name": "rate",
    "model": {"context_length": 20, "num_layers": 2},
    "training": {"segments": 9},
    "data": {"max_length": 1024},
    "tasks": {
        "Repeat*": {"model": {"num_layers": 3}},
        "*Easy": {"model": {"num_heads": 8}, "optimizer": {"learning_rate": 0.1}},
    },
}


def test_matching_settings_are_applied_in_order() -> None:
    preset = preset_for_task("popgym", PRESET, "RepeatFirstEasy")
    assert preset["model"] == {"context_length": 20, "num_layers": 3, "num_heads": 8}
    assert preset["optimizer"] == {"learning_rate": 0.1}
    assert preset["env"] == {"task": "RepeatFirstEasy"}
    assert preset["logging"] == {"name": "RepeatFirstEasy-rate"}
    assert "tasks" not in preset
    assert PRESET["model"]["num_layers"] == 2


def test_a_window_is_no_longer_than_an_episode() -> None:
    assert preset_for_task("popgym", PRESET, "RepeatFirstHard")["training"]["segments"] == 9
    easy = preset_for_task("popgym", PRESET, "RepeatFirstEasy")  # 51 steps
    assert easy["training"]["segments"] == 3
    short = preset_for_task("popgym", PRESET, "MineSweeperEasy")  # 14 steps
    assert short["model"]["context_length"] == 14
    assert short["training"]["segments"] == 1


def test_a_preset_without_tasks_is_not_changed() -> None:
    assert preset_for_task("tmaze", load_preset("tmaze", "rate"), None)["name"] == "rate"


def test_the_command_line_chooses_the_task() -> None:
    config = parse("popgym", ["--env", "AutoencodeHard", "--model.context_length=50"]).config
    assert config.env["task"] == "AutoencodeHard"
    assert config.model.context_length == 50
    assert config.run_name == "popgym-AutoencodeHard-rate-1"
    with pytest.raises(ConfigError, match="Did you mean AutoencodeHard"):
        parse("popgym", ["--env.task", "AutoencodeHart"])


@pytest.mark.parametrize("name", preset_names("popgym"))
def test_every_preset_is_valid_for_every_task(name: str) -> None:
    from rate.envs.popgym_tasks import TASKS

    for task in list(TASKS)[:: 1 if name == "rate" else 5]:
        config = parse("popgym", [f"--model_mode={name}", f"--env={task}"]).config
        assert config.window - config.model.context_length < TASKS[task].steps
