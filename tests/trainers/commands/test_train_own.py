"""`rate train` with a user's data and environment, up to the scores."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import yaml

from datamodules.store import Store
from rate.weights import load_model
from tests.datamodules import library_samples, samples
from trainers.cli import parse
from trainers.commands import convert, evaluate, plot, train
from trainers.preset_files import preset_names

TINY = [
    *("--training.max_steps=2", "--training.batch_size=4", "--model.d_model=16"),
    *("--model.num_layers=1", "--evaluation.episodes=2"),
    *("--evaluation.every_n_steps=0", "--logging.progress=false", "--logging.tensorboard=false"),
]


def columns(episodes: int = 8, steps: int = 6) -> dict[str, Any]:
    """Returns data with CartPole's spaces; every episode is terminated."""
    chance, total = np.random.default_rng(0), episodes * steps
    ends = np.arange(1, total + 1) % steps == 0
    return {
        "observations": chance.uniform(-0.05, 0.05, size=(total, 4)).astype(np.float32),
        "actions": chance.integers(2, size=total),
        "rewards": np.ones(total, np.float32),
        "terminated": ends,
        "truncated": np.zeros(total, bool),
    }


def write_npz(path: Path) -> Path:
    np.savez(path / "cart.npz", **columns())
    return path / "cart.npz"


def write_hdf5(path: Path) -> Path:
    with h5py.File(path / "cart.hdf5", "w") as file:
        for name, column in columns().items():
            file[name] = column
    return path / "cart.hdf5"


def write_pickle(path: Path) -> Path:
    flat = columns()
    parts = [{k: v[start : start + 6] for k, v in flat.items()} for start in range(0, 48, 6)]
    (path / "cart.pkl").write_bytes(pickle.dumps(parts))
    return path / "cart.pkl"


@pytest.fixture(autouse=True)
def _there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("write", [write_npz, write_hdf5, write_pickle])
def test_a_file_of_any_format_trains_and_is_scored_in_an_environment_of_gymnasium(
    write: Callable[[Path], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path)
    train.main(["--env", "CartPole-v1", "--data", file.name, "--model", "rmt", *TINY])
    assert "The run is in runs/CartPole-v1-rmt-1/" in capsys.readouterr().out
    run = tmp_path / "runs" / "CartPole-v1-rmt-1"
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert (config["environment"], config["data"]["store"]) == ("CartPole-v1", file.name)
    assert (config["model"]["context_length"], config["training"]["segments"]) == (2, 3)
    assert config["model"]["return_scale"] == 6
    assert config["data"]["normalise"] is True
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["which"], row["episodes"]) for row in rows] == [("last", 2)]
    spec = load_model(run).spec
    assert (spec.name, spec.target_return) == ("CartPole-v1", 6)  # the best of the data
    evaluate.main([str(run), "--episodes", "1", "--results", "scores.csv"])
    plot.main(["scores.csv"])
    assert (tmp_path / "scores.png").is_file()


def test_data_without_an_environment_train_without_rollouts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_npz(tmp_path)
    words = ["--data=cart.npz", "--model=dt", *TINY]
    train.main(words)
    run = tmp_path / "runs" / "cart.npz-dt-1"
    assert json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["rows"] == []
    assert load_model(run).spec.name == "none"
    assert "The run is in runs/cart.npz-dt-1/" in capsys.readouterr().out
    train.main(
        ["--resume", str(run), "--training.max_steps=3"]
    )  # the environment comes from the data
    metrics = (run / "metrics.csv").read_text(encoding="utf-8").splitlines()
    assert metrics[-1].startswith("3,")
    assert len(list((tmp_path / "data" / "stores").glob("[!.]*"))) == 1


WRITERS: dict[str, Callable[[Path], Any]] = {
    "d4rl.hdf5": samples.write_d4rl,
    "episodes.pkl": samples.write_trajectories,
    "minari/mine/nested-v0": lambda path: samples.write_minari(path.parents[1], "mine/nested-v0"),
    "d3rlpy.h5": library_samples.write_d3rlpy,
    "robomimic.hdf5": library_samples.write_robomimic,
    "rlds": library_samples.write_rlds,
    "torchrl": library_samples.write_torchrl,
    "hf": library_samples.write_hf_dataset,
    "rows.parquet": library_samples.write_parquet,
    "lerobot": library_samples.write_lerobot_3,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_convertible_source_trains(name: str, tmp_path: Path) -> None:
    """A file, a folder, or a name below the data root."""
    path = tmp_path / "data" / name
    path.parent.mkdir(parents=True)
    WRITERS[name](path)
    convert.main([str(path), str(tmp_path / "converted")])
    data = "mine/nested-v0" if name.startswith("minari") else str(path)
    train.main(["--data", data, "--model=rmt", *TINY, "--training.max_steps=1"])
    assert (tmp_path / "runs" / f"{path.name}-rmt-1" / "checkpoints" / "last").is_dir()
    (made,) = (tmp_path / "data" / "stores").glob("[!.]*")
    ours, theirs = Store.open(made), Store.open(tmp_path / "converted")
    assert ours.manifest["arrays"] == theirs.manifest["arrays"]


@pytest.mark.parametrize("model", preset_names("none"))
def test_every_model_has_settings_for_any_data(model: str, tmp_path: Path) -> None:
    write_npz(tmp_path)
    command = parse("none", ["--data=cart.npz", f"--model={model}", "--logging.progress=false"])
    config = command.config
    assert config.window <= 6
    assert (config.data.window, config.data.sampling) == ("random", "steps")
    train.main([f"--model={model}", "--data=cart.npz", *TINY])
    assert (tmp_path / "runs" / f"cart.npz-{model}-1" / "evaluation.json").is_file()


def test_options_override_the_settings_inferred_from_data(tmp_path: Path) -> None:
    file = samples.write_d4rl(tmp_path / "long.hdf5", lengths=(200, 90), unfinished=0)
    rate = parse("none", [f"--data={file}", "--logging.progress=false"]).config
    assert (rate.model.context_length, rate.training.segments) == (20, 3)
    assert rate.model.cache_length == 60  # three tokens a step of a segment
    low, high = rate.model.return_scale, parse("none", [f"--data={file}", "--model=dt"]).config
    assert low == high.model.return_scale
    assert high.model.max_timestep == 200
    given = ["--model.context_length=7", "--model.return_scale=3", "--data.normalise=false"]
    changed = parse("none", [f"--data={file}", *given]).config
    assert (changed.model.context_length, changed.model.return_scale) == (7, 3)
    assert changed.data.normalise is False


def test_settings_missing_in_a_file_are_inferred_from_the_data(tmp_path: Path) -> None:
    write_npz(tmp_path)
    text = "environment: CartPole-v1\nname: rmt\ndata: {store: cart.npz}\nmodel: {d_model: 16}\n"
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    assert train.choose_environment(["--config=mine.yaml"])[0] == "CartPole-v1"
    config = parse("CartPole-v1", ["--config=mine.yaml"]).config
    assert (config.model.context_length, config.training.segments) == (2, 3)
    assert (config.model.d_model, config.model.return_scale) == (16, 6)


def test_without_a_time_limit_rollouts_are_as_long_as_the_data(tmp_path: Path) -> None:
    write_npz(tmp_path)
    (tmp_path / "endless.py").write_text(
        "import gymnasium as gym, numpy as np\n"
        "class Endless(gym.Env):\n"
        "    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)\n"
        "    action_space = gym.spaces.Discrete(2)\n"
        "    def __init__(self, size=1): self.size = size\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return np.zeros(4, np.float32), {}\n"
        "    def step(self, action):\n"
        "        return np.zeros(4, np.float32), 1.0, False, False, {}\n",
        encoding="utf-8",
    )
    command = ["--env", "endless:Endless", "--env.size=3", "--data", "cart.npz", "--model=trxl"]
    train.main([*command, *TINY])
    run = tmp_path / "runs" / "endless-Endless-trxl-1"
    rows = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["rows"]
    assert [(row["length"], row["return"]) for row in rows] == [(6, 6.0)]
    assert load_model(run).spec.options == {"size": 3}


def test_missing_information_is_requested_as_by_convert(
    tmp_path: Path, error_of: Callable[..., str]
) -> None:
    flat = columns()
    odd = {"o": flat["observations"], "u": flat["actions"], "end": flat["terminated"]}
    np.savez(tmp_path / "odd.npz", **odd)
    data = ["--data", "odd.npz", "--model", "dt", *TINY]
    assert "actions" in error_of(train.main, data)
    options = ["--map", "o=observations", "--map=u=actions", "--map", "end=dones", "--zero-rewards"]
    train.main([*data, *options])
    text = (tmp_path / "runs" / "odd.npz-dt-1" / "config.yaml").read_text(encoding="utf-8")
    reading = yaml.safe_load(text)["data"]["reading"]
    assert reading["columns"] == {"o": "observations", "u": "actions", "end": "dones"}
    assert reading["zero_rewards"] is True


def test_assumptions_about_the_data_are_reported(tmp_path: Path) -> None:
    flat = columns()
    flat["observations"] = flat["observations"].astype(np.float64)
    np.savez(tmp_path / "cart.npz", **flat)
    notes = parse("none", ["--data=cart.npz", "--logging.progress=false"]).notes
    assert any(note.startswith("cart.npz: ") and "float64" in note for note in notes)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "name an environment, or --data to train on"),
        ("--model dt", "name an environment, or --data to train on"),
        ("--env", "--env needs a value"),
        ("--env --data x", "--env needs a value"),
        ("--env CartPole-v1", "CartPole-v1 has no expert that makes data here"),
        ("--env CartPol-v1 --data cart.npz", "There is no environment 'CartPol-v1'"),
        ("--data nothing.npz", "nothing.npz: there is no such file or folder"),
        ("--data cart.npz --mdel dt", "no option --mdel. Did you mean --model?"),
        ("--data nothing.npz --model.dmodel 3", "Did you mean --model.d_model?"),  # printed first
        ("--data cart.npz --model gpt", "There is no preset 'gpt' for none (--model)."),
        ("--data cart.npz --env.size 3", "env.size"),
        ("--env CartPole-v1 --data cart.npz --env.siz 3", "There is no setting env.siz"),
        ("--env Pendulum-v1 --data cart.npz", "(the data have shape (4,) instead of (3,))"),
        ("--data cart.npz --map x=y", "--map: 'x=y' is not THEIRS=OURS"),
        ("--data cart.npz --data.reading.action_range 2 1", "the lower bound and the upper"),
        ("--data cart.npz --training.max_steps 0", "training.max_steps is 0"),
    ],
)
def test_untrainable_data_are_refused_with_the_reason(
    words: str, message: str, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    write_npz(tmp_path)
    assert message in error_of(train.main, [*words.split(), "--logging.progress=false"])
    assert not (tmp_path / "runs").exists()
