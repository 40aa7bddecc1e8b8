"""Training and scoring on MuJoCo, from files of D4RL and Minari and from collected data."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest
from minari.data_collector import EpisodeBuffer

from datamodules import Store, mujoco_agent
from datamodules.mujoco_recording import Columns, Rows, play, write_d4rl
from rate.envs.mujoco import Mujoco, MujocoOptions, mujoco_spec, normalised_score
from trainers.cli import parse
from trainers.commands import collect, convert, evaluate, train
from trainers.commands.scores import read_scores

if find_spec("mujoco") is None:
    pytest.skip("MuJoCo is not installed", allow_module_level=True)

EPISODES = 12
SHORT = [
    *("--training.max_steps=2", "--training.batch_size=4", "--model.context_length=4"),
    *("--model.d_model=16", "--evaluation.every_n_steps=2", "--evaluation.lengths=20"),
    *("--evaluation.selection_lengths=9", "--evaluation.episodes=3", "--data.max_length=1000"),
    *("--logging.progress=false", "--logging.tensorboard=false"),
]


def by_chance(version: str) -> list[Columns]:
    """Returns episodes of Hopper with random actions."""
    rng = np.random.default_rng(0)

    def act(observations: np.ndarray[Any, Any]) -> tuple[Any, Any]:
        actions = rng.uniform(-1, 1, (len(observations), 3)).astype(np.float32)
        return actions, np.zeros(len(actions), dtype=np.float32)

    return play(act, Rows(MujocoOptions("hopper", version), EPISODES), range(EPISODES))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of data sets with D4RL's `hopper-medium-v2`."""
    root = tmp_path_factory.mktemp("data")
    write_d4rl(root / "d4rl" / "hopper-medium-v2.hdf5", by_chance("v4"), {"algorithm": "chance"})
    return root


@pytest.fixture(scope="module")
def words(root: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    runs = tmp_path_factory.mktemp("runs")
    return [*SHORT, f"--data.root={root}", f"--logging.output={runs}"]


def runs_of(words: list[str]) -> Path:
    return Path(words[-1].partition("=")[2])


def report_of(run: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    return report


def saved_in(run: Path) -> dict[str, Any]:
    text = (run / "checkpoints" / "last" / "model.json").read_text(encoding="utf-8")
    saved: dict[str, Any] = json.loads(text)["environment"]
    return saved


@pytest.mark.parametrize("mode", ["DT_quick", "RATE_quick"])
def test_a_d4rl_data_set_is_found_by_name(
    mode: str, words: list[str], root: Path, tmp_path: Path
) -> None:
    train.train_on("mujoco", ["--model_mode", mode, "--dataset", "hopper-medium-v2", *words])
    run = runs_of(words) / f"mujoco-hopper-medium-v2-{mode.lower()}-1"
    report = report_of(run)
    assert report["environment_options"]["version"] == "v4"
    for row in report["rows"]:
        expected = normalised_score(row["return"], MujocoOptions("hopper"))
        assert row["normalised_score"] == pytest.approx(expected)
        assert row["success"] is None
    store = Store.open(root / "mujoco-hopper-medium-v2")
    assert store.num_episodes == EPISODES
    assert store.spec.observation_space == mujoco_spec(MujocoOptions("hopper")).observation_space
    evaluate.main([str(run), "--results", str(tmp_path / "scores.csv")])
    again = read_scores(tmp_path / "scores.csv")
    assert [row["return"] for row in again] == [row["return"] for row in report["rows"]]


def test_observations_are_normalised_by_statistics_in_the_weights(
    words: list[str], root: Path
) -> None:
    from rate.weights import load_model

    options = ["--dataset=6", "--logging.name=normalised", "--evaluation.every_n_steps=0"]
    train.train_on("mujoco", ["--model_mode=DT", *words, *options])
    saved = load_model(runs_of(words) / "mujoco-normalised-1" / "checkpoints" / "last")
    mean, deviation = Store.open(root / "mujoco-hopper-medium-v2").normalisation[""]
    encoder: Any = saved.model.tokenizer.observation
    np.testing.assert_array_equal(encoder.mean.numpy(), mean)
    np.testing.assert_array_equal(encoder.std.numpy(), deviation)
    assert saved.spec.target_return == 3600


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_a_minari_data_set_has_its_own_target_and_references(
    words: list[str], root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The data set is written by Minari itself, with float64 observations as in its MuJoCo sets."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root / "minari"))
    buffers, env = [], Mujoco(MujocoOptions("hopper", "v5"))
    episodes = by_chance("v5")
    for number, episode in enumerate(episodes):
        last = episode["next_observations"][-1:]
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=np.concatenate([episode["observations"], last]).astype(np.float64),
                actions=episode["actions"],
                rewards=episode["rewards"].astype(np.float64),
                terminations=episode["terminals"],
                truncations=episode["timeouts"],
            )
        )
    space = type(env.observation_space)(-np.inf, np.inf, (11,), np.float64)
    minari.create_dataset_from_buffers(
        "mujoco/hopper/expert-v0",
        buffer=buffers,
        env="Hopper-v5",
        observation_space=space,
        action_space=env.action_space,
        ref_min_score=1.5,
        ref_max_score=4000.0,
    )
    train.train_on("mujoco", ["--model_mode=DT_quick", "--dataset=mujoco/hopper/expert-v0", *words])
    run = runs_of(words) / "mujoco-mujoco-hopper-expert-v0-dt_quick-1"
    saved = saved_in(run)
    assert saved["options"] == {
        "task": "hopper",
        "version": "v5",
        "arguments": {},
        "max_episode_steps": None,
        "score_0": 1.5,
        "score_100": 4000.0,
    }
    best = max(float(episode["rewards"].sum(dtype=np.float64)) for episode in episodes)
    assert saved["target_return"] == pytest.approx(best)
    report = report_of(run)
    assert report["target_return"] == pytest.approx(best)
    for row in report["rows"]:
        assert row["normalised_score"] == pytest.approx((row["return"] - 1.5) / (4000 - 1.5) * 100)

    store = root / "converted"
    convert.main([str(root / "minari" / "mujoco/hopper/expert-v0"), str(store)])
    notes = Store.open(store).manifest["provenance"]["notes"]
    assert "observations are float64, and the store keeps them as float32" in notes
    train.train_on(
        "mujoco", [f"--data.store={store}", *words, "--model_mode=DT", "--logging.name=store"]
    )
    assert saved_in(runs_of(words) / "mujoco-store-1") == saved


def test_the_public_command_has_its_public_settings(root: Path) -> None:
    command = (
        "--env_id 6 --number_of_segments 3 --segment_length 20 --num_mem_tokens 5 --n_head_ca 1 "
        "--mrv_act 'relu' --skip_dec_ffn --seed 123"
    )
    config = parse("mujoco", shlex.split(command)).config
    model = config.model
    assert (config.data.dataset, config.env["task"]) == ("hopper-medium-v2", "hopper")
    assert (model.context_length, config.training.segments, config.training.seed) == (20, 3, 123)
    assert (model.num_memory_tokens, model.cache_length) == (5, 60)
    assert (model.valve, model.valve_heads, model.valve_activation) == (
        "cross_attention",
        1,
        "relu",
    )
    assert model.skip_ffn
    assert config.run_name == "mujoco-hopper-medium-v2-rate-123"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset=walker2d-expert-v2"], "python scripts/download.py walker2d-expert-v2"),
        (["--dataset=mujoco/hopper/medium-v0"], "download.py mujoco/hopper/medium-v0"),
        (["--dataset=hoper-medium"], "Did you mean hopper-medium-"),
        (["--env_id=12"], "There is no data set '12'"),
        (["--env.task=ant"], "env.task is 'ant'"),
    ],
)
def test_missing_data_are_reported_before_training(
    options: list[str], message: str, words: list[str], error_of: Callable[..., str]
) -> None:
    assert message in error_of(train.train_on, "mujoco", [*options, *words])
    assert not list(runs_of(words).glob("*walker2d*"))


@pytest.mark.skipif(
    find_spec("stable_baselines3") is None, reason="stable-baselines3 is not installed"
)
def test_data_are_collected_and_trained_on(
    words: list[str],
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(mujoco_agent, "LENGTH", 10)
    made = [*words, "--dataset=hopper-expert-sac", "--data.agent_steps=160"]
    made += ["--data.num_episodes=3", "--model_mode=RATE_quick"]
    collect.main(["mujoco", *made])
    assert "3 episodes" in capsys.readouterr().out
    (store,) = root.glob("mujoco-hopper-expert-sac-*/")
    assert len(list((root / "mujoco").glob("hopper-expert-sac-*.hdf5"))) == 1
    train.train_on("mujoco", made)
    run = runs_of(words) / "mujoco-hopper-expert-sac-rate_quick-1"
    assert saved_in(run)["target_return"] == pytest.approx(Store.open(store).return_range[1])
