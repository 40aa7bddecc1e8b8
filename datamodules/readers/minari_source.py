"""Minari data sets of any space, as sources."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.readers.minari import has_jpeg, open_minari, read_minari
from datamodules.readers.spaces import plain_actions, plain_observations
from datamodules.source import UNKNOWN_RETURN, Source, known_mujoco, known_recorded
from rate.envs.recorded import Recorded
from rate.envs.spec import EnvironmentSpec

UNKNOWN_VERSION = "v5"  # of a MuJoCo task that a data set names without one, as of Minari's own


def is_minari(path: Path) -> bool:
    """Whether a path is the folder of a Minari data set."""
    return (path / "data" / "metadata.json").is_file()


def reference_scores(metadata: dict[str, Any]) -> dict[str, float]:
    """Returns the returns of the scores 0 and 100 that a data set gives; often none."""
    names = {"score_0": "ref_min_score", "score_100": "ref_max_score"}
    found = {name: metadata.get(entry) for name, entry in names.items()}
    known = {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}
    known = {name: value for name, value in known.items() if math.isfinite(value)}
    return known if len(known) == 2 and known["score_0"] < known["score_100"] else {}


def recorded_environment(metadata: dict[str, Any]) -> str:
    """Returns the recorded environment of a data set as JSON; empty if it names none."""
    found = metadata.get("env_spec")
    return found if isinstance(found, str) and Recorded.parse(found) is not None else ""


def open_minari_source(path: Path) -> Source:
    """Opens a data set as a source. Its environment is not made.

    Raises:
        DatasetError: If it cannot be read, or models have no form for its spaces.
    """
    dataset = open_minari(path)
    name, place = dataset.spec.dataset_id, str(path)
    observations, left = plain_observations(dataset.spec.observation_space, place)
    actions = plain_actions(dataset.spec.action_space, place)
    metadata = dataset.storage.metadata
    recorded = recorded_environment(metadata)
    spec = EnvironmentSpec(name, observations, actions, UNKNOWN_RETURN, recorded=recorded)
    references = reference_scores(metadata)
    if recorded:
        known = known_recorded(spec, references)
    else:
        known = known_mujoco(spec, name, UNKNOWN_VERSION, references)
    notes = [f"the observations' {key} is no array of numbers and is left out" for key in left]
    notes += _about_evaluation(metadata)
    if has_jpeg(dataset):
        notes.append("Minari stored the pixels as JPEG, which changed them when it was made")
    return Source(
        format="minari",
        path=path,
        files=tuple(sorted(file for file in (path / "data").rglob("*") if file.is_file())),
        spec=known,
        read=partial(read_minari, dataset),
        num_episodes=int(dataset.total_episodes),
        num_steps=int(dataset.total_steps),
        notes=tuple(notes),
    )


def _about_evaluation(metadata: dict[str, Any]) -> list[str]:
    """Returns notes on the environment that a data set names for evaluation."""
    recorded, evaluation_env = (
        Recorded.parse(str(metadata.get(name))) for name in ("env_spec", "eval_env_spec")
    )
    if evaluation_env is None or evaluation_env == recorded:
        return []
    arguments = ", ".join(f"{name}={value}" for name, value in evaluation_env.arguments.items())
    words = f"{evaluation_env.id} with {arguments}" if arguments else evaluation_env.id
    return [
        f"the data set asks for rollouts in {words}, which is not what it was recorded in and is "
        "not made unasked (env.version, env.arguments)"
    ]
