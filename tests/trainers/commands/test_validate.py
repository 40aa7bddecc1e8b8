from __future__ import annotations

import numpy as np
import pytest

from tests.datamodules import samples
from trainers.commands import validate
from trainers.commands.console import USER_ERROR


def run(*arguments):
    validate.main([str(argument) for argument in arguments])


def test_valid_data_have_no_problems(tmp_path, capsys):
    run(samples.write_d4rl(tmp_path / "x.hdf5"))
    output = capsys.readouterr().out
    assert "warning: the last 2 steps are no whole episode" in output
    assert "(d4rl): 3 valid episodes, 13 steps, returns from" in output
    assert "No problems." in output


def test_problems_are_listed_counted_and_give_an_exit_code(tmp_path, capsys):
    def change(episodes):
        for episode in episodes[2:]:
            episode["rewards"][1] = np.nan

    path = samples.write_trajectories(tmp_path / "x.pkl", (3,) * 10, change=change)
    with pytest.raises(SystemExit) as ended:
        run(path, "--most", 3)
    assert ended.value.code == validate.WRONG
    output = capsys.readouterr().out
    assert f"problem: {path}, episode 2: rewards: the value at step 1 is not finite" in output
    assert output.count("problem: ") == 3
    assert "... and 5 more of these" in output
    assert "2 valid episodes" in output
    assert "8 problems." in output


@pytest.mark.parametrize("name", ["minari", "npz", "pickle", "store"])
def test_damaged_files(tmp_path, capsys, own_data, name):
    path, file = own_data(name)
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(SystemExit) as ended:
        run(path)
    assert ended.value.code == validate.WRONG
    assert file.name.removesuffix(".hdf5") in capsys.readouterr().out or name == "minari"


@pytest.fixture
def own_data(tmp_path):
    """Returns a data set of a format, and the file of it to damage."""

    def make(name):
        if name == "minari":
            path = samples.write_minari(tmp_path)
            return path, path / "data" / "main_data.hdf5"
        if name == "npz":
            path = samples.write_rate_npz(tmp_path / "data")
            return path, path / "train_data_2.npz"
        path = samples.write_trajectories(tmp_path / "x.pkl")
        if name == "pickle":
            return path, path
        from datamodules.convert import convert
        from datamodules.formats import open_source

        store = convert(open_source(path), tmp_path / "store")
        return store, store / "rewards.npy"

    return make


def test_an_environment_gives_the_bounds(tmp_path, capsys):
    pytest.importorskip("minigrid", reason="make install EXTRAS=minigrid")

    def change(number, data):
        data["action"] = data["action"] + 3

    path = samples.write_rate_npz(tmp_path / "data", shape=(3, 84, 84), change=change)
    with pytest.raises(SystemExit):
        run(path, "--environment", "minigrid")
    assert "actions: 3 at step 0 is outside the space Discrete(3)" in capsys.readouterr().out


def test_how_much_of_an_expert_can_be_learnt(tmp_path, capsys):
    path = samples.write_trajectories(tmp_path / "x.pkl", (3,) * 10)
    run(path, "--imitable", "--imitable-steps", 1)
    output = capsys.readouterr().out
    assert "Actions of 2 held-out episodes" in output
    assert "variance explained" in output
    for seen in ("the whole history", "the present observation and the previous action"):
        assert seen in output
    assert "privileged" not in output
    assert output.endswith(".\n")


def test_what_prevents_a_measure_of_the_expert(tmp_path, capsys):
    path = samples.write_trajectories(tmp_path / "x.pkl", (3,) * 9)
    with pytest.raises(SystemExit) as ended:
        run(path, "--imitable")
    assert ended.value.code == USER_ERROR
    assert f"{path}: 9 episodes are too few to hold some out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(path, "--imitable-steps", 1)
    assert "--imitable-steps goes with --imitable" in capsys.readouterr().err
