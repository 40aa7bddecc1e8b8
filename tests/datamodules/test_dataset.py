"""Data of users are converted to a store once."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from minari import MinariDataset

from datamodules.dataset import Dataset
from datamodules.episodes import DatasetError
from datamodules.options import Options
from rate.envs.spec import EnvironmentSpec
from tests.datamodules import samples

LENGTHS = (4, 3, 5)


def episodes(lengths: tuple[int, ...] = LENGTHS) -> list[dict[str, Any]]:
    chance = np.random.default_rng(0)
    return [
        {
            "observations": chance.normal(size=(steps, 2)).astype(np.float32),
            "actions": chance.integers(3, size=steps),
            "rewards": np.arange(steps, dtype=np.float32),
            "terminated": np.arange(steps) == steps - 1,
            "truncated": np.zeros(steps, bool),
        }
        for steps in lengths
    ]


def flat() -> dict[str, Any]:
    parts = episodes()
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def columns() -> dict[str, Any]:
    parts = episodes()
    return {name: [part[name] for part in parts] for name in parts[0]}


def by_name() -> dict[str, Any]:
    return {f"episode_{number}": part for number, part in enumerate(episodes())}


def arrow_table() -> Any:
    return pytest.importorskip("pyarrow").table(
        {name: [part.tolist() for part in column] for name, column in columns().items()}
    )


def arrow_table_of_steps() -> Any:
    return pytest.importorskip("pyarrow").table({n: c.tolist() for n, c in flat().items()})


def data_frame() -> Any:
    return pytest.importorskip("pandas").DataFrame(columns())


def data_frame_of_steps() -> Any:
    return pytest.importorskip("pandas").DataFrame({n: list(c) for n, c in flat().items()})


def hugging_face() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(columns())


def hugging_face_of_steps() -> Any:
    return pytest.importorskip("datasets").Dataset.from_dict(flat())


TABLES = [
    *(arrow_table, arrow_table_of_steps, data_frame, data_frame_of_steps),
    *(hugging_face, hugging_face_of_steps),
]


@pytest.mark.parametrize("form", [episodes, flat, columns, by_name, *TABLES])
def test_arrays_of_every_form_give_the_same_episodes(form: Any, tmp_path: Path) -> None:
    store = Dataset.from_arrays(form(), tmp_path).store
    assert store.lengths.tolist() == list(LENGTHS)
    np.testing.assert_array_equal(store.arrays["actions"], flat()["actions"])
    np.testing.assert_array_equal(store.observations, flat()["observations"])
    np.testing.assert_array_equal(store.arrays["rewards"], flat()["rewards"])
    assert store.arrays["terminated"].all()
    assert store.spec.action_space == spaces.Discrete(3)


def test_an_open_minari_data_set_keeps_its_filter(
    tmp_path: Path,
) -> None:
    folder = samples.write_minari(tmp_path)
    data = MinariDataset(folder / "data")
    whole = Dataset.from_arrays(data, tmp_path).store
    assert whole.lengths.tolist() == list(samples.LENGTHS)
    part = Dataset.from_arrays(data.filter_episodes(lambda each: each.id > 0), tmp_path).store
    assert part.lengths.tolist() == list(samples.LENGTHS[1:])
    assert part.spec == whole.spec
    rest = whole.arrays["actions"][samples.LENGTHS[0] :]
    np.testing.assert_array_equal(part.arrays["actions"], rest)


def test_one_of_several_splits_must_be_chosen(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    splits = datasets.DatasetDict({"train": datasets.Dataset.from_dict(columns())})
    with pytest.raises(DatasetError, match="give one of them, as data"):
        Dataset.from_arrays(splits, tmp_path)


def test_equal_arrays_are_packed_once_and_others_beside_them(tmp_path: Path) -> None:
    first = Dataset.from_arrays(episodes(), tmp_path)
    made = (first.path / "manifest.json").stat().st_mtime_ns
    assert Dataset.from_arrays(episodes(), tmp_path).path == first.path
    assert (first.path / "manifest.json").stat().st_mtime_ns == made
    changed = episodes()
    changed[1]["rewards"][0] = 9
    assert Dataset.from_arrays(changed, tmp_path).path != first.path
    ended = episodes()
    ended[0]["terminated"][:] = False
    ended[0]["truncated"] = np.arange(4) == 3
    assert Dataset.from_arrays(ended, tmp_path).path != first.path


def test_dictionaries_of_observations_keep_their_parts(tmp_path: Path) -> None:
    parts = episodes()
    for part in parts:
        part["observations"] = {"a": part["observations"], "b": part["observations"][:, 0] > 0}
    spec = Dataset.from_arrays(parts, tmp_path).spec
    assert isinstance(spec.observation_space, spaces.Dict)
    assert set(spec.observation_space) == {"a", "b"}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({}, "actions"),
        ([], "give a dictionary of columns, or a list"),
        (3, "int is no data"),
        ({"observations": np.zeros((3, 2)), "rewards": np.zeros(3)}, "actions"),
        ([{"observations": np.zeros((3, 2)), "actions": np.zeros(4, int)}], "3"),
        ([{**episodes()[0], "rewards": np.full(4, np.nan)}], "not finite"),
    ],
)
def test_invalid_arrays_are_refused(arrays: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        Dataset.from_arrays(arrays, tmp_path)
    assert not list(tmp_path.glob("stores/*"))


def test_options_complete_arrays(tmp_path: Path) -> None:
    alone = {"o": flat()["observations"], "u": flat()["actions"], "done": flat()["terminated"]}
    options = Options(columns=(("o", "observations"), ("u", "actions")), zero_rewards=True)
    store = Dataset.from_arrays(alone, tmp_path, options).store
    assert store.lengths.tolist() == list(LENGTHS)
    assert not store.arrays["rewards"].any()


def test_the_environment_completes_the_spaces_of_data(tmp_path: Path) -> None:
    """Three of its four actions are in the data, and its observations have bounds."""
    box = spaces.Box(-10, 10, (2,), np.float32)
    spec = EnvironmentSpec("mine", box, spaces.Discrete(4), 1.0)
    assert Dataset.from_arrays(episodes(), tmp_path, spec=spec).spec.action_space == (
        spaces.Discrete(3)  # unchanged: Discrete(4) contains it
    )
    vectors = [{**part, "actions": np.full((len(part["actions"]), 1), 5.0)} for part in episodes()]
    bounded = EnvironmentSpec("mine", box, spaces.Box(-1, 1, (1,), np.float32), 1.0)
    with pytest.warns(UserWarning, match="clipped"):
        store = Dataset.from_arrays(vectors, tmp_path, spec=bounded).store
    assert (store.arrays["actions"] == 1).all()


def test_a_file_is_converted_once_until_it_changes(tmp_path: Path) -> None:
    file = samples.write_d4rl(tmp_path / "mine.hdf5", lengths=(6, 4))
    root = tmp_path / "root"
    first = Dataset.open(file, root)
    assert first.store.lengths.tolist() == [6, 4]
    assert first.path.parent == root / "stores"
    assert first.path.name.startswith("mine.hdf5-")
    assert Dataset.open(str(file), root).path == first.path
    assert Dataset.open(file, root, Options(keep_actions=True)).path != first.path
    os.utime(file, ns=(1, 1))
    assert Dataset.open(file, root).path != first.path


def test_a_store_is_opened_without_conversion(tmp_path: Path) -> None:
    made = Dataset.from_arrays(episodes(), tmp_path)
    assert Dataset.open(made.path, tmp_path / "other") == made
    assert not (tmp_path / "other").exists()


def test_public_data_are_found_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    (tmp_path / "d4rl").mkdir()
    samples.write_d4rl(tmp_path / "d4rl" / "hopper_medium-v2.hdf5", lengths=(5,))
    assert Dataset.open("hopper-medium-v2", tmp_path).store.num_steps == 5
    with pytest.raises(DatasetError, match=r"download.* hopper-expert-v2"):
        Dataset.open("hopper-expert-v2", tmp_path)
    with pytest.raises(DatasetError, match=r"download.* mujoco/hopper/medium-v0"):
        Dataset.open("mujoco/hopper/medium-v0", tmp_path)
    with pytest.raises(DatasetError, match=r"nothing\.npz: there is no such file.*public data set"):
        Dataset.open("nothing.npz", tmp_path)


def test_invalid_episodes_are_an_error_or_skipped(tmp_path: Path) -> None:
    file = tmp_path / "episodes.npz"
    columns = flat()
    columns["rewards"] = columns["rewards"].copy()
    columns["rewards"][5] = np.nan
    np.savez(file, **columns)
    with pytest.raises(DatasetError, match="not finite"):
        Dataset.open(file, tmp_path)
    with pytest.warns(UserWarning, match=r"1 episodes are not valid and left out.*not finite"):
        made = Dataset.open(file, tmp_path, skip_bad=True)
    assert made.store.lengths.tolist() == [4, 5]


def test_unsupported_spaces_are_refused_before_conversion(tmp_path: Path) -> None:
    arrays = {**flat(), "actions": np.arange(12) * 10_000}
    with pytest.raises(DatasetError, match="cannot be trained on"):
        Dataset.from_arrays(arrays, tmp_path)
    assert not list(tmp_path.glob("stores/*"))
