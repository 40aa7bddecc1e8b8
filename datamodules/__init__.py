"""Trajectories on disk and in memory: readers, the store, the sampler and the DataModules."""

from __future__ import annotations

from datamodules.episodes import DatasetError, Episode
from datamodules.store import Store
from datamodules.writing import write_store

__all__ = ["DatasetError", "Episode", "Store", "write_store"]
