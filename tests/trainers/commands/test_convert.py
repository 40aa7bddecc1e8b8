from __future__ import annotations

import numpy as np
import pytest
from gymnasium.spaces import Discrete

from datamodules import Store
from tests.datamodules import samples
from tests.trainers.commands.conftest import SHORT
from trainers.commands import convert, train


def run(*arguments):
    convert.main([str(argument) for argument in arguments])


def test_a_converted_file_trains(tmp_path, capsys):
    path = samples.write_tmaze(tmp_path / "data_T_9.pickle", lengths=(8, 2, 8, 6, 7))
    run(path, tmp_path / "store")
    output = capsys.readouterr().out
    assert "(rate-tmaze): 5 episodes, 31 steps; the store will take about" in output
    assert "store is made." in output
    options = ["--model.context_length=3", "--training.segments=3", f"--logging.output={tmp_path}"]
    kept = [item for item in SHORT if "num_episodes" not in item]
    store = f"--data.store={tmp_path / 'store'}"
    train.train_on("tmaze", ["--model_mode", "RATE", *kept, *options, store])
    assert (tmp_path / "tmaze-rate-1" / "checkpoints" / "last").is_dir()


def test_training_converts_a_file(tmp_path):
    path = samples.write_tmaze(tmp_path / "data_T_9.pickle", lengths=(8, 2, 8, 6, 7))
    places = [f"--data={path}", f"--data.root={tmp_path}", f"--logging.output={tmp_path}"]
    options = ["--model=dt", *SHORT, "--model.context_length=8", *places]
    train.train_on("tmaze", options)
    assert (tmp_path / "tmaze-dt-1" / "checkpoints" / "last").is_dir()


def test_to_minari(tmp_path, capsys):
    path = samples.write_d4rl(tmp_path / "hopper_medium-v2.hdf5")
    run(path, tmp_path / "hopper-v0", "--to", "minari")
    assert (tmp_path / "hopper-v0" / "data" / "metadata.json").is_file()
    assert "note: the last 2 steps are no whole episode" in capsys.readouterr().out


def test_an_environment_of_the_project(tmp_path):
    pytest.importorskip("minigrid", reason="make install EXTRAS=minigrid")
    path = samples.write_rate_npz(tmp_path / "data", shape=(3, 84, 84), scale=255)
    run(path, tmp_path / "store", "--environment", "minigrid", "--env.time_out", "100")
    assert Store.open(tmp_path / "store").spec.options["time_out"] == 100


def test_an_environment_of_a_user(tmp_path, error_of):
    ends = np.arange(12) % 4 == 3
    columns = {"observations": np.zeros((12, 4)), "actions": np.arange(12) % 2, "terminals": ends}
    np.savez(tmp_path / "x.npz", rewards=np.ones(12), **columns)
    how = ("--environment", "CartPole-v1", "--env.sutton_barto_reward", "true")
    run(tmp_path / "x.npz", tmp_path / "store", *how)
    spec = Store.open(tmp_path / "store").spec
    assert (spec.name, spec.options) == ("CartPole-v1", {"sutton_barto_reward": True})
    assert spec.action_space == Discrete(2)
    error = error_of(run, tmp_path / "x.npz", tmp_path / "y", "--environment", "Pendulum-v1")
    assert "episode 0: observations have shape (4,) at each step, but the space has (3,)" in error
    assert "no environment 'CartPol-v1'" in error_of(run, "x", "y", "--environment", "CartPol-v1")


def test_bad_episodes(tmp_path, capsys, error_of):
    def change(episodes):
        for episode in episodes[1:14]:
            episode["rewards"][0] = np.nan

    path = samples.write_trajectories(tmp_path / "x.pkl", (3,) * 15, change=change)
    error = error_of(run, path, tmp_path / "store")
    assert "x.pkl, episode 1: rewards: the value at step 0 is not finite" in error
    assert "--skip-bad" in error
    run(path, tmp_path / "store", "--skip-bad")
    captured = capsys.readouterr()
    assert captured.err.count("skipped: ") == convert.SHOWN
    assert "Left out as not valid: 13 episodes." in captured.out


def test_d4rl_without_timeouts(tmp_path, error_of):
    path = samples.write_d4rl(tmp_path / "x.hdf5", timeouts=None, next_observations=None)
    assert "--time-limit STEPS" in error_of(run, path, tmp_path / "store")
    run(path, tmp_path / "store", "--time-limit", "3")
    assert Store.open(tmp_path / "store").num_episodes == 6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent", "store"], "no such file or folder"),
        (["README.md", "store"], "none of:"),
        (["absent", "store", "--fast"], "unrecognized arguments: --fast"),
        (["absent", "store", "--environment", "tmaze", "--env.size", "3"], "--env.size"),
    ],
)
def test_invalid_commands_are_refused(tmp_path, error_of, arguments, message):
    assert message in error_of(run, *arguments)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1_500, "1.5 kB"), (7e13, "70 TB")]
)
def test_readable_sizes(size, text):
    assert convert.readable(size) == text


def test_missing_information_is_requested(tmp_path, error_of, capsys):
    made = {
        "view": np.arange(12.0).reshape(6, 2),
        "torque": np.linspace(-3, 3, 6)[:, None],
        "finish": np.array([0, 0, 1, 0, 0, 1]),
    }
    path = tmp_path / "x.npz"
    np.savez(path, **made)
    named = ["--map", "view=observations", "--map", "torque=actions"]
    assert "--map THEIRS=observations --map THEIRS=actions" in error_of(run, path, tmp_path / "s")
    assert "--zero-rewards" in error_of(run, path, tmp_path / "s", *named)
    named.append("--zero-rewards")
    assert "no column tells where episodes end" in error_of(run, path, tmp_path / "s", *named)
    assert "is not THEIRS=OURS" in error_of(run, path, tmp_path / "s", "--map", "finish=nothing")
    run(path, tmp_path / "s", *named, "--map", "finish=done", "--action-range", "-4", "4")
    output = capsys.readouterr().out
    assert "note: there are no rewards; all are taken as 0" in output
    store = Store.open(tmp_path / "s")
    assert store.lengths.tolist() == [3, 3]
    assert store.spec.action_space.high.tolist() == [4]
    np.testing.assert_array_equal(store.observations, made["view"])
