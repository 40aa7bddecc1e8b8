"""Stop signals in every phase of a run: saved files and messages."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trainers.train
from rate import stopping
from rate.envs.tmaze import TMazeVector
from rate.stopping import (
    SIGNALS,
    StopHandler,
    Stopped,
    message_on_stop,
    stop_signals,
    with_number,
)
from tests.processes import PATIENCE
from tests.trainers.conftest import MakeConfig
from tests.trainers.fakes import with_parts
from tests.trainers.test_resume import same_run
from trainers.errors import Interrupted
from trainers.registry import get_environment
from trainers.train import train

names = pytest.mark.parametrize("number", SIGNALS, ids=lambda number: signal.Signals(number).name)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def at(wanted: int, *numbers: int) -> Callable[[str, int, int], None]:
    """Returns a report that sends signals during a step."""

    def report(phase: str, step: int, total: int) -> None:
        if phase == "training" and step == wanted:
            for number in numbers:
                send(number)

    return report


@pytest.fixture
def unstoppable(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """T-Mazes that send a signal at each step from the n-th rollout on, which then has to stop."""
    plan: dict[str, Any] = {"resets": 0, "number": None, "steps_after": 0}

    class Vector(TMazeVector):
        def reset(self, **how: Any) -> Any:
            plan["resets"] -= 1
            return super().reset(**how)

        def step(self, actions: Any) -> Any:
            if plan["resets"] >= 0 or plan["number"] is None:
                return super().step(actions)
            plan["steps_after"] += 1
            assert plan["steps_after"] < 3, "the rollout goes on"
            send(plan["number"])
            return super().step(actions)

    entry = with_parts(get_environment("tmaze"), make_vector=Vector)
    monkeypatch.setattr(trainers.train, "environment_of_run", lambda _: entry)
    return plan


@pytest.fixture(autouse=True)
def heard() -> Iterator[None]:
    """`nohup` lets its processes ignore SIGHUP, and this project then does so too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@names
def test_a_signal_in_training_saves_the_step(make_config: MakeConfig, number: int) -> None:
    before = {n: signal.getsignal(n) for n in SIGNALS}
    config = make_config()
    with pytest.raises(Interrupted) as caught:
        train(config, report=at(5, number))
    assert caught.value.number == number
    folder = Path(config.logging.output) / config.run_name
    name = signal.Signals(number).name
    said = (
        rf"Stopped by {name} after step 5\. The state of step 5 is in {folder}/.*--resume {folder}"
    )
    assert re.fullmatch(said, str(caught.value))
    assert {n: signal.getsignal(n) for n in SIGNALS} == before
    assert train(config, resume="auto").steps == 8
    same_run(train(make_config(logging__name="whole")).folder, folder)


@pytest.mark.parametrize(("rollout", "step"), [(1, 4), (2, 8)])
@pytest.mark.parametrize("again", [False, True])
def test_a_rollout_is_stopped_at_once_and_repeated_on_resume(
    make_config: MakeConfig, unstoppable: dict[str, Any], rollout: int, step: int, again: bool
) -> None:
    """Includes the rollout after the last step, and a second signal when it is repeated."""
    config = make_config()
    unstoppable.update(resets=rollout - 1, number=signal.SIGTERM)
    with pytest.raises(Interrupted, match=f"after step {step}. The state of step {step} is in"):
        train(config)
    if again:
        unstoppable.update(resets=0, steps_after=0)
        with pytest.raises(Interrupted, match=f"The state of step {step} is in"):
            train(config, resume="auto")
    unstoppable["number"] = None
    folder = train(config, resume="auto").folder
    whole = train(make_config(logging__name="whole")).folder
    same_run(whole, folder)
    for file in ("checkpoints/best/model.safetensors", "checkpoints/best/model.json"):
        assert (whole / file).read_bytes() == (folder / file).read_bytes()


def test_a_signal_while_scoring_leaves_a_trained_run(
    make_config: MakeConfig, unstoppable: dict[str, Any]
) -> None:
    config = make_config()
    unstoppable.update(resets=2, number=signal.SIGUSR1)
    with pytest.raises(
        Stopped, match=r"SIGUSR1 while scoring\. Training is complete; `.* --resume"
    ):
        train(config)
    unstoppable["number"] = None
    assert train(config, resume="auto").rows


def test_a_second_ctrl_c_does_not_wait_for_the_step(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "_ECHO_S", 0.0)
    with pytest.raises(Interrupted, match=r"SIGINT at once\. The state of step 3 is in") as caught:
        train(make_config(), report=at(5, signal.SIGINT, signal.SIGINT))
    assert caught.value.number == signal.SIGINT
    assert train(make_config(), resume="auto").steps == 8


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_a_repeated_signal_is_ignored(make_config: MakeConfig, second: int) -> None:
    """A terminal and a launcher may both forward the same signal."""
    with pytest.raises(Interrupted, match="SIGINT after step 5"):
        train(make_config(), report=at(5, signal.SIGINT, second))


def test_a_signal_before_training_leaves_no_files(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = trainers.train.make_datamodule

    def interrupted(*arguments: Any) -> Any:
        send(signal.SIGHUP)
        return make(*arguments)

    config = make_config()
    with monkeypatch.context() as patch:
        patch.setattr(trainers.train, "make_datamodule", interrupted)
        with pytest.raises(Stopped, match=r"SIGHUP before training\. .* the same command goes on"):
            train(config)
    assert not (Path(config.logging.output) / config.run_name).exists()
    assert train(config).steps == 8


def test_a_signal_before_the_first_step_is_obeyed(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal comes during the setup of Lightning, which handles Ctrl+C itself."""
    from datamodules.trajectories import TrajectoryDataModule

    setup = TrajectoryDataModule.setup

    def interrupted(self: TrajectoryDataModule, stage: str) -> None:
        send(signal.SIGTERM)
        setup(self, stage)

    with monkeypatch.context() as patch:
        patch.setattr(TrajectoryDataModule, "setup", interrupted)
        with pytest.raises(Interrupted, match="Nothing was saved yet: the same command begins"):
            train(make_config())
    assert train(make_config()).steps == 8


def test_other_handlers_and_ignored_signals_are_kept() -> None:
    heard: list[int] = []
    signals = (signal.SIGHUP, signal.SIGUSR1)
    before = [signal.getsignal(number) for number in signals]
    try:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
        with stop_signals():
            send(signal.SIGHUP)
            send(signal.SIGUSR1)
            assert isinstance(signal.getsignal(signal.SIGUSR2), StopHandler)
        assert heard == [signal.SIGUSR1]
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def test_threads_do_not_change_signal_handlers(make_config: MakeConfig) -> None:
    """Training in a background thread, as in a notebook."""
    before = {n: signal.getsignal(n) for n in SIGNALS}
    seen: list[Any] = []

    def report(phase: str, step: int, total: int) -> None:
        seen.append({n: signal.getsignal(n) for n in SIGNALS})

    with warnings.catch_warnings():
        thread = threading.Thread(target=train, args=(make_config(),), kwargs={"report": report})
        thread.start()
        thread.join()
    assert seen
    assert all(handlers == before for handlers in seen)


def test_the_innermost_message_is_kept() -> None:
    outer, inner = message_on_stop(": outer"), message_on_stop(": inner")
    with pytest.raises(Stopped) as caught, outer, stop_signals(), inner:
        send(signal.SIGUSR2)
    assert str(caught.value) == "Stopped by SIGUSR2: inner"
    with pytest.raises(KeyboardInterrupt) as plain, message_on_stop(": as well"):
        raise KeyboardInterrupt
    assert str(plain.value) == "Stopped by SIGINT: as well"


def test_an_interrupt_that_a_library_replaces_keeps_the_signal() -> None:
    def wait() -> None:  # as Ray's C++ code does
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(PATIENCE)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None

    with stop_signals(), pytest.raises(Stopped) as caught, with_number():
        wait()
    assert caught.value.number == signal.SIGTERM
    with stop_signals(), pytest.raises(KeyboardInterrupt) as other, with_number():
        raise KeyboardInterrupt
    assert not isinstance(other.value, Stopped)
