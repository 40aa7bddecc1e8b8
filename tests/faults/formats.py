"""Small files of every format that is read, how they are changed, and how they are read."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from datamodules.formats import open_source
from datamodules.store_files import MANIFEST
from datamodules.tmaze import generate_tmaze
from rate.files import file_sha256
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, load_model, save_model
from tests.datamodules import library_samples as libraries
from tests.datamodules import samples
from tests.datamodules.readers import test_rl_unplugged, test_tianshou
from tests.datamodules.tfrecords import example, record
from tests.digests import remove_from_model, renew_store
from tests.factories import make_model, make_spec
from tests.faults.mutations import Mutate, in_bytes, in_gzip, in_record, in_text, in_zip
from trainers.callbacks import SafeCheckpointIO
from trainers.config import RunConfig
from trainers.config_files import load_config_file
from trainers.csv_logger import METRICS, MetricsTable
from trainers.yaml_files import write_yaml


@dataclass(frozen=True)
class FileFormat:
    """A format whose files are changed at random.

    Attributes:
        make: Writes a file or a folder of the format into a folder; returns its path.
        read: Reads what is at a path to its end.
        files: Which files of the folder are changed.
        changes: How they are changed; one is drawn for each file.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], None]
    files: str = "*"
    changes: tuple[Mutate, ...] = (in_bytes,)


def read_data(path: Path) -> None:
    """Reads every episode; the first error is raised at the end, as damaged ones are left out."""
    errors: list[Exception] = []
    for _ in open_source(path).read(0, errors.append):
        pass
    if errors:
        raise errors[0]


def read_store(path: Path) -> None:
    """Reads a store whose digests are right, as an attacker would make them."""
    try:
        manifest = json.loads((path / MANIFEST).read_text())
        for entry in manifest["arrays"].values():
            file = path / entry["file"]
            entry["sha256"], entry["bytes"] = file_sha256(file), file.stat().st_size
        (path / MANIFEST).write_text(json.dumps(manifest))
    except (ValueError, LookupError, TypeError, AttributeError, OSError, RecursionError):
        pass  # the manifest is what was changed
    renew_store(path)
    read_data(path)


def read_checkpoint(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").write_text(hashlib.sha256(path.read_bytes()).hexdigest())
    SafeCheckpointIO().load_checkpoint(path)


def read_metrics(path: Path) -> None:
    MetricsTable(path).rewind(5)


def write_model(folder: Path) -> Path:
    """A model without digests, which would refuse every change."""
    save_model(SavedModel(make_model("rate"), make_spec()), folder / "model")
    remove_from_model(folder / "model")
    return folder / "model"


def write_checkpoint(folder: Path) -> Path:
    model = make_model("rate")
    optimizer = torch.optim.AdamW(model.parameters())
    state = {"state_dict": model.state_dict(), "optimizer_states": [optimizer.state_dict()]}
    torch.save({**state, "global_step": 3, "epoch": 0}, folder / "last.ckpt")
    return folder / "last.ckpt"


def write_config(folder: Path) -> Path:
    write_yaml(folder / "config.yaml", RunConfig().to_dict())
    return folder / "config.yaml"


def write_metrics(folder: Path) -> Path:
    table = MetricsTable(folder)
    for step in range(1, 9):
        table.log_metrics({"train/loss": 1 / step, **({"success": 0.5} if step > 3 else {})}, step)
    table.save()
    return folder


def write_dqn(folder: Path) -> Path:
    ends = np.isin(np.arange(20), (9, 19)).astype(np.uint8)
    arrays = {
        "observation": np.ones((20, 84, 84), np.uint8),
        "action": np.zeros(20, np.int32),
        "reward": np.zeros(20, np.float32),
        "terminal": ends,
    }
    for name, array in arrays.items():
        content = io.BytesIO()
        np.save(content, array)
        file = folder / f"$store$_{name}_ckpt.0.gz"
        file.write_bytes(gzip.compress(content.getvalue(), 1))
    return folder


def write_records(folder: Path) -> Path:
    data = [record(example(test_rl_unplugged.episode(number, 3))) for number in range(2)]
    (folder / "run_1-00000-of-00001").write_bytes(b"".join(data))
    return folder


def write_tianshou(folder: Path) -> Path:
    steps = test_tianshou.STEPS
    return test_tianshou.write(folder / "x.hdf5", [np.arange(steps)], 20, [steps - 1])


def _named(write: Callable[..., Path], name: str, **how: object) -> Callable[[Path], Path]:
    return lambda folder: write(folder / name, **how)


_IN_FILES = (in_bytes, in_text, in_text)
_npz = partial(FileFormat, read=read_data, files="*.npz", changes=(in_bytes, in_zip, in_zip))
_data = partial(FileFormat, read=read_data)
FILE_FORMATS = {
    "d4rl": _data(_named(samples.write_d4rl, "x.hdf5")),
    "hdf5": _data(_named(samples.write_groups, "x.hdf5")),
    "d3rlpy": _data(_named(libraries.write_d3rlpy, "x.h5")),
    "robomimic": _data(_named(libraries.write_robomimic, "x.hdf5")),
    "tianshou": _data(write_tianshou),
    "minari": _data(samples.write_minari, files="*.hdf5"),
    "minari-json": _data(samples.write_minari, files="*.json", changes=_IN_FILES),
    **{
        f"pickle-{number}": _data(_named(samples.write_trajectories, "x.pkl", protocol=number))
        for number in (0, 2, 4, 5)
    },
    "tmaze-pickle": _data(_named(samples.write_tmaze, "x.pickle")),
    "npz": _npz(_named(samples.write_rate_npz, "npz", shape=(3, 8, 8))),
    "memory-maze": _npz(_named(samples.write_memory_maze, "npz")),
    "dqn": _data(write_dqn, files="*.gz", changes=(in_bytes, in_gzip, in_gzip)),
    "tfrecord": _data(write_records, changes=(in_bytes, in_record, in_record)),
    "rlds": _data(
        _named(libraries.write_rlds, "x"),
        files="*tfrecord*",
        changes=(in_bytes, in_record, in_record),
    ),
    "rlds-json": _data(_named(libraries.write_rlds, "x"), files="*.json", changes=_IN_FILES),
    "torchrl": _data(_named(libraries.write_torchrl, "x")),
    "huggingface": _data(_named(libraries.write_hf_dataset, "x"), files="*.arrow"),
    "parquet": _data(_named(libraries.write_parquet, "x.parquet")),
    "lerobot": _data(_named(libraries.write_lerobot_2, "x", pictures=True), changes=_IN_FILES[:1]),
    "lerobot-json": _data(
        _named(libraries.write_lerobot_3, "x"), files="*.json*", changes=_IN_FILES
    ),
    "store": FileFormat(
        partial(generate_tmaze, max_length=12, num_episodes=10), read_store, "*.npy"
    ),
    "store-manifest": FileFormat(
        partial(generate_tmaze, max_length=12, num_episodes=10), read_store, MANIFEST, _IN_FILES
    ),
    "weights": FileFormat(write_model, lambda path: void(load_model(path)), WEIGHTS),
    "description": FileFormat(
        write_model, lambda path: void(load_model(path)), DESCRIPTION, _IN_FILES
    ),
    "checkpoint": FileFormat(write_checkpoint, read_checkpoint, changes=(in_bytes, in_zip)),
    "config": FileFormat(
        write_config, lambda path: void(load_config_file(path)), changes=_IN_FILES
    ),
    "metrics": FileFormat(write_metrics, read_metrics, METRICS, _IN_FILES),
}


def void(_: object) -> None:
    """Drops what was read."""
