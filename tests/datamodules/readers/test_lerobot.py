"""LeRobot data sets of the versions 2 and 3."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.options import Options
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.samples import LENGTHS, columns

WRITERS = {"v2.1": library.write_lerobot_2, "v3.0": library.write_lerobot_3}
versions = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def episodes(path, **options):
    return list(ValidEpisodes(open_source(path, Options(**options))))


@versions
def test_rows_are_steps(tmp_path, write):
    source = open_source(write(tmp_path / "data"))
    assert (source.format, source.num_episodes, source.num_steps) == ("lerobot", 3, sum(LENGTHS))
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        for ours in ("observations", "actions", "rewards"):
            np.testing.assert_array_equal(getattr(episode, ours), wanted[ours])
        assert episode.terminated == (number % 2 == 0) != episode.truncated


@versions
def test_images_in_the_rows_are_decoded(tmp_path, write):
    for number, episode in enumerate(episodes(write(tmp_path / "data", pictures=True))):
        seen = episode.observations["observation.images.hand"]
        for step in range(len(episode)):
            np.testing.assert_array_equal(seen[step], library.picture(number, step))


@versions
def test_images_whose_shape_begins_with_the_channels(tmp_path, write):
    def change(info):
        info["features"]["observation.images.hand"]["shape"] = [3, 8, 6]

    found = episodes(write(tmp_path / "data", pictures=True, change=change))
    seen = found[0].observations["observation.images.hand"]
    np.testing.assert_array_equal(seen[1], library.picture(0, 1))


@versions
def test_the_split_train_is_read(tmp_path, write):
    def change(info):
        info["splits"] = {"train": "1:3", "val": "0:1"}

    source = open_source(write(tmp_path / "data", change=change))
    assert [len(item) for item in ValidEpisodes(source)] == list(LENGTHS[1:])
    assert "only the split train is read; val are left out" in source.notes
    for number, split in enumerate(("x", "2:9")):
        path = write(
            tmp_path / str(number),
            change=lambda info, split=split: info.update(splits={"train": split, "val": "0:1"}),
        )
        with pytest.raises(DatasetError, match="not the description of a LeRobot data set"):
            open_source(path)


@versions
def test_missing_rewards_and_ends_are_notes(tmp_path, write):
    def change(info):
        for name in ("next.reward", "next.done"):
            del info["features"][name]
        info["features"]["language"] = {"dtype": "string", "shape": [1]}
        info["features"]["observation.text"] = {"dtype": "string", "shape": [1]}
        info["total_tasks"] = 3

    path = write(tmp_path / "data", change=change)
    with pytest.raises(DatasetError, match=r"no rewards.*--zero-rewards"):
        open_source(path)
    source = open_source(path, Options(zero_rewards=True))
    notes = " ".join(source.notes)
    for word in ("all are taken as truncated", "texts are left out: observation.text", "3 tasks"):
        assert word in notes
    assert "not read: language" in notes
    assert all(episode.truncated and not episode.terminated for episode in ValidEpisodes(source))


@versions
def test_options_map_columns(tmp_path, write):
    path = write(tmp_path / "data", pictures=True)
    source = open_source(path, Options(columns=(("observation.images.hand", "none"),)))
    assert source.spec.observation_space.shape == (11,)
    pairs = (("observation.state", "observations"), ("task_index", "observations"))
    source = open_source(path, Options(columns=pairs))
    assert sorted(source.spec.observation_space.spaces) == ["observation.state", "task_index"]
    with pytest.raises(DatasetError, match=r"there is no column 'x'; it has observation\.state"):
        open_source(path, Options(columns=(("x", "rewards"),)))


@versions
def test_a_partly_downloaded_data_set_is_read_with_a_note(tmp_path, write):
    path = write(tmp_path / "data")
    name = "chunk-000/episode_000001" if write is library.write_lerobot_2 else "chunk-000/file-000"
    (path / "data" / f"{name}.parquet").unlink()
    source = open_source(path)
    left = [4, 3] if write is library.write_lerobot_2 else [3]
    assert [len(item) for item in ValidEpisodes(source)] == left
    assert source.num_episodes == len(left)
    notes = [note for note in source.notes if "are missing" in note]
    assert notes == [
        f"only {len(left)} of the data set's 3 episodes are here: 1 files are missing, "
        f"data/{name}.parquet among them"
    ]
    assert all(file.is_file() for file in source.files)
    for file in (path / "data").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(DatasetError, match=r"parquet is missing"):
        open_source(path)


@versions
def test_a_truncated_file_is_named(tmp_path, write):
    path = write(tmp_path / "data")
    file = sorted((path / "data").rglob("*.parquet"))[-1]
    file.write_bytes(file.read_bytes()[:-20])
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 6]
    assert f"{file}: damaged or truncated" in str(bad[0])


@versions
def test_rows_that_disagree_with_the_metadata_are_named(tmp_path, write):
    path = write(tmp_path / "data")
    for file in (path / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.slice(0, len(table) - 1), file)
    with pytest.raises(DatasetError, match=r"fewer rows than the [46] of episode [01]"):
        episodes(path)
    for file in (path / "data").rglob("*.parquet"):
        table = pq.read_table(file)
        first = table.column("episode_index").to_pylist()[0]
        changed = table.set_column(
            table.column_names.index("episode_index"), "episode_index", [[first + 5] * len(table)]
        )
        pq.write_table(changed, file)
    with pytest.raises(DatasetError, match=r"not of one data set|fewer rows"):
        open_source(path)


def raise_error(error):
    raise error


def test_more_rows_than_the_metadata_say_are_named(tmp_path):
    path = library.write_lerobot_2(tmp_path / "data")
    pq.write_table(
        library.lerobot_rows(7, 1, 4), path / "data" / "chunk-000" / "episode_000001.parquet"
    )
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    assert "the rows of episode 1 are not the 6 that the metadata say" in str(bad[0])


@versions
@pytest.mark.parametrize(
    "template",
    [
        "../{episode_index}{file_index}.parquet",
        "/etc/{episode_index}",
        "data/../../x.parquet",
        "..\\x.parquet",
        "{episode_index.__class__}",
        "{episode_index:999999999d}",
    ],
)
def test_paths_that_leave_the_folder_are_not_opened(tmp_path, write, template):
    path = write(tmp_path / "data", change=lambda info: info.update(data_path=template))
    with pytest.raises(DatasetError, match=r"not inside of the data set's folder|not the descrip"):
        open_source(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda info: info.update(codebase_version="v1.6"), "the version v1.6 .* is not read"),
        (lambda info: info.pop("features"), "not the description of a LeRobot data set"),
        (lambda info: info.update(fps=0), "no steps in a second"),
        (lambda info: info.update(features=[1]), "not the description of a LeRobot data set"),
    ],
)
def test_damaged_metadata_are_named(tmp_path, change, message):
    path = library.write_lerobot_3(tmp_path / "data", change=change)
    with pytest.raises(DatasetError, match=message):
        open_source(path)


def test_missing_metadata_are_named(tmp_path):
    path = library.write_lerobot_2(tmp_path / "two")
    (path / "meta" / "episodes.jsonl").write_text('{"episode_index": 0}')
    with pytest.raises(DatasetError, match=r"episodes\.jsonl, line 1: damaged"):
        open_source(path)
    (path / "meta" / "episodes.jsonl").unlink()
    with pytest.raises(DatasetError, match=r"episodes\.jsonl is missing"):
        open_source(path)
    path = library.write_lerobot_3(tmp_path / "three")
    file = path / "meta/episodes/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(file).drop_columns(["length"]), file)
    with pytest.raises(DatasetError, match="there is no column length; it has episode_index"):
        open_source(path)
    file.unlink()
    with pytest.raises(DatasetError, match=r"there is no meta/episodes"):
        open_source(path)


def test_options_override_the_environment(tmp_path):
    source = open_source(library.write_lerobot_3(tmp_path / "data"))
    spec = replace(source.spec, name="robot")
    assert open_source(source.path, Options(spec=spec)).spec.name == "robot"
