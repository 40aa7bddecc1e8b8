"""The recipes: every one is valid and documented, and one of each work is begun."""

from __future__ import annotations

import pytest

from rate.errors import ConfigError
from tests.pages import ROOT
from trainers.cli import parse
from trainers.commands.train import choose_environment, main
from trainers.preset_files import RECIPES, config_path

NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
SHORT = [
    *("--training.max_steps=2", "--training.batch_size=2", "--training.accelerator=cpu"),
    *("--model.context_length=6", "--training.segments=1", "--model.d_model=16"),
    *("--model.num_layers=1", "--evaluation.every_n_steps=0", "--evaluation.episodes=1"),
    *("--logging.progress=false", "--logging.tensorboard=false"),
]
FEW = ["--online.num_envs=2", "--online.begin_after=2", "--online.updates=1"]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid_and_documented(name: str) -> None:
    environment, words = choose_environment(["--config", name])
    config = parse(str(environment), words).config
    assert config.is_online
    assert config.logging.name == name
    assert config_path(name).read_text(encoding="utf-8").startswith("# ")
    assert f"`{name}`" in (ROOT / "docs" / "online.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("memory_rl_active_tmaze_20", [*FEW, "--model.num_heads=1"]),
        ("memory_rl_visual_match_60", [*FEW, "--model.num_heads=1"]),
        ("memory_systems_memory_size", []),
        ("adaptive_transformers_non_matching", ["--model.num_heads=2"]),
        ("di_engine_cartpole", [*FEW, "--loss.burn_in=2"]),
    ],
)
def test_its_first_steps_run(name: str, options: list[str], tmp_path, capsys) -> None:
    main(["--config", name, *SHORT, *options, "--logging.output", str(tmp_path)])
    assert f"-{name}-1/" in "".join(capsys.readouterr().out.split())


def test_a_recipe_that_does_not_exist_is_told() -> None:
    with pytest.raises(ConfigError, match=r"no recipe has this name.*Did you mean.*di_engine_pong"):
        config_path("di_engine_pongg")
