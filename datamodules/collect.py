"""Data sets that an expert plays: as Minari data, as a store, and what came of each episode."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.crew import TIMEOUT_S, available_cores, play_parts
from datamodules.disk_errors import explain_read_errors, explain_write_errors, make_folder
from datamodules.episodes import DatasetError, Episode, observation_spaces
from datamodules.parts import Parts
from datamodules.players import Player
from datamodules.readers.minari import (
    keeps_pixels,
    minari_provenance,
    open_minari,
    read_minari,
    write_minari,
)
from datamodules.spawning import leave_if_started_again
from datamodules.store import Store, write_store
from rate.envs.spec import EnvironmentSpec
from rate.files import write_atomic
from rate.locks import locked
from rate.progress import OnProgress, tell_nobody, telling
from rate.stopping import told_when_stopped, with_message


def collect(
    folder: Path | str,
    name: str,
    make_player: Callable[[], Player],
    *,
    seeds: Sequence[int],
    spec: EnvironmentSpec,
    provenance: dict[str, Any],
    dataset_id: str,
    env: Callable[[], gymnasium.Env[Any, Any]],
    description: str,
    algorithm: str = "expert",
    workers: int | None = None,
    timeout: float = TIMEOUT_S,
    on_progress: OnProgress = tell_nobody,
) -> Path:
    """Have an expert play an episode for each seed, unless the data set exists.

    The store stands at `folder / name`, the Minari data set under `folder / "minari"`, and a table
    of the episodes at `folder / (name + ".csv")`. What they hold does not depend on the number of
    workers. Finished episodes are kept one by one until all of it stands: to call this again after
    an interruption of any kind goes on where it stopped. Several processes may call it at once: one
    collects, the others wait.

    Args:
        folder: Where the data go.
        name: Name of the store; each quantity that makes the data another should stand in it.
        make_player: Makes a player. Several workers need one that can be pickled: a function of a
            module, or a `functools.partial` of one.
        seeds: The episodes, in their order in the data set; each seed once.
        spec: The environment that the data are of.
        provenance: What to remember of the origin, plain JSON types: all that the data depend on.
        dataset_id: A Minari id, `namespace/name-v0`.
        env: Makes the environment with `gymnasium.make`, so that Minari can recover it.
        description: One sentence on the data set.
        algorithm: Name of the expert, for Minari.
        workers: Processes that play; by default one for each processor core. 1 plays in this one.
        timeout: Seconds without a step after which a process counts as hung. One that hangs or dies
            is replaced, and its episode played again; but not this one.
        on_progress: Told of progress, in episodes.

    Returns:
        The path of the store.

    Raises:
        ValueError: If `seeds` are none, repeated or outside of [0, 2^63).
        DatasetError: If there are data of this name, but damaged or others, or if an episode
            cannot be played.
        UserError: What a player finds wrong with the settings or the installation.
    """
    numbers = [int(seed) for seed in seeds]
    inside = all(0 <= seed < 1 << 63 for seed in numbers)
    if not numbers or len(set(numbers)) < len(numbers) or not inside:
        raise ValueError(f"{name}: there must be seeds, in [0, 2^63), and each of them only once")
    known = {
        "source": f"Minari data set {dataset_id}",
        **provenance,
        "seeds_sha256": _digest(numbers),
    }
    store, minari = Path(folder) / name, Path(folder) / "minari" / dataset_id
    parts = Parts(store.with_name(f".{name}.parts-{_digest([known, spec.to_dict()])[:12]}"))

    def make() -> None:
        if minari.exists():  # whoever removed the store need not have it all played again
            _check_minari(minari, known)
        else:
            _play(parts, numbers, make_player, workers, timeout, spec.name, on_progress)
            _write_table(table_path(store), map(parts.read, numbers))
            if _can_be_minari(spec):
                environment = env()
                write_minari(
                    telling(map(parts.read, numbers), "writing", len(numbers), on_progress),
                    Path(folder) / "minari",
                    dataset_id,
                    environment,
                    algorithm,
                    description,
                    known,
                )
                environment.close()
        episodes = read_minari(open_minari(minari)) if minari.exists() else map(parts.read, numbers)
        write_store(telling(episodes, "packing", len(numbers), on_progress), store, spec, known)
        for left in store.parent.glob(f".{name}.parts-*"):
            Parts(left).remove()

    return make_once(store, known, make)


def make_once(store: Path, provenance: dict[str, Any], make: Callable[[], object]) -> Path:
    """Make a store unless it stands already; of several processes at once, one makes it.

    Args:
        store: The store's directory.
        provenance: What its manifest says, or will say.
        make: Makes it.

    Returns:
        `store`.

    Raises:
        DatasetError: If a store stands there that is damaged or of other provenance, or if the
            folder cannot be written.
    """
    leave_if_started_again()
    if _is_made(store, provenance):  # before the lock, which needs a folder that can be written
        return store
    what = f"{store}: the data"
    make_folder(store.parent, DatasetError, what, "Name another folder with --data.root.")
    advice = "Make room, or name another folder with --data.root."
    with (
        explain_write_errors(DatasetError, what, advice),
        locked(store.parent / f".{store.name}.generate.lock", f"making {store}"),
        told_when_stopped(f" while {store} was being made; the same command goes on."),
    ):
        if not _is_made(store, provenance):
            make()
    return store


def _is_made(store: Path, provenance: dict[str, Any]) -> bool:
    """Whether the store is there; an error if it is damaged or holds something else."""
    with explain_read_errors(DatasetError, store):
        if not store.exists():
            return False
    if Store.open(store).manifest["provenance"] != provenance:
        raise DatasetError(f"{store}: holds other data; delete it, or use another folder")
    return True


def table_path(store: Path) -> Path:
    """The table of a store's episodes: a row with seed, length, return and outcome of each."""
    return store.with_name(f"{store.name}.csv")


def summarise(store: Path) -> dict[str, tuple[float, float, float]]:
    """How good collected data are.

    Returns:
        Mean, least and greatest over the episodes, for the length, the return and each outcome.

    Raises:
        DatasetError: If the store's table is missing or damaged.
    """
    path = table_path(store)
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {
            name: [float(row[name]) for row in rows if row[name]]
            for name in rows[0]
            if name != "seed"
        }
        return {name: (float(np.mean(c)), min(c), max(c)) for name, c in columns.items() if c}
    except (OSError, ValueError, IndexError, KeyError, TypeError) as error:
        raise DatasetError(f"{path}: the table of the episodes cannot be read ({error})") from error


def _write_table(path: Path, episodes: Iterable[Episode]) -> None:
    rows = [
        {
            "seed": item.seed,
            "length": len(item),
            "return": float(np.sum(item.rewards, dtype=np.float64)),
            "terminated": int(item.terminated),
            "truncated": int(item.truncated),
            **item.outcome,
        }
        for item in episodes
    ]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(path, text.getvalue())


def _play(
    parts: Parts,
    seeds: Sequence[int],
    make_player: Callable[[], Player],
    workers: int | None,
    timeout: float,
    source: str,
    on_progress: OnProgress,
) -> None:
    """Play the episodes that have no part file yet."""
    parts.prepare()
    missing = parts.missing(seeds)
    done, total = len(seeds) - len(missing), len(seeds)

    def tell() -> None:
        nonlocal done
        done += 1
        on_progress("collecting", done, total)

    on_progress("collecting", done, total)
    count = 0 if workers == 1 else min(workers or available_cores(), len(missing))
    try:
        play_parts(parts, missing, make_player, count, source, tell, timeout)
    except KeyboardInterrupt as interrupt:
        raise with_message(
            interrupt,
            f"Stopped after {done} of {total} episodes, which are kept; the same command goes on.",
        ) from None


def _check_minari(path: Path, provenance: dict[str, Any]) -> None:
    found = minari_provenance(open_minari(path))
    if found != provenance:
        raise DatasetError(
            f"{path}: a Minari data set of other origin; delete it, or use another folder"
        )


def _can_be_minari(spec: EnvironmentSpec) -> bool:
    """Whether the installed Minari can hold the data; warns if it would change pixels."""
    items = observation_spaces(spec.observation_space).values()
    if not any(isinstance(s, spaces.Box) and s.dtype == np.uint8 for s in items) or keeps_pixels():
        return True
    warnings.warn(
        "The installed Minari would store pixels as JPEG, which changes them: there will be the "
        "store alone. Minari 0.5.4 or newer, which needs Python 3.11, makes a Minari data set too.",
        stacklevel=2,
    )
    return False


def _digest(data: Any) -> str:
    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
