"""Runs that start with the weights of another run; weights that do not fit are named."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from gymnasium import spaces
from safetensors.torch import load_file

from rate.errors import ConfigError, WeightsError
from rate.model import SequenceModel
from rate.weights import SavedModel, save_model
from tests.factories import make_model, make_spec
from tests.trainers.conftest import MakeConfig
from trainers.cli import parse
from trainers.initial_weights import load_initial_weights
from trainers.train import train

WEIGHTS = "model.safetensors"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / WEIGHTS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a saved model."""
    folder = tmp_path_factory.mktemp("saved")
    save_model(SavedModel(make_model("rate"), make_spec()), folder)
    return folder


@pytest.fixture
def run(make_config: MakeConfig) -> Path:
    """A finished run whose best and last weights differ."""
    folder = train(make_config(logging__name="before")).folder
    save_model(SavedModel(make_model("rate"), make_spec()), folder / "checkpoints/best")
    return folder


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("", "checkpoints/best"),
        ("checkpoints", "checkpoints/best"),
        ("checkpoints/last", "checkpoints/last"),
        (f"checkpoints/last/{WEIGHTS}", "checkpoints/last"),
        ("checkpoints/last.ckpt", "checkpoints/last"),
    ],
)
def test_weights_come_from_runs_models_and_checkpoints(
    run: Path, source: str, expected: str
) -> None:
    from rate.weights import load_model

    model = load_model(run / expected).model
    wanted = {name: value.clone() for name, value in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.data.normal_()
    load_initial_weights(model, run / source, "refuse")
    found = model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_an_interrupted_run_has_weights_in_its_checkpoint(run: Path) -> None:
    from rate.weights import load_model

    model = load_model(run / "checkpoints/last").model
    for which in ("best", "last"):
        shutil.rmtree(run / "checkpoints" / which)
    load_initial_weights(model, run, "refuse")


def test_a_run_starts_with_them_and_resumes_without(make_config: MakeConfig, run: Path) -> None:
    """Steps are counted from 0; a resumed run does not read the initial weights again."""
    source = run / "checkpoints/last"
    small = {"optimizer__learning_rate": 1e-12, "logging__name": "next"}
    config = make_config(training__init=str(source), **small)
    folder = train(config).folder
    before, after = weights(source), weights(folder / "checkpoints/last")
    assert all(torch.allclose(before[name], after[name], atol=1e-7) for name in before)
    plain = weights(
        train(make_config(**{**small, "logging__name": "plain"})).folder / "checkpoints/last"
    )
    assert not all(torch.allclose(before[name], plain[name], atol=1e-7) for name in before)
    shutil.rmtree(run)
    longer = replace(config, training=replace(config.training, max_steps=9))
    assert train(longer, resume="auto").steps == 9


def changed(kind: str) -> Callable[[SequenceModel], SequenceModel]:
    """Returns a saved model whose architecture differs in one setting."""

    def make(model: SequenceModel) -> SequenceModel:
        spec, config = make_spec(), model.config
        observations, actions = spec.observation_space, spec.action_space
        if kind == "actions":
            actions = spaces.Discrete(7)
        elif kind == "observations":
            observations = spaces.Box(-1, 1, (9,))
        elif kind == "deeper":
            config = replace(config, num_layers=config.num_layers + 1)
        elif kind == "shallower":
            config = replace(config, num_layers=config.num_layers - 1)
        return SequenceModel(config, observations, actions)

    return make


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("actions", r"other shapes: .*head.*\(\d+( x \d+)? there, 7( x \d+)? here\)"),
        ("observations", r"other shapes: tokenizer\.observation\.linear\.weight \(.* x 9 here"),
        ("deeper", r"not among them: .*\.\d+\..* and \d+ more"),
        ("shallower", r"of no use here: .*\.\d+\..* and \d+ more"),
    ],
)
def test_weights_that_do_not_fit_are_named_and_reinitialised_on_request(
    saved: Path, kind: str, message: str
) -> None:
    given = weights(saved)
    model = changed(kind)(make_model("rate"))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(WeightsError, match=rf"{message}.*--init_missing fresh"):
        load_initial_weights(model, saved, "refuse")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    with pytest.warns(UserWarning, match=message):
        load_initial_weights(model, saved, "fresh")
    for name, value in model.state_dict().items():
        fits = name in given and given[name].shape == value.shape
        assert torch.equal(value, given[name] if fits else before[name])


def test_equal_shapes_with_another_meaning_are_reported(saved: Path) -> None:
    like = make_model("rate")
    config = replace(like.config, valve_activation="relu", return_scale=7.0)
    spec = make_spec()
    model = SequenceModel(config, spec.observation_space, spec.action_space)
    with pytest.warns(UserWarning, match=r"model\.return_scale \(1\.0 there, 7\.0 here\)"):
        load_initial_weights(model, saved, "refuse")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_initial_weights(like, saved, "refuse")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("nowhere", None, "is not there"),
        ("empty", "folder", "holds no weights"),
        ("notes.txt", "text", "damaged or no safetensors file.*rate.reference"),
        ("last.ckpt", "text", "cannot be trusted"),
    ],
)
def test_a_source_without_weights_is_refused_before_a_run_is_made(
    make_config: MakeConfig, tmp_path: Path, name: str, content: str | None, message: str
) -> None:
    source = tmp_path / name
    if content == "folder":
        source.mkdir()
    elif content is not None:
        source.write_text(content)
    config = make_config(training__init=str(source))
    with pytest.raises(Exception, match=message) as caught:
        train(config)
    assert str(source) in str(caught.value)
    assert not list((tmp_path / "runs").glob("*"))


def test_scales_are_loaded_with_the_weights() -> None:
    """The scales are those of the weights' training, not of the new data."""
    before, after = make_model("rate"), make_model("rate")
    before.tokenizer.observation.set_normalisation(torch.full((3,), 3.0), torch.full((3,), 2.0))
    with tempfile.TemporaryDirectory() as folder:
        save_model(SavedModel(before, make_spec()), Path(folder))
        load_initial_weights(after, Path(folder), "refuse")
    assert torch.equal(after.tokenizer.observation.std, before.tokenizer.observation.std)


def test_errors_name_existing_options() -> None:
    config = parse("tmaze", ["--init", "runs/x", "--init_missing", "fresh"]).config
    assert (config.training.init, config.training.init_missing) == ("runs/x", "fresh")
    with pytest.raises(ConfigError, match="init_missing"):
        parse("tmaze", ["--init", "runs/x", "--init_missing", "guess"])
