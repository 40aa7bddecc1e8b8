"""Worker processes that play episodes into part files, and may die while they do.

Simulators are native programs that crash or hang now and then. `concurrent.futures` gives up all of
its processes when one dies, and cannot tell which of their tasks was at fault. Here each worker has
a pipe of its own: one that dies, or has not taken a step for long, is replaced alone, and its
episode, which is known, played again.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from datamodules.episodes import DatasetError
from datamodules.parts import Parts
from datamodules.players import Player
from datamodules.spawning import UNGUARDED, unguarded
from datamodules.variables import environment_variable
from rate.errors import UserError
from rate.stopping import ignore_stop_signals

ATTEMPTS = 3  # for each episode
TIMEOUT_S = 120.0  # without a step; as long as rollouts wait
_STARTING_S = 60.0  # more than that, for imports and the simulator: a cold disk is no hang
_LOOK_AGAIN_S = 1.0
_LEAVE_S = 10.0
_ALIVE = True  # what a worker says while it plays


def available_cores() -> int:
    """The processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def play_parts(
    parts: Parts,
    seeds: Sequence[int],
    make_player: Callable[[], Player],
    workers: int,
    source: str,
    on_played: Callable[[], None],
    timeout: float = TIMEOUT_S,
) -> None:
    """Play the episodes of seeds into part files.

    Args:
        parts: Where they go.
        seeds: The episodes.
        make_player: Makes a player; it can be pickled if there is more than one worker.
        workers: Processes, each with one player; 0 plays in this process.
        source: What is played, for errors.
        on_played: Called after every episode.
        timeout: Seconds without a step after which a worker counts as hung. This process cannot
            look after itself: what hangs in it hangs.

    Raises:
        DatasetError: If an episode could not be played in `ATTEMPTS` attempts.
        UserError: What a player found wrong, as it is.
    """
    if not workers:
        _play_here(parts, seeds, make_player, source, on_played)
        return
    crew = _Crew(parts, make_player, source, timeout)
    try:
        crew.play(seeds, workers, on_played)
    finally:
        crew.dismiss()


def _play_here(
    parts: Parts,
    seeds: Sequence[int],
    make_player: Callable[[], Player],
    source: str,
    on_played: Callable[[], None],
) -> None:
    player: Player | None = None
    try:
        for seed in seeds:
            for attempt in range(1, ATTEMPTS + 1):
                try:
                    player = player or make_player()
                    parts.write(seed, player.play(seed))
                    break
                except UserError:
                    raise
                except Exception as error:
                    player = None  # whatever state its simulator is in
                    if attempt == ATTEMPTS:
                        raise _cannot_play(source, seed, repr(error), parts) from error
            on_played()
    finally:
        if player is not None:
            player.close()


class _Worker:
    """A process with a player, and its pipe."""

    def __init__(self, parts: Parts, make_player: Callable[[], Player], timeout: float) -> None:
        context = multiprocessing.get_context("spawn")  # simulators do not survive a fork
        self.connection, theirs = context.Pipe()
        self.process: SpawnProcess = context.Process(
            target=_work, args=(theirs, parts, make_player), daemon=True
        )
        with environment_variable("OMP_NUM_THREADS", "1"):
            self.process.start()
        theirs.close()
        self.seed, self._timeout = -1, timeout
        self._limit, self._deadline = timeout + _STARTING_S, 0.0

    @property
    def hangs(self) -> bool:
        return time.monotonic() > self._deadline

    def give(self, seed: int) -> None:
        self.seed = seed
        self._deadline = time.monotonic() + self._limit
        with suppress(OSError):  # if it died, the next look at it tells
            self.connection.send(seed)

    def answer(self) -> UserError | str | bool | None:
        """What became of the episode: None is a success, text a failure's reason, `_ALIVE` open."""
        if self.hangs and not self.connection.poll():
            self.kill()
            return f"it took no step within {self._limit:g} seconds"
        try:
            found: UserError | str | bool | None = self.connection.recv()
            self._limit = self._timeout
            self._deadline = time.monotonic() + self._limit
            return found
        except (EOFError, OSError):
            self.process.join(_LEAVE_S)
            if self.process.exitcode == UNGUARDED:
                return unguarded()
            return f"its process died ({_describe_exit(self.process.exitcode)})"

    def dismiss(self) -> None:
        """End the process: one that waits for a seed learns that none is to come."""
        self.connection.close()
        self.process.join(_LEAVE_S)
        self.kill()

    def kill(self) -> None:
        """End the process, if it has not ended, and what it has started."""
        pid = self.process.pid
        if pid is not None and self.process.is_alive():
            with suppress(OSError, AttributeError):  # no group of its own yet, or at all
                os.killpg(pid, signal.SIGKILL)
            self.process.kill()
            self.process.join()


class _Crew:
    """The workers, and who plays what."""

    def __init__(
        self, parts: Parts, make_player: Callable[[], Player], source: str, timeout: float
    ) -> None:
        self._make = partial(_Worker, parts, make_player, timeout)
        self._parts, self._source = parts, source
        self._workers: dict[Connection, _Worker] = {}

    def play(self, seeds: Sequence[int], workers: int, on_played: Callable[[], None]) -> None:
        waiting, failures = deque(seeds), Counter[int]()
        while waiting or self._workers:
            while waiting and len(self._workers) < workers:
                worker = self._make()
                self._workers[worker.connection] = worker
                worker.give(waiting.popleft())
            for worker in self._ready():
                answer = worker.answer()
                if isinstance(answer, UserError):
                    raise answer
                if isinstance(answer, bool):
                    continue
                if answer is None:
                    on_played()
                    if waiting:
                        worker.give(waiting.popleft())
                        continue
                else:
                    failures[worker.seed] += 1
                    if failures[worker.seed] == ATTEMPTS:
                        raise _cannot_play(self._source, worker.seed, answer, self._parts)
                    waiting.appendleft(worker.seed)
                del self._workers[worker.connection]
                worker.dismiss()

    def dismiss(self) -> None:
        """End those that still play, all at once."""
        for worker in self._workers.values():
            worker.process.terminate()
        for worker in self._workers.values():
            worker.dismiss()

    def _ready(self) -> list[_Worker]:
        """The workers that have said something, died, or hang."""
        ready = set(wait(list(self._workers), timeout=_LOOK_AGAIN_S))
        # A child of a dead worker may hold its end of the pipe open, so its death is no message.
        return [
            worker
            for connection, worker in self._workers.items()
            if connection in ready or not worker.process.is_alive() or worker.hangs
        ]


def _work(connection: Connection, parts: Parts, make_player: Callable[[], Player]) -> None:
    """A worker's life: seeds come, answers go, until the pipe is closed."""
    if hasattr(os, "setsid"):
        os.setsid()  # so that it can be ended with what it starts
    ignore_stop_signals()
    signal.signal(signal.SIGTERM, _leave)
    threading.Thread(target=leave_with_parent, daemon=True).start()
    player: Player | None = None
    tell = _Pulse(connection)
    try:
        while True:
            seed = connection.recv()
            player = player or make_player()
            tell()
            parts.write(seed, player.play(seed, tell))
            connection.send(None)
    except EOFError:
        return
    except UserError as error:
        connection.send(type(error)(str(error)))
    except Exception:  # noqa: BLE001 (the parent decides; a new process takes the next attempt)
        connection.send(traceback.format_exc())
    finally:
        if player is not None:
            player.close()


class _Pulse:
    """Says that a worker is alive, at most once a second however many steps it takes."""

    def __init__(self, connection: Connection) -> None:
        self._connection, self._next = connection, 0.0

    def __call__(self) -> None:
        if time.monotonic() >= self._next:
            self._next = time.monotonic() + _LOOK_AGAIN_S
            with suppress(OSError):  # nobody is left to hear it
                self._connection.send(_ALIVE)


def _leave(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)  # unwinds, so that the player is closed


def leave_with_parent() -> None:
    """Wait until the parent is gone, however it ended, and stop."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_LEAVE_S)
        os._exit(1)  # it hangs, and will not hear of signals


def _describe_exit(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, perhaps out of memory" if name == "SIGKILL" else name


def _cannot_play(source: str, seed: int, reason: str, parts: Parts) -> DatasetError:
    return DatasetError(
        f"{source}: the episode of seed {seed} failed {ATTEMPTS} times: {reason.strip()}\n"
        f"The episodes that are finished are kept in {parts.path}; the same command goes on there."
    )
