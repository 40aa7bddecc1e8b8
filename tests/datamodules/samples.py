"""Small files of every format, written as their own libraries do."""

from __future__ import annotations

import pickle
import warnings
from pathlib import Path

import h5py
import minari
import numpy as np
from gymnasium import spaces
from minari.data_collector.episode_buffer import EpisodeBuffer

from datamodules.minari_writer import keeps_pixels
from datamodules.variables import environment_variable

LENGTHS = (4, 6, 3)
NUMBERS = {"D": 11, "A": 3}  # Hopper's


def columns(length, number, observations=11, actions=3):
    """Returns an episode whose observations are its number and the step."""
    rng = np.random.default_rng(number)
    seen = rng.standard_normal((length + 1, observations)).astype(np.float32)
    seen[:, 0], seen[:, 1] = number, np.arange(length + 1)
    return {
        "observations": seen[:-1],
        "next_observations": seen[1:],
        "actions": rng.uniform(-1, 1, (length, actions)).astype(np.float32),
        "rewards": rng.standard_normal(length).astype(np.float32),
        "terminals": np.arange(length) == (length - 1 if number % 2 == 0 else length),
    }


def write_d4rl(path, lengths=LENGTHS, unfinished=2, **changes):
    """Writes D4RL's format: even episodes are terminated, odd ones truncated, the last unended."""
    parts = [columns(length, number) for number, length in enumerate((*lengths, unfinished))]
    parts[-1]["terminals"][:] = False
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    arrays["timeouts"] = np.zeros(len(arrays["actions"]), bool)
    for number, end in enumerate(np.cumsum(lengths)):
        arrays["timeouts"][end - 1] = number % 2 == 1
    arrays |= changes
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            if array is not None:
                file.create_dataset(key, data=array, compression="gzip")
        file.create_dataset("metadata/algorithm", data=np.bytes_("SAC"))
        file.create_dataset("infos/action_log_probs", data=np.zeros(4))
    return path


def write_groups(path, lengths=LENGTHS):
    """Writes an HDF5 group for each episode; the tenth comes after the ninth."""
    with h5py.File(path, "w") as file:
        for number, length in enumerate(lengths):
            for key, array in columns(length, number).items():
                file[f"data/episode_{number + 8}/{key}"] = array
    return path


def write_trajectories(path, lengths=LENGTHS, protocol=4, change=None):
    episodes = [columns(length, number) for number, length in enumerate(lengths)]
    if change is not None:
        change(episodes)
    path.write_bytes(pickle.dumps(episodes, protocol))
    return path


def write_tmaze(path, lengths=LENGTHS, change=None):
    """Writes the RATE code's pickle: one observation and return-to-go more than actions."""
    episodes = {}
    for number, length in enumerate(lengths):
        observations = np.zeros((length + 1, 4))
        observations[0, 1] = 1
        episodes[number] = {
            "obs": observations,
            "action": np.zeros(length),
            "rtg": np.append(np.ones(length), 0.0),
            "done": np.arange(length) == length - 1,
        }
        episodes[number]["action"] = episodes[number]["action"].astype(np.int64)
    if change is not None:
        change(episodes)
    path.write_bytes(pickle.dumps(episodes))
    return path


def write_rate_npz(folder, lengths=LENGTHS, shape=(3, 64, 112), scale=1, change=None):
    """Writes the RATE code's folder: a compressed file for each episode."""
    folder.mkdir(exist_ok=True)
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        frames = rng.integers(0, 256, (length, *shape), dtype=np.uint8)
        data = {
            "obs": frames if scale == 1 else (frames / scale).astype(np.float32),
            "action": np.arange(length) % 3,
            "reward": np.arange(length),
            "done": np.arange(length) == length - 1,
            "is_red": np.array(True),
        }
        if change is not None:
            change(number, data)
        np.savez_compressed(folder / f"train_data_{number}.npz", **data)
    return folder


def write_memory_maze(folder, lengths=LENGTHS):
    def change(number, data):
        data["action"] = np.eye(6)[data["action"]]
        del data["is_red"]

    return write_rate_npz(folder, lengths, (64, 64, 3), change=change)


NESTED = spaces.Dict(
    {
        "image": spaces.Box(0, 255, (40, 40, 3), np.uint8),
        "goal": spaces.Dict({"position": spaces.Box(-1, 1, (2,), np.float64)}),
        "choices": spaces.Tuple((spaces.Discrete(3), spaces.MultiBinary(2))),
        "mission": spaces.Text(20),
    }
)


def nested(length, number):
    rng = np.random.default_rng(number)
    rows = length + 1
    return {
        "image": rng.integers(0, 256, (rows, 40, 40, 3), dtype=np.uint8),
        "goal": {"position": rng.uniform(-1, 1, (rows, 2))},
        "choices": (rng.integers(0, 3, rows), rng.integers(0, 2, (rows, 2), dtype=np.int8)),
        "mission": ["go"] * rows,
    }


def write_minari(root, name="nested-v0", form="hdf5", space=NESTED, actions=None, make=nested):
    """Writes a data set with Minari itself; returns its folder."""
    actions = actions or spaces.Discrete(4)
    buffers = [
        EpisodeBuffer(
            id=None,
            seed=number,
            observations=make(length, number),
            actions=np.array([actions.sample() for _ in range(length)]),
            rewards=np.arange(length, dtype=np.float64),
            terminations=np.arange(length) == (length - 1 if number % 2 == 0 else length),
            truncations=np.arange(length) == (length - 1 if number % 2 == 1 else length),
        )
        for number, length in enumerate(LENGTHS)
    ]
    options = {"jpeg_encoding": False} if keeps_pixels() else {}
    with environment_variable("MINARI_DATASETS_PATH", str(root)), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        minari.create_dataset_from_buffers(
            name,
            buffers,
            observation_space=space,
            action_space=actions,
            data_format=form,
            **options,
        )
    return Path(root) / name
