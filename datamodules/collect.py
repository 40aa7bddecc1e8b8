"""Collection: an expert plays episodes in worker processes, which are written as a store."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from datamodules.collector import Collector, EpisodeTask
from datamodules.episode_table import EpisodeTable, table_path
from datamodules.episodes import DatasetError, Episode
from datamodules.store_files import StoreWriter
from datamodules.writing import SAVE_SECONDS, digest, make_once, open_writer
from rate.envs.spec import EnvironmentSpec
from rate.progress import OnProgress, no_progress
from rate.stopping import signals_blocked, with_message
from rate.workers.tasks import TaskFailure, run_tasks
from rate.workers.worker import TIMEOUT_S

_ONE_IN = 50  # episodes may be left out
_RETAINED = "What was collected is kept, and the same command goes on."


def collect(
    folder: Path | str,
    name: str,
    make_collector: Callable[[], Collector],
    *,
    seeds: Sequence[int],
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
    workers: int | None = None,
    timeout: float = TIMEOUT_S,
    save_seconds: float = SAVE_SECONDS,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Collect an expert's episode for each seed, unless the data set exists.

    Writes the store `folder / name` and the table of its episodes, `folder / (name + ".csv")`. The
    data do not depend on the number of workers. Episodes are written as they are played, so that
    another call resumes an interrupted collection. Several processes may call this concurrently:
    one collects, the others wait.

    Args:
        folder: The folder of the store.
        name: The name of the store. It should contain every setting that the data depend on.
        make_collector: Makes the collector; each worker process calls it once.
        seeds: A distinct seed for each episode, in the order of the data set.
        spec: The environment of the data.
        provenance: The origin of the data, plain JSON types: all that the data depend on.
        workers: The number of processes; by default one for each processor core. 1 plays in this
            process.
        timeout: Seconds without a step after which a worker process counts as hung. A worker that
            hangs or dies is replaced, and its episode is played again. Without worker processes
            there is no time limit.
        save_seconds: Seconds between two saves of the state.
        on_progress: Called with the progress, in episodes.

    Returns:
        The path of the store.

    Raises:
        ValueError: If `seeds` is empty, has duplicates or values outside of [0, 2^63).
        DatasetError: If a store of this name is damaged or of other provenance, or more than one
            in 50 episodes cannot be played or is not valid; others are left out with a warning.
        UserError: If a collector raises one, for example for wrong settings or missing packages.
    """
    numbers = [int(seed) for seed in seeds]
    inside = all(0 <= seed < 1 << 63 for seed in numbers)
    if not numbers or len(set(numbers)) < len(numbers) or not inside:
        raise ValueError(f"{name}: there must be seeds, in [0, 2^63), and each of them only once")
    known = {**provenance, "seeds_sha256": digest(numbers)}
    store = Path(folder) / name

    def make() -> None:
        with open_writer(store, spec, known, keep_last=True) as writer:
            collection = _Collection(writer, numbers, save_seconds, on_progress)
            collection.play(make_collector, workers, timeout)
            collection.table.finish(table_path(store))
            skipped = {"skipped": collection.skipped} if collection.skipped else {}
            writer.finish(known | skipped)

    return make_once(store, known, make, retained=_RETAINED)


class _Collection:
    """The state of a collection: the writer, the table and the number of written episodes."""

    def __init__(
        self, writer: StoreWriter, seeds: list[int], save_seconds: float, on_progress: OnProgress
    ) -> None:
        self._writer, self._seeds, self._done = writer, seeds, writer.position
        self.skipped = writer.skipped
        self._save_seconds, self._saved = save_seconds, time.monotonic()
        self._on_progress = on_progress
        self.table = EpisodeTable(writer.directory, writer.num_episodes)

    def play(
        self, make_collector: Callable[[], Collector], workers: int | None, timeout: float
    ) -> None:
        """Play and write the missing episodes."""
        seeds = self._seeds[self._done :]
        count = 0 if workers == 1 else workers
        name = self._writer.spec.name
        self._report()
        try:
            make = partial(EpisodeTask, make_collector, spec=self._writer.spec)
            most = len(self._seeds) // _ONE_IN - self.skipped
            with closing(
                run_tasks(make, seeds, count, timeout, most_failures=max(0, most))
            ) as episodes:
                for episode in episodes:
                    if isinstance(episode, TaskFailure):
                        self._skip(episode)
                    else:
                        self._write(episode)
        except OSError:
            raise  # the disk failed: the last save is the state to resume from
        except TaskFailure as failure:
            self._save()
            raise DatasetError(
                f"{name}: the episode of seed {failure.task} {failure}\n{_RETAINED}"
            ) from failure
        except KeyboardInterrupt as interrupt:
            self._save()
            raise with_message(
                interrupt,
                f"Stopped after {self._done} of {len(self._seeds)} episodes, which are kept; the "
                "same command goes on.",
            ) from None
        except BaseException:
            self._save()
            raise
        finally:
            self.table.close()

    def _skip(self, failure: TaskFailure) -> None:
        """Leave out the episode of a seed, which has failed each time."""
        name = self._writer.spec.name
        warnings.warn(f"{name}: episode {failure.task} is left out: it {failure}", stacklevel=3)
        self._done, self.skipped = self._done + 1, self.skipped + 1
        self._save()

    def _write(self, episode: Episode) -> None:
        with signals_blocked():  # an interrupt must not leave half an episode
            self._writer.append(episode)
            self.table.append(episode)
            self._done += 1
        self._report()
        if time.monotonic() - self._saved >= self._save_seconds:
            self._save()

    def _save(self) -> None:
        self.table.sync()
        self._writer.save(self._done, self.skipped)
        self._saved = time.monotonic()

    def _report(self) -> None:
        self._on_progress("collecting", self._done, len(self._seeds))
