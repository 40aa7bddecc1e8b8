from __future__ import annotations

import os
import threading
import warnings

import pytest

from rate import locks
from rate.locks import locked
from tests.users import another_user, needs_root, posix


def hold(path, entered, leave):
    with locked(path, "thinking"):
        entered.set()
        leave.wait(30)


@pytest.mark.parametrize("readable", [False, pytest.param(True, marks=needs_root)])
def test_one_waits_for_the_other_and_says_so(common, monkeypatch, readable):
    monkeypatch.setattr(locks, "_PATIENCE_S", 0.1)
    path, entered, leave = common / ".lock", threading.Event(), threading.Event()
    thread = threading.Thread(target=hold, args=(path, entered, leave))
    thread.start()
    assert entered.wait(30)
    if readable:
        path.chmod(0o644)
    warned = threading.Event()

    def show(message, *_, **__):
        assert f"Waiting: another process is dreaming ({path})" in str(message)
        warned.set()
        leave.set()

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = show
        if readable:
            with another_user(), locked(path, "dreaming"):
                assert warned.is_set()
        else:
            with locked(path, "dreaming"):
                assert warned.is_set()
    thread.join()


@needs_root
def test_a_lock_of_another_user_in_a_shared_folder_serves(common):
    common.chmod(0o1777)
    path = common / ".lock"
    path.touch(mode=0o644)
    with another_user(), locked(path, "working"):
        pass
    mask = os.umask(0o077)
    try:
        with locked(common / ".new", "working"):
            pass
    finally:
        os.umask(mask)
    with another_user(), locked(common / ".new", "working"):
        pass


@posix
def test_a_link_is_no_lock(common):
    (common / "target").write_text("precious")
    (common / ".lock").symlink_to(common / "target")
    with pytest.raises(OSError, match=r"\.lock"), locked(common / ".lock", "working"):
        pass
    assert (common / "target").read_text() == "precious"


@needs_root
def test_an_error_of_the_work_under_a_lock_is_the_work_s(common):
    with pytest.raises(PermissionError, match="mine"), locked(common / ".lock", "working"):
        raise PermissionError("mine")
