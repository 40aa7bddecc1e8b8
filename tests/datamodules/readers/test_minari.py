from __future__ import annotations

import os
import subprocess
import sys
import weakref
from pathlib import Path

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector.episode_buffer import EpisodeBuffer

from datamodules import DatasetError, Episode, write_store
from datamodules.minari_writer import keeps_pixels, write_minari
from datamodules.readers.minari import minari_provenance, open_minari, read_minari
from rate.envs.spec import EnvironmentSpec

OBSERVATIONS = spaces.Dict(
    {
        "rgb": spaces.Box(0, 255, (40, 40, 3), np.uint8),
        "joints": spaces.Box(-1, 1, (3,), np.float32),
    }
)
ACTIONS = spaces.Box(-1, 1, (2,), np.float32)


class Camera(gymnasium.Env):
    """An environment that is never played; Minari only reads its spaces."""

    observation_space = OBSERVATIONS
    action_space = ACTIONS


@pytest.fixture
def camera():
    gymnasium.register("Test/Camera-v0", f"{__name__}:Camera")
    yield gymnasium.make("Test/Camera-v0", disable_env_checker=True)
    del gymnasium.registry["Test/Camera-v0"]


def record(steps, seed, truncated):
    rng = np.random.default_rng(seed)
    observations = {
        "rgb": rng.integers(0, 256, (steps + 1, 40, 40, 3), dtype=np.uint8),
        "joints": rng.uniform(-1, 1, (steps + 1, 3)).astype(np.float32),
    }
    return Episode(
        {key: array[:-1] for key, array in observations.items()},
        rng.uniform(-1, 1, (steps, 2)).astype(np.float32),
        rng.standard_normal(steps).astype(np.float32),
        terminated=not truncated,
        truncated=truncated,
        seed=seed,
        last_observation={key: array[-1] for key, array in observations.items()},
    )


LOSSLESS = keeps_pixels()


def test_a_minari_that_changes_pixels_is_refused(tmp_path, camera, monkeypatch):
    monkeypatch.setattr("datamodules.minari_writer.keeps_pixels", lambda: False)
    with pytest.raises(DatasetError, match="stores pixels as JPEG only"):
        write_minari([record(4, 11, False)], tmp_path, "camera/a-v0", camera, "random", "A test.")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not LOSSLESS, reason="this Minari changes pixels, and is refused")
def test_round_trip_is_exact_even_for_pixels(tmp_path, camera):
    episodes = [record(4, 11, False), record(6, 12, True)]
    root = tmp_path / "minari"
    before = os.environ.get("MINARI_DATASETS_PATH")
    path = write_minari(episodes, root, "camera/random-v0", camera, "random", "A test.")
    assert os.environ.get("MINARI_DATASETS_PATH") == before
    assert path == root / "camera/random-v0"
    assert not list(root.glob(".*"))
    dataset = open_minari(path)
    for found, wanted in zip(read_minari(dataset), episodes, strict=True):
        for key, array in wanted.observations.items():
            np.testing.assert_array_equal(found.observations[key], array)
            assert found.observations[key].dtype == array.dtype
        np.testing.assert_array_equal(found.actions, wanted.actions)
        np.testing.assert_array_equal(found.rewards, wanted.rewards)
        assert (found.terminated, found.truncated) == (wanted.terminated, wanted.truncated)
        assert found.seed == wanted.seed
    spec = EnvironmentSpec("camera", OBSERVATIONS, ACTIONS, 1.0)
    store = write_store(read_minari(dataset), tmp_path / "store", spec, {})
    assert store.lengths.tolist() == [4, 6]


@pytest.mark.skipif(not LOSSLESS, reason="this Minari changes pixels, and is refused")
def test_minari_lists_and_opens_written_data_sets(tmp_path, camera, monkeypatch):
    for name in ("camera/one-v0", "camera/two-v0"):
        write_minari([record(3, 1, True)], tmp_path, name, camera, "random", "A test.")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    assert sorted(minari.list_local_datasets()) == ["camera/one-v0", "camera/two-v0"]
    dataset = minari.load_dataset("camera/one-v0")
    assert dataset.total_episodes == 1
    assert len(dataset[0].observations["joints"]) == 4
    assert (
        dataset.recover_environment(disable_env_checker=True).unwrapped.__class__.__name__
        == "Camera"
    )


def test_a_data_set_of_another_library_is_read(tmp_path, monkeypatch):
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    buffer = EpisodeBuffer(
        observations=[np.full(2, step, np.float32) for step in range(4)],
        actions=[0, 1, 0],
        rewards=[0, 0, 1],
        terminations=[False, False, True],
        truncations=[False] * 3,
    )
    with pytest.warns(UserWarning, match="author"):
        dataset = minari.create_dataset_from_buffers(
            "other/data-v0",
            [buffer],
            observation_space=spaces.Box(0, 9, (2,), np.float32),
            action_space=spaces.Discrete(2),
            data_format="hdf5",
        )
    (episode,) = read_minari(dataset)
    assert episode.observations[:, 0].tolist() == [0, 1, 2]
    assert episode.actions.tolist() == [0, 1, 0]
    assert episode.terminated
    assert episode.seed is None


@pytest.mark.skipif(not LOSSLESS, reason="this Minari changes pixels, and is refused")
def test_other_folders_are_refused(tmp_path, camera):
    with pytest.raises(DatasetError, match="absent: not a Minari data set"):
        open_minari(tmp_path / "absent")
    path = write_minari([record(3, 1, True)], tmp_path, "camera/x-v0", camera, "random", "A test.")
    file = path / "data" / "main_data.hdf5"
    dataset = open_minari(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"camera/x-v0, episode 0: cannot be read"):
        list(read_minari(dataset))


@pytest.mark.skipif(not LOSSLESS, reason="this Minari changes pixels, and is refused")
def test_episodes_are_written_one_at_a_time(tmp_path, camera):
    alive = []

    def play():
        for number in range(20):
            episode = record(5, number, True)
            alive.append(weakref.ref(episode))
            # The writer may still hold the episode before this one.
            assert sum(reference() is not None for reference in alive) <= 2
            yield episode

    path = write_minari(play(), tmp_path, "camera/s-v0", camera, "random", "A test.", {"made": 1})
    dataset = open_minari(path)
    assert dataset.total_episodes == 20
    assert dataset.total_steps == 100
    assert minari_provenance(dataset) == {"made": 1}


@pytest.mark.skipif(not LOSSLESS, reason="this Minari changes pixels, and is refused")
def test_no_data_set_is_left_if_an_episode_fails(tmp_path, camera):
    def play():
        yield record(3, 1, True)
        raise DatasetError("broken")

    with pytest.raises(DatasetError, match="broken"):
        write_minari(play(), tmp_path, "camera/f-v0", camera, "random", "A test.")
    assert not list(tmp_path.iterdir())


def test_importing_the_packages_does_not_import_minari_or_torch():
    code = (
        "import sys, datamodules, datamodules.tmaze, datamodules.readers.minari;"
        "print([name for name in ('minari', 'torch', 'lightning') if name in sys.modules])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=Path.cwd()
    )
    assert output.stdout.strip() == "[]"
