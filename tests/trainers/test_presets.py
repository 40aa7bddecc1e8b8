"""Every preset is valid and documented, and can be built, trained and evaluated."""

from __future__ import annotations

from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from rate.architecture import BACKBONES
from rate.envs.tmaze import TMAZE_SPEC
from rate.model import SequenceModel
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.config_files import config_from_dict, load_config_file, section_types
from trainers.preset_files import (
    ANY,
    EVERYWHERE,
    PRESETS,
    PUBLISHED,
    has_own_presets,
    load_preset,
    preset_names,
    preset_path,
)
from trainers.registry import ENVIRONMENTS, find_environment, get_environment
from trainers.train import train

NAMES = [name for name in preset_names("tmaze") if not name.endswith(PUBLISHED)]
SPANS = {"adaptive_span", "all_attention"}
CACHED = {"gtrxl", "rezero", "universal", "integrated", *SPANS}  # variants of TrXL
REMEMBERING = {
    "rate",
    "rate_bistable",
    "rate_binary",
    "rmt",
    "armt",
    "memory_caching",
    "public_rate",
}
INTERLEAVED = {"dlstm", "dgru", "dmamba"}
WINDOWS = {"dt", "dt_relative", "transformer"}
NAMED = [name for name in ENVIRONMENTS if has_own_presets(name)]
PUBLISHED_AS = {"mujoco", "atari"}  # whose preset `rate` is the published one
TINY = [
    *("--training.max_steps=2", "--training.batch_size=4", "--data.num_episodes=40"),
    *("--evaluation.lengths=9,40", "--evaluation.selection_lengths=9", "--evaluation.episodes=2"),
    *("--evaluation.every_n_steps=2", "--logging.progress=false", "--logging.tensorboard=false"),
]


@pytest.fixture(scope="module")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the data root that all presets share, with episodes of at most 90 steps."""
    return tmp_path_factory.mktemp("data")


def config_of(name: str, *options: str) -> RunConfig:
    return parse("tmaze", [f"--model_mode={name}", *options]).config


def test_there_is_a_preset_for_every_model_of_the_family() -> None:
    known = {"dtxl", "trxl"} | REMEMBERING | WINDOWS | CACHED | INTERLEAVED
    assert set(NAMES) == {*known, *BACKBONES.own_names()[2:]}


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_has_a_description(name: str) -> None:
    path = preset_path("tmaze", name)
    first_line = path.read_text(encoding="utf-8").splitlines()[0]
    assert first_line.startswith("# ")
    is_of_all = path.parent.name == EVERYWHERE
    assert is_of_all or "T-Maze" in first_line or "RATE" in first_line
    preset = load_preset("tmaze", name)
    assert preset["name"] == name
    assert set(preset) <= {"name", *section_types({})}


FOLDERS = sorted(path.name for path in PRESETS.glob("*/") if path.name not in (ANY, EVERYWHERE))
EVERY = [(folder, name) for folder in FOLDERS for name in preset_names(folder)]


def test_presets_are_laid_over_the_base_of_their_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "base": "model: {context_length: 7, num_memory_tokens: 3}\ntraining: {segments: 1}\n",
        "rate": "name: rate\nmodel: {context_length: 5}\n",
        "dt": "name: dt\nmodel: {backbone: window_transformer}\n",
        "rmt": "name: rmt\nlike: rate\nmodel: {num_memory_tokens: 4}\n",
        "rate_published": "name: rate_published\ntraining: {segments: 3}\n",
    }
    for name, text in files.items():
        (tmp_path / "tmaze").mkdir(exist_ok=True)
        (tmp_path / "tmaze" / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("trainers.preset_files.PRESETS", tmp_path)
    assert preset_names("tmaze") == ["dt", "rate", "rate_published", "rmt"]
    rate = load_preset("tmaze", "rate")
    assert rate["training"] == {"segments": 1}
    assert (rate["model"]["context_length"], rate["model"]["num_memory_tokens"]) == (5, 3)
    rmt = load_preset("tmaze", "rmt")["model"]
    assert (rmt["context_length"], rmt["num_memory_tokens"]) == (5, 4)
    dt = load_preset("tmaze", "dt")["model"]  # a window has no memory tokens
    assert dt == {"context_length": 7, "backbone": "window_transformer"}
    assert load_preset("tmaze", "rate_published") == {
        "name": "rate_published",
        "training": {"segments": 3},
    }


def test_a_backbone_without_a_preset_takes_the_settings_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "tmaze/rate": "name: rate\nmodel: {d_model: 8, num_memory_tokens: 3}\n",
        "mujoco/rate": "name: rate\nmodel: {d_model: 512}\n",
        "mujoco/rate_quick": "name: rate_quick\nmodel: {d_model: 32}\n",
        "mujoco/gru": "name: gru\nmodel: {backbone: gru, d_model: 4}\n",
        f"{EVERYWHERE}/lstm": "name: lstm\nlike: rate\nmodel: {backbone: lstm}\n",
        f"{EVERYWHERE}/gru": "name: gru\nlike: rate\nmodel: {backbone: gru}\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr("trainers.preset_files.PRESETS", tmp_path)
    assert preset_names("tmaze") == ["gru", "lstm", "rate"]
    lstm = {name: load_preset(name, "lstm")["model"] for name in ("tmaze", "mujoco")}
    assert lstm["tmaze"] == {"d_model": 8, "backbone": "lstm"}
    assert lstm["mujoco"] == {"d_model": 32, "backbone": "lstm"}, "the preset for a CPU"
    assert load_preset("mujoco", "gru")["model"] == {"d_model": 4, "backbone": "gru"}, "its own"


@pytest.mark.parametrize(("environment", "name"), EVERY, ids=["-".join(one) for one in EVERY])
def test_a_preset_of_any_environment_can_be_used(environment: str, name: str) -> None:
    """It has a description, its data fill its windows, and its model accepts its observations."""
    if any(find_spec(package) is None for package in find_environment(environment).needs):
        pytest.skip(f"what {environment} needs is not installed here")
    path = preset_path(environment, name)
    assert path.read_text(encoding="utf-8").startswith("# ")
    random = ["--data.random_policy=true"] if environment == "atari" else []
    config = parse(environment, [f"--model_mode={name}", *random]).config
    assert config.name == name
    assert config_from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config
    spec = get_environment(environment, config.env, frame_stack=config.data.frame_stack).spec
    SequenceModel(config.model, spec.observation_space, spec.action_space)


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_every_model_of_the_family_has_a_preset_everywhere(environment: str) -> None:
    assert set(NAMES) <= set(preset_names(environment))


@pytest.mark.parametrize("environment", [name for name in NAMED if name not in PUBLISHED_AS])
def test_the_settings_of_the_public_code_are_a_preset(environment: str) -> None:
    preset = load_preset(environment, f"rate{PUBLISHED}")
    assert preset["model"]["block"] == "trxl"
    assert preset["training"]["segments"] == 3
    assert preset["training"]["accelerator"] == "auto"


@pytest.mark.parametrize(
    ("environment", "name", "window", "parts"),
    [
        ("tmaze", "rate", (50, 3), (10, 64, 15, 0, "cross_attention", 128, 3e-4)),
        ("tmaze", "rmt", (50, 3), (8, 64, 10, 0, "none", 64, 1e-4)),
        ("tmaze", "trxl", (50, 3), (8, 64, 0, 450, "none", 64, 1e-4)),
        ("vizdoom", "rate", (50, 3), (6, 64, 15, 100, "cross_attention", 128, 3e-4)),
        ("minigrid", "rate", (30, 3), (6, 128, 20, 250, "none", 128, 3e-4)),
        ("memory_maze", "rate", (30, 3), (6, 64, 15, 360, "cross_attention", 64, 3e-4)),
        ("retrieval", "rate", (30, 3), (6, 64, 5, 0, "cross_attention", 64, 3e-4)),
    ],
)
def test_published_presets_have_the_published_numbers(
    environment: str, name: str, window: tuple[int, int], parts: tuple[object, ...]
) -> None:
    preset = load_preset(environment, f"{name}{PUBLISHED}")
    config = config_from_dict({**preset, "environment": environment})
    model, training = config.model, config.training
    assert (model.context_length, training.segments) == window
    assert parts == (
        *(model.num_layers, model.d_model, model.num_memory_tokens, model.cache_length),
        *(model.valve, training.batch_size, config.optimizer.learning_rate),
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_builds_its_model(name: str) -> None:
    config = config_of(name).model
    model = SequenceModel(config, TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space)
    assert sum(parameter.numel() for parameter in model.parameters()) > 10_000
    settings = {"num_memory_tokens": 0, "cache_length": 0, "valve": "none", **asdict(config)}
    assert bool(settings["num_memory_tokens"]) == (name in REMEMBERING)
    assert bool(settings["cache_length"]) == (name in {"trxl", "dtxl", *CACHED})
    assert (settings["valve"] != "none") == (
        name in {"rate", "rate_bistable", "rate_binary", "memory_caching"}
    )
    assert (config.backbone == "window_transformer") == (name in WINDOWS)
    assert (config.backbone == name) == (name in BACKBONES.own_names())


def test_a_preset_without_a_cache_is_fitted_without_one() -> None:
    assert parse("bits", ["--model_mode=rate"]).config.model.cache_length > 0
    assert parse("bits", ["--model_mode=rate_bistable"]).config.model.cache_length == 0


def test_presets_differ_in_the_model_only() -> None:
    """Window, batch, number of updates and optimiser are equal in all compared presets."""
    configs = [config_of(name) for name in NAMES]
    for config in configs:
        assert config.model.context_length * config.training.segments == 90
    for part in ("optimizer", "loss", "data"):
        assert all(getattr(c, part) == getattr(configs[0], part) for c in configs)
    assert len({(c.training.batch_size, c.training.max_steps) for c in configs}) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_configuration_is_read_as_written(name: str, tmp_path: Path) -> None:
    config = config_of(name, "--logging.name=my name", "--data.max_length=120", "--text=#: 'x")
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config.to_dict()), encoding="utf-8")
    assert config_from_dict(config.to_dict()) == config
    assert load_config_file(path) == config
    assert parse("tmaze", ["--config", str(path)]).config == config


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_trains_and_is_evaluated(name: str, tmp_path: Path, data_root: Path) -> None:
    config = config_of(name, *TINY, f"--logging.output={tmp_path}", f"--data.root={data_root}")
    result = train(config)
    assert result.folder == tmp_path / f"tmaze-{name}-1"
    assert result.steps == 2
    assert load_config_file(result.folder / "config.yaml") == config
    scored = [(row["which"], row["length"]) for row in result.rows]
    assert scored == [("last", 9), ("last", 40), ("best", 9), ("best", 40)]
    assert all(row["model"] == name and 0 <= row["success"] <= 1 for row in result.rows)
