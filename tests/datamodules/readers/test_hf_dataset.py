"""Data sets of Hugging Face's `save_to_disk`, and Parquet and Arrow files."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.samples import LENGTHS, columns


def episodes(path, **options):
    return list(ValidEpisodes(open_source(path, Options(**options))))


@pytest.mark.parametrize("flat", [False, True])
def test_a_row_is_an_episode_or_a_step(tmp_path, flat):
    source = open_source(library.write_hf_dataset(tmp_path / "data", flat=flat))
    assert (source.format, source.num_episodes, source.num_steps) == ("huggingface", 3, 13)
    assert source.spec.action_space == spaces.Box(-1, 1, (3,), np.float32)
    for start in range(4):
        for number, episode in enumerate(source.read(start, pytest.fail), start=start):
            wanted = columns(LENGTHS[number], number)
            for ours in ("observations", "actions", "rewards"):
                np.testing.assert_array_equal(getattr(episode, ours), wanted[ours])
            assert episode.terminated == (number % 2 == 0) != episode.truncated


def check_values(source):
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for ours in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, ours), wanted[ours])
        assert episode.terminated == (number % 2 == 0) != episode.truncated
    assert number == len(LENGTHS) - 1


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("form", ["parquet", "file", "stream"])
def test_single_files_and_folders_of_files(tmp_path, flat, form):
    rows = library.table_rows(flat=flat)
    (tmp_path / "data").mkdir()
    for part, chosen in enumerate((rows[:2], rows[2:])):
        table = pa.Table.from_pylist(chosen)
        path = tmp_path / "data" / f"part-{part}.{'parquet' if form == 'parquet' else 'arrow'}"
        if form == "parquet":
            pq.write_table(table, path, row_group_size=2)
            continue
        make = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
        with make(str(path), table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    check_values(open_source(tmp_path / "data"))
    source = open_source(tmp_path / "data" / path.name)
    assert (source.format, source.num_steps) == ("table", 11 if flat else 3)


def test_a_repository_has_splits_in_its_folder_data(tmp_path):
    (tmp_path / "data").mkdir()
    rows = library.table_rows()
    for name, part in (("train-00001-of-00002", rows[1:]), ("train-00000-of-00002", rows[:1])):
        pq.write_table(pa.Table.from_pylist(part), tmp_path / "data" / f"{name}.parquet")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "data" / "copy.arrow").write_bytes(b"")
    source = open_source(tmp_path)
    check_values(source)
    assert "only the split train is read; test are left out" in source.notes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rewards": 1.5}, r"b\.parquet: the columns are not those of a\.parquet: rewards are"),
        ({"more": 1.5}, r"b\.parquet: .* more are missing in one"),
        (
            {"observations": [0] * 5},
            r"observations, from row 0: the rows have from 2 to 5 numbers",
        ),
    ],
)
def test_files_of_unlike_columns_are_refused(tmp_path, changed, message):
    rows = [{"observations": [0, 1], "actions": [0.5], "rewards": 1, "dones": True}] * 4
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    rows = [{**row, **changed} for row in rows]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet")
    with pytest.raises(DatasetError, match=message):
        episodes(tmp_path)


def test_options_map_columns(tmp_path):
    rows = [
        {"s": [0.5, 1.0], "a": 1, "r": 0.5, "end": step % 3 == 2, "t": "x"} for step in range(6)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet")
    with pytest.raises(DatasetError, match=r"no observations.*it has .*--map THEIRS=observations"):
        open_source(tmp_path / "x.parquet")
    pairs = (("s", "observations"), ("a", "actions"), ("end", "dones"), ("t", "none"))
    found = episodes(tmp_path / "x.parquet", columns=pairs)
    assert [len(episode) for episode in found] == [3, 3]
    assert found[0].rewards.tolist() == [0.5] * 3


def save(folder, rows, schema=None, files=1):
    folder.mkdir()
    table = pa.Table.from_pylist(rows, schema)
    with pa.ipc.new_stream(str(folder / "data.arrow"), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": "data.arrow"}] * files}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_images_and_texts(tmp_path):
    frames = [
        {"bytes": library.png_bytes(library.picture(0, step)), "path": None} for step in range(4)
    ]
    row = {"observations": frames, "actions": [0, 1, 2, 1], "rewards": [0.0, 0.0, 0.0, 1.0]}
    path = save(tmp_path / "data", [{**row, "dones": [False] * 3 + [True], "env_name": "x"}] * 2)
    source = open_source(path)
    assert source.spec.action_space == spaces.Discrete(3)
    assert "not numbers, and left out: env_name" in source.notes
    for episode in ValidEpisodes(source):
        for step in range(4):
            np.testing.assert_array_equal(episode.observations[step], library.picture(0, step))

    rows = [
        {"image": frame, "action": step % 2, "reward": 1.0, "done": step % 2 == 1}
        for step, frame in enumerate(frames)
    ]
    found = episodes(save(tmp_path / "flat", rows))
    assert [len(episode) for episode in found] == [2, 2]
    np.testing.assert_array_equal(found[1].observations[1], library.picture(0, 3))


def test_a_folder_of_splits_gives_train(tmp_path):
    for split in ("test", "train"):
        library.write_hf_dataset(tmp_path / split, (4, 6, 3) if split == "train" else (2, 2))
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["test", "train"]}))
    source = open_source(tmp_path)
    assert [len(episode) for episode in ValidEpisodes(source)] == [4, 6, 3]
    assert "only the split train is read; test are left out" in source.notes
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["../train"]}))
    with pytest.raises(DatasetError, match=r"names '\.\./train', which is not in its folder"):
        open_source(tmp_path)


def test_a_row_of_unlike_lengths_is_named(tmp_path):
    row = {"observations": [[0.0, 1.0], [2.0, 3.0]], "actions": [0, 1], "rewards": [0.0, 1.0]}
    rows = [row, {**row, "observations": [[0.0], [1.0, 2.0]]}, {**row, "rewards": [0.0, None]}]
    bad = []
    path = save(tmp_path / "data", [*rows, row])
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [2, 2]
    assert "episode 1: observations: the rows have from 1 to 2 numbers" in str(bad[0])
    assert "episode 2: rewards: 1 of 2 values are missing" in str(bad[1])


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"_data_files": [{"filename": "../x.arrow"}]}, r"names '\.\./x\.arrow', which is not in"),
        ({"_data_files": [{"filename": "/etc/passwd"}]}, "names '/etc/passwd', which is not in"),
        ({"_data_files": [{"filename": "x.arrow"}]}, "there is no x.arrow"),
        ({"_data_files": []}, "there is no data file"),
        ({}, "damaged"),
        ({"_indices_files": [{"filename": "i.arrow"}]}, r"flatten_indices\(\)"),
    ],
)
def test_files_outside_the_folder_or_missing_are_refused(tmp_path, state, message):
    (tmp_path / "x.arrow").write_bytes(b"")
    path = library.write_hf_dataset(tmp_path / "data")
    (path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DatasetError, match=message):
        open_source(path)


@pytest.mark.parametrize("keep", [0, 4, 500, 0.9])
def test_truncated_files_are_named(tmp_path, keep):
    path = library.write_hf_dataset(tmp_path / "data")
    file = path / "data-00001-of-00002.arrow"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(keep * len(whole)) if keep == 0.9 else keep])
    with pytest.raises(
        DatasetError, match=r"data-00001-of-00002\.arrow: (damaged or truncated|an empty)"
    ):
        episodes(path)


def test_offsets_that_lead_out_of_a_file_are_refused(tmp_path):
    """pyarrow would follow them, and the process would crash."""
    path = library.write_hf_dataset(tmp_path / "data")
    file = path / "data-00001-of-00002.arrow"
    whole = file.read_bytes()
    offsets = np.array([0, 3], np.int32).tobytes()  # of the episode of 3 steps
    assert offsets in whole
    for length in (63, 1 << 30, -1):
        changed = np.array([0, length], np.int32).tobytes()
        file.unlink()
        file.write_bytes(whole.replace(offsets, changed))
        with pytest.raises(DatasetError, match="damaged or truncated"):
            episodes(path)
