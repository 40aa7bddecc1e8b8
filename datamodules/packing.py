"""Episodes into a store's directory: one streaming pass, bounded memory, all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError, Episode, validate_episode
from datamodules.store_files import StoreWriter
from rate.envs.spec import EnvironmentSpec
from rate.files import publish
from rate.locks import locked


def pack_directory(
    episodes: Iterable[Episode],
    destination: Path,
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
) -> None:
    """Write a store's directory; see `datamodules.store.write_store`.

    The files are written in a hidden sibling directory, made durable, and renamed once. A lock
    lets one process at a time make a given store, so that a hidden directory that is found while
    the lock is held was left by a process that died, and is removed.
    """
    destination.parent.mkdir(parents=True, exist_ok=True)
    prefix = f".{destination.name}.tmp-"
    with locked(destination.parent / f".{destination.name}.lock", f"writing {destination}"):
        if destination.exists():
            raise DatasetError(
                f"{destination}: already exists; delete it, or choose another destination"
            )
        for path in destination.parent.iterdir():
            if path.name.startswith(prefix):
                shutil.rmtree(path, ignore_errors=True)  # it may be another user's
        temporary = destination.parent / f"{prefix}{os.getpid()}"
        temporary.mkdir()
        try:
            source = str(provenance.get("source", temporary.parent))
            with StoreWriter(temporary, spec) as writer:
                for index, episode in enumerate(episodes):
                    validate_episode(episode, spec, source, index)
                    writer.append(episode)
                writer.finish(provenance)
            publish(temporary, destination)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
