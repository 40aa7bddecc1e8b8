from __future__ import annotations

import gc

import pytest

from tests.processes import children, open_files


@pytest.fixture
def nothing_left_behind():
    """No process and no open file outlives the vector that had it."""
    gc.collect()  # what other tests left is not ours to count
    processes_before, files_before = children(), open_files()
    yield
    gc.collect()  # tracebacks that the test looked at hold on to views of the memory
    assert children() <= processes_before
    assert open_files() <= files_before
