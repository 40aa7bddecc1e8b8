"""Run training, collection and rollouts for long, and tell whether they hold more and more.

    python scripts/soak.py --minutes 60
    python scripts/soak.py --minutes 10 --parts training rollouts --results build/soak.csv

The parts run side by side: training with evaluation every 50 steps; a collection, one of whose
worker processes is killed each minute, and which itself is killed and begun again every fifth time;
rollouts of a trained model, whose simulators are started anew every 100 episodes. Every few seconds
the processes of each part are counted, with their memory, open files, shared memory and threads. A
verdict on each comes from the slope over the time: the median over all pairs of samples (Theil and
Sen), which outliers such as killed processes do not move.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # an installation has no package `scripts`
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.soak_table import MEASURES, draw, verdict, write

ROOT = Path(__file__).resolve().parents[1]
KILL_S = 60.0
_WHOLE = 5  # every so many kills the collection itself is killed

TRAINING = (
    *("train", "tmaze", "--training.max_steps=1000000000", "--data.num_episodes=500"),
    *("--model.d_model=32", "--model.num_layers=1", "--training.checkpoint_every_n_steps=50"),
    *("--training.segments=3", "--curriculum.enabled=false", "--evaluation.every_n_steps=50"),
    *("--evaluation.episodes=20", "--evaluation.lengths=[30,90]", "--resume=auto"),
)
COLLECTION = ("collect", "minigrid", "--data.num_episodes=300000", "--data.workers=2")
ROLLOUTS = """\
import itertools, sys
from pathlib import Path
from rate.weights import load_model
from trainers.config import EvaluationConfig
from trainers.registry import environment_of
from trainers.rollout import evaluate

saved = load_model(Path(sys.argv[1]))
config = EvaluationConfig(episodes=100, workers=2)
environment = environment_of(saved.spec, 2)
for first in itertools.count(0, 100):
    evaluate(saved.model, environment, config, lengths=[9], first_seed=first)
    Path("episodes").write_text(str(first + 100))
"""
PARTS: dict[str, list[str]] = {
    "training": ["-m", "trainers.commands.main", *TRAINING],
    "collection": ["-m", "trainers.commands.main", *COLLECTION],
    "rollouts": ["-c", ROLLOUTS, str(ROOT / "rate" / "pretrained" / "minigrid-rate")],
}


class Part:
    """A part of the soak, in processes of its own.

    Args:
        name: One of `PARTS`.
        folder: Its working folder.
    """

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.starts, self.kills = name, folder, 0, 0
        folder.mkdir()
        self.start()

    def start(self) -> None:
        """Start the command, or go on with it."""
        self.starts += 1
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, *PARTS[self.name]],
                cwd=self.folder,
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def sample(self) -> dict[str, float] | None:
        """Returns what the processes hold; None if they have ended.

        Raises:
            SystemExit: If the command is no longer running; quotes the last lines of its log.
        """
        if (code := self.process.poll()) is not None:
            log = (self.folder / "log").read_text(errors="replace")
            raise SystemExit(f"error: {self.name} ended with exit code {code}:\n{log[-2000:]}")
        return held_by(descendants(self.process.pid))

    def kill(self) -> None:
        """Kill one of the worker processes, or the command itself, which begins again."""
        workers = descendants(self.process.pid)[1:]
        if not workers:  # it has just begun
            return
        self.kills += 1
        if self.kills % _WHOLE:
            _signal(random.choice(workers), signal.SIGKILL)
            return
        self.process.kill()
        self.process.wait()
        self.start()

    def end(self) -> None:
        """Ask the command to save and end, as Ctrl+C does."""
        _signal(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def report(self) -> str:
        """Returns what was done, in words.

        Raises:
            SystemExit: If the collection has lost an episode, or has one twice.
        """
        if self.name == "rollouts":
            return f"{int((self.folder / 'episodes').read_text()):,} episodes"
        if self.name == "collection":
            (rows,) = self.folder.glob("data/.*.partial-*/episodes.jsonl")
            seeds = [json.loads(row)["seed"] for row in rows.open("rb")]
            if seeds != list(range(seeds[0], seeds[0] + len(seeds))):
                raise SystemExit("error: the collection has lost an episode, or has one twice")
            return f"{len(seeds):,} episodes, none lost; {self.kills} kills, {self.starts} starts"
        return (self.folder / "log").read_text(errors="replace").strip().rpartition("\n")[2]


def descendants(pid: int) -> list[int]:
    """Returns a process and those that it and its children have started."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        children.setdefault(int(fields[1]), []).append(int(path.parent.name))
    found = [pid]
    for each in found:
        found.extend(children.get(each, []))
    return found


def held_by(pids: Sequence[int]) -> dict[str, float]:
    """Returns the sums of what processes hold, by the names of `MEASURES`."""
    total = dict.fromkeys(MEASURES, 0.0)
    for pid in pids:
        place = Path("/proc", str(pid))
        try:
            lines = (place / "status").read_text().splitlines()
            status = {name: value.split() for name, _, value in (s.partition(":") for s in lines)}
            files = len(os.listdir(place / "fd"))  # noqa: PTH208 (of names alone)
        except OSError:  # it has ended
            continue
        if "VmRSS" not in status:  # a zombie
            continue
        total["processes"] += 1
        total["resident_mb"] += int(status["VmRSS"][0]) / 1024
        total["shared_mb"] += int(status["RssShmem"][0]) / 1024
        total["threads"] += int(status["Threads"][0])
        total["descriptors"] += files
    return total


def soak(parts: Sequence[Part], minutes: float, every: float) -> Iterator[dict[str, Any]]:
    """Yields a row of the table for each part and sample, until the time is over."""
    started = time.monotonic()
    next_kill = started + KILL_S
    while (now := time.monotonic()) < started + 60 * minutes:
        for part in parts:
            held = part.sample()
            yield {"part": part.name, "seconds": round(now - started, 1), **(held or {})}
        if now >= next_kill:
            next_kill += KILL_S
            for part in parts:
                if part.name == "collection":
                    part.kill()
        time.sleep(max(0.0, every - (time.monotonic() - now)))


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the parts, write the table and the figure, and print the verdicts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=60.0, help="(default: 60)")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--results", type=Path, default=ROOT / "data" / "results" / "soak.csv")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "soak.png")
    given = parser.parse_args(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        parts: list[Part] = []
        try:
            for name in given.parts:
                parts.append(Part(name, Path(folder, name)))
            rows.extend(soak(parts, given.minutes, given.every))
        finally:
            for part in parts:
                part.end()
        for part in parts:
            print(f"{part.name}: {part.report()}")
    write(rows, given.results)
    draw(rows, given.figure)
    growing = False
    for name in given.parts:
        for measure, label in MEASURES.items():
            grows, numbers = verdict([row for row in rows if row["part"] == name], measure)
            growing |= grows
            print(f"{name:<10}  {label:<18}  {'GROWING' if grows else 'flat':<7}  {numbers}")
    raise SystemExit(1 if growing else 0)


def _signal(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


if __name__ == "__main__":
    main()
