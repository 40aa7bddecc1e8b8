"""Opens the data of a run as a store."""

from __future__ import annotations

from pathlib import Path

from datamodules.dataset import Dataset
from datamodules.options import Options
from datamodules.readers.roles import read_map
from datamodules.store import Store
from rate.envs.recorded import Recorded
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.progress import OnProgress, no_progress
from trainers.config import NO_ENVIRONMENT, DataConfig, ReadingConfig, RunConfig
from trainers.environments import NAMES
from trainers.meter import Meter


def open_data(
    data: DataConfig, spec: EnvironmentSpec | None = None, tell: OnProgress = no_progress
) -> Dataset:
    """Returns the data that `data.store` names; other formats are converted at first use.

    Args:
        data: The settings of the data.
        spec: The environment of the model, if it is known.
        tell: Called with the progress.

    Raises:
        ConfigError: If `data.store` is not set.
        DatasetError: If the data set does not exist, or cannot be read or trained on.
    """
    if data.store is None:
        raise ConfigError("There are no data: name those to train on with --data.")
    options, skip_bad = reading_options(data.reading), data.reading.skip_bad
    return Dataset.open(
        data.store, data.root, options, spec=spec, skip_bad=skip_bad, on_progress=tell
    )


def store_of(run: RunConfig) -> Store:
    """Returns the store of a run; data of other formats are converted, with a progress display.

    Raises:
        DatasetError: See `open_data`.
    """
    with Meter(shown=run.logging.progress) as meter:
        return open_data(run.data, tell=meter.show).store


def notes_of_data(run: RunConfig, store: Store) -> list[str]:
    """Returns notes on the data of a run: assumptions of the conversion, and a known environment.

    Args:
        run: The run.
        store: Its data.
    """
    if run.data.store is None:
        return []
    notes: list[str] = []
    if Path(run.data.store) != store.path:
        notes += [f"{run.data.store}: {note}" for note in store.manifest["provenance"]["notes"]]
    recorded = Recorded.parse(store.spec.recorded)
    known = store.spec.name if recorded is None else recorded.id
    if run.environment == NO_ENVIRONMENT and (recorded or known in NAMES):
        notes.append(f"the data are of {known}: with --env {known} models are scored in rollouts.")
    return notes


def reading_options(reading: ReadingConfig) -> Options:
    """Returns the reading settings in the form that readers take."""
    bounds = reading.action_range
    return Options(
        time_limit=reading.time_limit,
        columns=tuple(read_map(f"{theirs}={ours}") for theirs, ours in reading.columns.items()),
        action_range=None if bounds is None else (bounds[0], bounds[1]),
        keep_actions=reading.keep_actions,
        zero_rewards=reading.zero_rewards,
        unfinished=reading.unfinished,
        format=reading.format,
    )
