"""TensorDicts of TorchRL on disk."""

from __future__ import annotations

import json

import numpy as np
import pytest

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.samples import LENGTHS, columns


def episodes(path, **options):
    return list(ValidEpisodes(open_source(path, Options(**options))))


def test_ends_rewards_and_next_observations_are_under_next(tmp_path):
    source = open_source(library.write_torchrl(tmp_path / "data"))
    assert (source.format, source.num_episodes, source.num_steps) == ("torchrl", 3, sum(LENGTHS))
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for ours in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, ours), wanted[ours])
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
        assert episode.terminated == (number % 2 == 0) != episode.truncated


def test_keys_that_are_also_under_next_are_observations(tmp_path):
    def change(tensors):
        rows = sum(LENGTHS)
        frames = np.arange(rows, dtype=np.uint8)[:, None, None, None] + np.zeros((1, 1, 4, 4))
        tensors["pixels"] = frames.astype(np.uint8)
        tensors["next/pixels"] = tensors["pixels"] + 1
        tensors["is_init"] = np.zeros((rows, 1), bool)
        tensors["done"] = np.zeros((rows, 1), bool)  # of the step before: of no use
        tensors["collector/traj_ids"] = np.repeat(np.arange(3), LENGTHS)
        for name in ("next/done", "next/truncated"):
            del tensors[name]

    source = open_source(library.write_torchrl(tmp_path / "data", change=change))
    assert sorted(source.spec.observation_space.spaces) == ["observation", "pixels"]
    found = list(ValidEpisodes(source))
    assert [len(episode) for episode in found] == list(LENGTHS)
    assert [episode.terminated for episode in found] == [True, False, True]
    assert found[1].observations["pixels"][:, 0, 0, 0].tolist() == [4, 5, 6, 7, 8, 9]
    assert found[1].last_observation["pixels"].max() == 10


def save_buffer(folder, rows, filled, cursor):
    """Writes a replay buffer of so many rows, as `ReplayBuffer.dumps` does."""
    step = np.arange(rows)
    library.write_tensors(
        folder / "storage",
        {
            "observation": step[:, None].astype(np.float32),
            "action": np.zeros((rows, 2), np.float32),
            "next/observation": step[:, None].astype(np.float32) + 1,
            "next/reward": step[:, None].astype(np.float32),
            "next/terminated": (step % 5 == 4)[:, None],
            "next/truncated": np.zeros((rows, 1), bool),
        },
    )
    metadata = {"metadata": {}, "is_pytree": False, "len": filled}
    (folder / "storage" / "storage_metadata.json").write_text(json.dumps(metadata))
    (folder / "writer").mkdir()
    (folder / "writer" / "metadata.json").write_text(json.dumps({"cursor": cursor}))
    return folder


def test_rows_of_a_buffer_that_are_not_filled_are_not_read(tmp_path):
    source = open_source(save_buffer(tmp_path / "data", 20, 10, 10))
    assert [len(episode) for episode in ValidEpisodes(source)] == [5, 5]


def test_a_full_buffer_starts_at_its_oldest_step(tmp_path):
    path = save_buffer(tmp_path / "data", 20, 20, 7)
    source = open_source(path)
    assert "its oldest step is row 7" in " ".join(source.notes)
    found = list(ValidEpisodes(source))
    rewards = np.concatenate([episode.rewards for episode in found])
    assert rewards.tolist() == [*range(7, 20), *range(7)]
    # Rows 19 and 0 follow each other in the ring, and row 19 is an end.
    assert [len(episode) for episode in found] == [3, 5, 5, 5, 2]
    assert [episode.terminated for episode in found] == [True, True, True, True, False]


def test_rows_of_several_environments_are_trajectories_of_their_own(tmp_path):
    def tensor(array):
        return array.reshape(2, 6, *array.shape[1:])

    step = np.arange(12)
    done = np.isin(step, [3])[:, None]  # the second row never ends
    path = library.write_tensors(
        tmp_path / "data",
        {
            "observation": tensor(step[:, None].astype(np.float32)),
            "action": tensor(np.zeros((12, 2), np.float32)),
            "next/observation": tensor(step[:, None].astype(np.float32) + 1),
            "next/reward": tensor(step[:, None].astype(np.float32)),
            "next/terminated": tensor(done),
        },
        batch=2,
    )
    found = episodes(path)
    assert [len(episode) for episode in found] == [4, 2, 6]
    assert [episode.terminated for episode in found] == [True, False, False]
    assert found[2].observations[:, 0].tolist() == [6, 7, 8, 9, 10, 11]


def test_padding_of_trajectories_is_not_read(tmp_path):
    step = np.arange(12).reshape(2, 6, 1)
    mask = np.arange(6) < np.array([[6], [2]])
    path = library.write_tensors(
        tmp_path / "data",
        {
            "observation": step.astype(np.float32),
            "action": np.zeros((2, 6, 2), np.float32),
            "next/observation": step.astype(np.float32) + 1,
            "next/reward": step.astype(np.float32),
            "next/terminated": step == 7,
            "collector/mask": mask,
        },
        batch=2,
    )
    found = episodes(path)
    assert [episode.rewards.tolist() for episode in found] == [[0, 1, 2, 3, 4, 5], [6, 7]]
    assert [episode.terminated for episode in found] == [False, True]


def edit(path, change):
    meta = json.loads(path.read_text())
    change(meta)
    path.write_text(json.dumps(meta))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["action"].update(shape=[13, 4]), "action.memmap has 156 bytes.*says 208"),
        (lambda m: m["action"].update(shape=[3, 13]), r"have not all the shape \(13,\)"),
        (lambda m: m["action"].update(shape="x"), "'x' is no shape"),
        (lambda m: m.update(shape=None), "'None' is no shape"),
        (
            lambda m: m.update({"../action": m["action"]}),
            "names '../action', which is not in its folder",
        ),
        (lambda m: m["action"].update(dtype="torch.bfloat16"), "no actions"),
    ],
)
def test_inconsistent_metadata_are_refused(tmp_path, change, message):
    path = library.write_torchrl(tmp_path / "data")
    edit(path / "meta.json", change)
    with pytest.raises(DatasetError, match=message):
        open_source(path)


def test_missing_and_damaged_files_are_named(tmp_path):
    path = library.write_torchrl(tmp_path / "data")
    file = path / "next" / "reward.memmap"
    whole = file.read_bytes()
    file.write_bytes(whole[:-4])
    with pytest.raises(DatasetError, match=r"reward\.memmap has 48 bytes, but meta\.json says 52"):
        open_source(path)
    file.unlink()
    with pytest.raises(DatasetError, match=r"reward\.memmap is missing"):
        open_source(path)
    (path / "meta.json").write_text("{")
    with pytest.raises(DatasetError, match=r"meta\.json: missing or damaged"):
        open_source(path)
