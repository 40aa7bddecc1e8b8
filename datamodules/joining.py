"""Makes one store of the stores in a folder, without copying them; see `datamodules.shards`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from datamodules.disk_errors import explain_write_errors
from datamodules.episodes import DatasetError
from datamodules.moments import Moments
from datamodules.npy import NpyWriter
from datamodules.shards import SHARDED_VERSION, SHARDS, is_sharded
from datamodules.store import Store
from datamodules.store_files import (
    FORMAT,
    LARGE_SEEDS,
    MANIFEST,
    describe_array,
    write_manifest,
)
from rate.locks import locked

MOST_SHARDS = 10_000  # each is several memory maps, and a process may have 65,530


def join_stores(folder: Path) -> Store:
    """Makes a store of all stores that are sub-folders of a folder, in the order of their names.

    Steps are not copied or read. A folder that was joined before is joined anew.

    Raises:
        DatasetError: If there are no stores or too many, one is damaged or itself joined, they are
            of different environments, or the folder cannot be written.
    """
    parts = sorted(part.parent for part in folder.glob(f"*/{MANIFEST}"))
    if not parts:
        raise DatasetError(f"{folder}: there is no store in it; its sub-folders are joined")
    if len(parts) > MOST_SHARDS:
        raise DatasetError(
            f"{folder}: {len(parts)} stores, and at most {MOST_SHARDS} can be joined; make fewer, "
            "larger ones"
        )
    stores = [Store.open(part) for part in parts]
    for store in stores:
        _check_alike(stores[0], store)
    with (
        explain_write_errors(DatasetError, f"{folder}: the joined store", "Make room."),
        locked(folder / ".join.lock", f"joining {folder}"),
    ):
        (folder / MANIFEST).unlink(missing_ok=True)
        arrays = {name: _entry(folder, name, stores) for name in stores[0].manifest["arrays"]}
        write_manifest(folder, _manifest(stores, arrays))
    return Store.open(folder)


def _check_alike(first: Store, store: Store) -> None:
    if SHARDS in store.manifest:
        raise DatasetError(f"{store.path}: is itself of several stores; join those it is made of")
    kinds = [
        {name: (entry["dtype"], entry["shape"][1:]) for name, entry in s.manifest["arrays"].items()}
        for s in (first, store)
    ]
    spaces = [(s.spec.observation_space, s.spec.action_space, s.spec.name) for s in (first, store)]
    if kinds[0] != kinds[1] or spaces[0] != spaces[1]:
        raise DatasetError(
            f"{store.path}: is of {store.spec.name} with {sorted(kinds[1])}, and {first.path} of "
            f"{first.spec.name} with {sorted(kinds[0])}; only stores of one environment are joined"
        )


def _entry(folder: Path, name: str, stores: list[Store]) -> dict[str, Any]:
    """Returns the entry of an array in the manifest; writes the file of one that is not sharded."""
    known = stores[0].manifest["arrays"][name]
    if is_sharded(name):
        rows = sum(store.manifest["arrays"][name]["shape"][0] for store in stores)
        return {"dtype": known["dtype"], "shape": [rows, *known["shape"][1:]]}
    with NpyWriter(folder / f"{name}.npy", np.dtype(known["dtype"]), ()) as writer:
        if name == "offsets":
            writer.append(np.zeros(1))
        steps = 0
        for store in stores:
            writer.append(store.offsets[1:] + steps if name == "offsets" else store.arrays[name])
            steps += store.num_steps
    return describe_array(writer)


def _manifest(stores: list[Store], arrays: dict[str, Any]) -> dict[str, Any]:
    ranges = np.array([store.return_range for store in stores])
    manifest = {
        "format": FORMAT,
        "schema_version": SHARDED_VERSION,
        "num_episodes": sum(store.num_episodes for store in stores),
        "num_steps": sum(store.num_steps for store in stores),
        "return_range": [float(ranges[:, 0].min()), float(ranges[:, 1].max())],
        "environment": stores[0].manifest["environment"],
        "normalisation": {
            name: _joined_moments(name, stores) for name in stores[0].manifest["normalisation"]
        },
        "provenance": {"source": "joined", "of": [store.path.name for store in stores]},
        SHARDS: [
            {
                "folder": store.path.name,
                "num_episodes": store.num_episodes,
                "num_steps": store.num_steps,
                "sha256": store.fingerprint,
            }
            for store in stores
        ],
        "arrays": arrays,
    }
    large, before = {}, 0
    for store in stores:
        seeds = store.manifest.get(LARGE_SEEDS, {})
        large.update({str(int(index) + before): seed for index, seed in seeds.items()})
        before += store.num_episodes
    return {**manifest, LARGE_SEEDS: large} if large else manifest


def _joined_moments(name: str, stores: list[Store]) -> dict[str, list[float]]:
    """Returns the mean and deviation of the rows of all stores, from those of each."""
    total = Moments()
    for store in stores:
        known = store.manifest["normalisation"][name]
        squares = np.square(known["std"]) * store.num_steps
        total.merge(store.num_steps, np.array(known["mean"]), squares)
    return total.to_dict()
