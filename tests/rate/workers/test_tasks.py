"""Tasks in worker processes: their order, how far they run ahead, and how workers end."""

from __future__ import annotations

import os
import time
from contextlib import closing
from functools import partial

import pytest

from rate.workers.child import WorkerFailure
from rate.workers.tasks import TaskFailure, run_tasks
from tests.processes import alive, wait_until


class Sleep:
    """Sleeps for a task's seconds; notes that it has begun in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __call__(self, task, beat):
        number, seconds = task
        (self.folder / str(number)).touch()
        time.sleep(seconds)
        return number, os.getpid()

    def close(self):
        (self.folder / f"closed-{os.getpid()}").touch()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_tasks(tmp_path, workers):
    tasks = [(0, 0.3), *((number, 0.0) for number in range(1, 12))]
    results = list(run_tasks(partial(Sleep, tmp_path), tasks, workers))
    assert [number for number, _ in results] == list(range(12))
    pids = {pid for _, pid in results}
    assert len(pids) <= max(workers, 1)
    assert {int(path.name[7:]) for path in tmp_path.glob("closed-*")} == pids
    assert not any(alive(pid) for pid in pids - {os.getpid()})


def test_few_results_wait_for_a_slow_task(tmp_path):
    tasks = [(0, 3.0), *((number, 0.0) for number in range(1, 40))]
    with closing(run_tasks(partial(Sleep, tmp_path), tasks, 2)) as results:
        next(results)
        assert len(list(tmp_path.iterdir())) <= 9
    wait_until(lambda: len(list(tmp_path.glob("closed-*"))) == 2)


def test_what_ends_early_ends_its_workers(tmp_path):
    tasks = [(0, 0.0), (1, 3600.0)]
    with closing(run_tasks(partial(Sleep, tmp_path), tasks, 1)) as results:
        _, pid = next(results)
        assert alive(pid)
    assert not alive(pid)


def test_a_task_that_fails_is_tried_again_by_a_new_worker(tmp_path):
    def perform(task, beat):
        begun = tmp_path / str(task)
        if not begun.exists():
            begun.touch()
            raise RuntimeError("a hiccup")
        return task

    assert list(run_tasks(lambda: perform, [1, 2, 3], 2)) == [1, 2, 3]
    with pytest.raises(TaskFailure, match=r"failed 1 times: (?s:.*)RuntimeError: a hiccup"):
        list(run_tasks(lambda: perform, [4], 1, attempts=1))


class Unreadable:
    def __reduce__(self):
        return int, ("no number",)


def test_what_cannot_travel_is_told_at_once():
    make = partial(Sleep, Unreadable())
    with pytest.raises(WorkerFailure, match=r"(?s)cannot begin:.*ValueError: .*no number"):
        list(run_tasks(make, [1], 1))
