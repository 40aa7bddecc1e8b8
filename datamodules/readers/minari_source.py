"""Minari data sets of others, whatever their spaces, as sources for conversions."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from datamodules.readers.minari import has_jpeg, open_minari, read_minari
from datamodules.readers.spaces import plain_actions, plain_observations
from datamodules.source import UNKNOWN_RETURN, Source, known_mujoco
from rate.envs.spec import EnvironmentSpec


def is_minari(path: Path) -> bool:
    """Whether a path is the folder of a Minari data set."""
    return (path / "data" / "metadata.json").is_file()


def reference_scores(metadata: dict[str, Any]) -> dict[str, float]:
    """The returns that a data set gives the scores 0 and 100, by our settings; often none."""
    names = {"score_0": "ref_min_score", "score_100": "ref_max_score"}
    found = {ours: metadata.get(theirs) for ours, theirs in names.items()}
    return {name: float(value) for name, value in found.items() if value is not None}


def open_minari_source(path: Path) -> Source:
    """A data set as a source. Its own environment is not needed.

    Raises:
        DatasetError: If it cannot be read, or models have no form for its spaces.
    """
    dataset = open_minari(path)
    name, place = dataset.spec.dataset_id, str(path)
    observations, left = plain_observations(dataset.spec.observation_space, place)
    actions = plain_actions(dataset.spec.action_space, place)
    spec = EnvironmentSpec(name, observations, actions, UNKNOWN_RETURN)
    notes = [f"the observations' {key} is no array of numbers and is left out" for key in left]
    if has_jpeg(dataset):
        notes.append("Minari stored the pixels as JPEG, which changed them when it was made")
    return Source(
        format="minari",
        path=path,
        files=tuple(sorted(file for file in (path / "data").rglob("*") if file.is_file())),
        spec=known_mujoco(spec, name, "v5", reference_scores(dataset.storage.metadata)),
        read=partial(read_minari, dataset),
        num_episodes=int(dataset.total_episodes),
        num_steps=int(dataset.total_steps),
        notes=tuple(notes),
    )
