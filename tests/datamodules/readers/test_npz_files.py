from __future__ import annotations

import contextlib

import numpy as np
import pytest
from gymnasium import spaces

from datamodules.episodes import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.readers.npz_files import open_npz_files
from datamodules.source import ValidEpisodes, raise_error
from rate.envs.popgym import PopgymOptions, popgym_spec
from tests.datamodules.samples import LENGTHS, columns, write_rate_npz


def one(folder, **changes):
    """Writes a folder whose second file is changed."""

    def change(number, data):
        if number == 1:
            data.update(changes)
            for key in [key for key, value in data.items() if value is None]:
                del data[key]

    return write_rate_npz(folder, change=change)


def test_vizdoom(tmp_path):
    source = open_npz_files(write_rate_npz(tmp_path / "data"))
    episodes = list(ValidEpisodes(source))
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    assert episodes[0].observations.dtype == np.uint8
    assert episodes[1].actions.tolist() == [0, 1, 2, 0, 1, 2]
    assert episodes[1].rewards.tolist() == list(range(6))
    assert episodes[0].terminated
    assert source.spec.name == "two_colors"
    assert (source.num_episodes, source.num_steps) == (3, sum(LENGTHS))
    assert len(list(source.read(2, pytest.fail))) == 1


def test_minigrid_gets_its_bytes_back(tmp_path):
    bytes_ = open_npz_files(write_rate_npz(tmp_path / "minigrid-a", shape=(3, 84, 84)))
    floats = open_npz_files(write_rate_npz(tmp_path / "minigrid-b", shape=(3, 84, 84), scale=255))
    assert floats.spec == bytes_.spec
    assert floats.spec.name == "minigrid_memory"
    for found, wanted in zip(ValidEpisodes(floats), ValidEpisodes(bytes_), strict=True):
        assert found.observations.dtype == np.uint8
        np.testing.assert_array_equal(found.observations, wanted.observations)


def test_vectors_continuous_actions_and_time_limits(tmp_path):
    def change(number, data):
        data["obs"] = np.random.default_rng(number).standard_normal((len(data["reward"]) + 1, 3))
        data["action"] = np.full((len(data["reward"]), 1), 2.0)
        data["done"][:] = False

    source = open_npz_files(write_rate_npz(tmp_path / "pendulum", change=change))
    (first, *_) = ValidEpisodes(source)
    assert first.observations.shape == (4, 3)
    assert first.last_observation.shape == (3,)
    assert first.truncated
    assert source.spec.action_space == spaces.Box(1, 3, (1,))


def test_robot_data_have_two_observations_and_success_rewards(tmp_path):
    def change(number, data):
        steps = len(data["reward"])
        data["rgb"] = np.zeros((steps, 128, 128, 6), np.uint8)
        data["joints"] = np.zeros((steps, 25), np.float32)
        data["action"] = np.zeros((steps, 8), np.float32)
        data["success"] = np.arange(steps) == steps - 1
        del data["obs"]

    source = open_npz_files(write_rate_npz(tmp_path / "robot", change=change))
    (first, *_) = ValidEpisodes(source)
    assert sorted(first.observations) == ["joints", "rgb"]
    assert first.rewards.tolist() == [0, 0, 0, 1]


BAD = {
    "missing": ({"reward": None}, "there are no rewards; it has obs.*--zero-rewards"),
    "rewards": ({"reward": np.zeros(5)}, "reward has 5 steps, but action has 6"),
    "frames": ({"obs": np.zeros((5, 3, 64, 112), np.uint8)}, "obs has 5 rows"),
    "many frames": ({"obs": np.zeros((8, 3, 64, 112), np.uint8)}, "obs has 8 rows"),
    "done": ({"done": np.array([0, 0, 2, 0, 0, 1])}, "done is 2 at row 2, neither 0 nor 1"),
    "empty": ({"action": np.zeros(0, int)}, "no steps"),
    "nan": ({"reward": np.array([0, 1, np.nan, 0, 0, 0])}, "rewards: the value at step 2"),
    "action": ({"action": np.full(6, 7)}, "actions: 7 at step 0 is outside the space Discrete"),
    "texts": ({"reward": np.array(["a"] * 6)}, "reward holds <U1"),
    "objects": ({"reward": np.array([{}] * 6, dtype=object)}, "reward holds object"),
    "shape": ({"obs": np.zeros((6, 3, 64, 64), np.uint8)}, r"have shape \(3, 64, 64\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_wrong_files_are_named_or_skipped(tmp_path, name):
    changes, message = BAD[name]
    source = open_npz_files(one(tmp_path / "data", **changes))
    with pytest.raises(DatasetError, match=message) as error:
        list(ValidEpisodes(source))
    assert "train_data_1.npz" in str(error.value)
    kept = ValidEpisodes(source, on_bad=lambda error: None)
    assert [len(episode) for episode in kept] == [4, 3]
    assert kept.skipped == 1


@pytest.mark.parametrize("kept", [0, 10, 0.5, 0.99])
def test_a_truncated_file(tmp_path, kept):
    folder = write_rate_npz(tmp_path / "data")
    path = folder / "train_data_0.npz"
    data = path.read_bytes()
    path.write_bytes(data[: kept if kept > 1 else int(kept * len(data))])
    with pytest.raises(DatasetError, match=r"train_data_0\.npz: not a whole \.npz file"):
        list(open_npz_files(folder).read(0, raise_error))
    assert open_npz_files(folder).num_episodes == 3  # the other files define the spaces


def test_a_folder_of_damaged_files_is_refused(tmp_path):
    (tmp_path / "0.npz").write_bytes(b"junk")
    with pytest.raises(DatasetError, match=r"0\.npz: not a whole"):
        open_npz_files(tmp_path)
    with pytest.raises(DatasetError, match=r"no \.npz files"):
        open_npz_files(tmp_path / "..")


def test_mutated_files_raise_dataset_errors_only(tmp_path):
    path = write_rate_npz(tmp_path / "data", shape=(2,)) / "train_data_1.npz"
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    for _ in range(80):
        changed = bytearray(whole)
        changed[rng.integers(0, len(whole))] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(DatasetError):
            list(open_npz_files(path.parent).read(0, lambda error: None))


def test_one_flat_file_of_episodes_of_one_length(tmp_path):
    """Ends every 10 steps are those of a time limit, for every name of the column."""
    ends = np.arange(30) % 10 == 9
    for name in ("terminals", "dones"):
        columns = {"observations": np.zeros((30, 3), np.float32), name: ends}
        path = tmp_path / f"{name}.npz"
        np.savez(path, actions=np.arange(30) % 2, rewards=np.ones(30), **columns)
        episodes = list(ValidEpisodes(open_npz_files(path)))
        assert [len(episode) for episode in episodes] == [10, 10, 10]
        kinds = [(episode.terminated, episode.truncated) for episode in episodes]
        assert kinds == [(name == "dones", name == "terminals")] * 3


STEPS, ENDS = sum(LENGTHS), np.cumsum(LENGTHS)
LAST = np.isin(np.arange(STEPS), ENDS - 1)


def flat_arrays(**changes):
    made = [columns(length, number) for number, length in enumerate(LENGTHS)]
    arrays = {key: np.concatenate([one[key] for one in made]) for key in made[0]}
    del arrays["next_observations"]
    return {key: value for key, value in (arrays | changes).items() if value is not None}


def renamed(names, **changes):
    return {names.get(key, key): value for key, value in flat_arrays(**changes).items()}


def imitation():
    made = [columns(length, number) for number, length in enumerate(LENGTHS)]
    seen = [np.concatenate([e["observations"], e["next_observations"][-1:]]) for e in made]
    return {
        "obs": np.concatenate(seen),
        "acts": np.concatenate([e["actions"] for e in made]),
        "rews": np.concatenate([e["rewards"] for e in made]),
        "indices": ENDS[:-1],
        "terminal": np.array([e["terminals"][-1] for e in made]),
        "infos": np.array([{}] * STEPS, dtype=object),
    }


NEORL = {"observations": "obs", "actions": "action", "rewards": "reward", "terminals": "done"}
FILES = {
    "d4rl": lambda: flat_arrays(timeouts=LAST & ~flat_arrays()["terminals"]),
    "imitation": imitation,
    "neorl": lambda: {**renamed(NEORL), "index": np.array([0, *ENDS[:-1]])},
    "stable-baselines": lambda: {
        **renamed({"observations": "obs"}),
        "episode_starts": np.roll(LAST, 1),
        "episode_returns": np.zeros(3),
    },
    "d3rlpy": lambda: flat_arrays(episode_terminals=LAST.astype("f4")),
}


@pytest.mark.parametrize("name", FILES)
def test_one_file_of_several_episodes(tmp_path, name):
    np.savez(tmp_path / "x.npz", **FILES[name]())
    source = open_source(tmp_path / "x.npz")
    assert (source.format, source.num_episodes, source.num_steps) == ("npz", 3, STEPS)
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for key in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, key), wanted[key])
        assert (episode.terminated, episode.truncated) == (number != 1, number == 1)
        if name == "imitation":
            np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])


def test_ogbench_has_no_rewards_and_one_kind_of_end(tmp_path):
    length = 5
    ends = np.arange(3 * length) % length == length - 1
    data = {"observations": np.arange(15.0)[:, None], "actions": np.zeros((15, 2), "f4")}
    np.savez(tmp_path / "x.npz", **data, terminals=ends.astype("f4"))
    with pytest.raises(DatasetError, match=r"no rewards; it has observations.*--zero-rewards"):
        open_source(tmp_path / "x.npz")
    source = open_source(tmp_path / "x.npz", Options(zero_rewards=True))
    episodes = list(ValidEpisodes(source))
    assert [(len(e), e.truncated, e.rewards.any()) for e in episodes] == [(5, True, False)] * 3
    assert (
        "'terminals' is set at every 5 steps, and is taken as the time limit's" in source.notes[0]
    )
    assert [e.observations[0, 0] for e in episodes] == [0, 5, 10]


@pytest.mark.parametrize("name", ["terminated", "terminations"])
def test_a_column_named_terminated_marks_terminations(tmp_path, name):
    ends = np.arange(15) % 5 == 4
    data = {"observations": np.arange(15.0)[:, None], "actions": np.zeros(15, int)}
    np.savez(tmp_path / "x.npz", **data, rewards=np.ones(15), **{name: ends})
    source = open_source(tmp_path / "x.npz")
    assert [(len(e), e.terminated, e.truncated) for e in ValidEpisodes(source)] == [
        (5, True, False)
    ] * 3
    assert source.notes == ()


def replay(kind, length, number):
    """Returns an episode of T steps in T + 1 rows, the first of which is that of the reset."""
    rows, rng = np.arange(length + 1), np.random.default_rng(number)
    data = {
        "action": np.concatenate([np.zeros((1, 3)), rng.uniform(0.1, 1, (length, 3))]).astype("f4"),
        "reward": rows.astype("f4")[:, None],
    }
    if kind == "dreamer":
        data["action"] = np.eye(4, dtype="f4")[rows % 4] * (rows > 0)[:, None]
        data["image"] = np.full((length + 1, 64, 64, 3), rows[:, None, None, None], np.uint8)
        data |= {"is_first": rows == 0, "is_last": rows == length}
        data["is_terminal"] = data["is_last"] & (number == 0)
    else:
        data["observation"] = rows[:, None] * np.ones(2)
        data["discount"] = 1.0 - ((rows == length) & (number == 0))[:, None]
        if kind == "dm_env":
            data["step_type"] = np.where(rows == 0, 0, np.where(rows == length, 2, 1))
        else:
            data["physics"] = np.zeros((length + 1, 5))
    return data


@pytest.mark.parametrize(
    ("kind", "flat"),
    [("dreamer", False), ("dreamer", True), ("exorl", False), ("dm_env", False), ("dm_env", True)],
)
def test_rows_whose_action_precedes_them_are_shifted(tmp_path, kind, flat):
    made = [replay(kind, length, number) for number, length in enumerate(LENGTHS)]
    if flat:
        whole = {key: np.concatenate([one[key] for one in made]) for key in made[0]}
        np.savez(tmp_path / "x.npz", **whole)
    else:
        for number, one in enumerate(made):
            np.savez_compressed(tmp_path / f"{number}.npz", **one)
    source = open_source(tmp_path / "x.npz" if flat else tmp_path)
    assert source.format == "npz"
    assert any("first row of an episode is that of the reset" in note for note in source.notes)
    for number, episode in enumerate(ValidEpisodes(source)):
        steps = np.arange(LENGTHS[number])
        seen = episode.observations.reshape(len(steps), -1)
        np.testing.assert_array_equal(seen[:, 0], steps)
        assert np.ravel(episode.last_observation)[0] == len(steps)
        np.testing.assert_array_equal(episode.rewards, steps + 1)
        wanted = made[number]["action"][1:]
        np.testing.assert_array_equal(
            episode.actions, wanted.argmax(axis=1) if kind == "dreamer" else wanted
        )
        assert (episode.terminated, episode.truncated) == (number == 0, number != 0)


def test_actions_taken_on_their_row_are_not_shifted(tmp_path):
    """RLDS has first and last rows as well, but the action of a row is taken on it."""
    rows = np.arange(6)
    data = {"observation": rows[:, None] * 1.0, "action": 1.0 + rows[:, None] * np.ones(2)}
    np.savez(tmp_path / "0.npz", **data, reward=rows, is_first=rows == 0, is_last=rows == 5)
    (episode,) = ValidEpisodes(open_source(tmp_path))
    assert len(episode) == 6
    assert episode.actions[0].tolist() == [1, 1]


def test_images_of_a_common_size_name_no_environment(tmp_path):
    source = open_npz_files(write_rate_npz(tmp_path / "a", shape=(3, 84, 84)))
    assert (source.spec.name, source.spec.action_space) == ("npz", spaces.Discrete(3))


def test_a_file_of_a_folder_may_have_several_episodes(tmp_path):
    np.savez(tmp_path / "0.npz", **FILES["d4rl"]())
    np.savez(tmp_path / "1.npz", **{key: value[:4] for key, value in flat_arrays().items()})
    source = open_source(tmp_path)
    assert source.num_episodes == 4
    assert [len(episode) for episode in ValidEpisodes(source)] == [*LENGTHS, 4]
    for start in range(4):
        found = [len(episode) for episode in source.read(start, pytest.fail)]
        assert found == [*LENGTHS, 4][start:]


@pytest.mark.parametrize("task", ["RepeatFirstEasy", "CountRecallEasy", "PositionOnlyPendulumEasy"])
def test_public_popgym_data_become_discrete(tmp_path, task):
    """They are concatenated one-hot rows, as RLlib encodes them."""
    spec = popgym_spec(PopgymOptions(task))
    space = spec.observation_space
    seen = np.stack([space.sample() for _ in range(7)])
    if isinstance(space, spaces.Discrete):
        hot = np.eye(space.n, dtype="f4")[seen]
    elif isinstance(space, spaces.MultiDiscrete):
        parts = [np.eye(n, dtype="f4")[seen[:, i]] for i, n in enumerate(space.nvec)]
        hot = np.concatenate(parts, axis=1)
    else:
        hot = seen
    actions = np.stack([spec.action_space.sample() for _ in range(7)])
    done = np.arange(7) == 6
    np.savez(tmp_path / "0.npz", obs=hot, action=actions, reward=np.zeros(7), done=done)
    source = open_source(tmp_path, Options(spec=spec))
    (episode,) = ValidEpisodes(source)
    np.testing.assert_array_equal(episode.observations, seen)
    np.testing.assert_array_equal(episode.actions, actions)
    assert source.spec.observation_space == space
