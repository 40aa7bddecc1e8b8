"""Exceptions of environments are reported with the episode, the step and the line of code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from rate.envs.serial_vector import SerialVectorEnv
from rate.envs.tmaze import TMaze
from rate.envs.worker_vector import WorkerVectorEnv
from rate.errors import UserError
from tests.trainers.test_rollout import entry_of, make_model
from trainers.commands.console import user_errors
from trainers.config import EvaluationConfig
from trainers.environment_errors import environment_errors
from trainers.rollout import evaluate


class Faulty(TMaze):
    """A T-Maze of 9 steps that raises at step 3 of the episode of seed 6, or at its reset."""

    at_reset = False

    def __init__(self) -> None:
        super().__init__(9)
        self.seed, self.steps = 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        self.seed, self.steps = seed or 0, 0
        if self.at_reset and seed == 6:
            raise KeyError("no such maze")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> Any:
        if self.seed == 6 and self.steps == 3:
            raise ZeroDivisionError("a wall of length 0")
        self.steps += 1
        return super().step(action)


class FaultyReset(Faulty):
    at_reset = True


def in_this_process(env: type[Faulty]) -> Callable[[int, Any], Any]:
    return lambda num_envs, length: SerialVectorEnv(env, num_envs)


def in_workers(env: type[Faulty]) -> Callable[[int, Any], Any]:
    return lambda num_envs, length: WorkerVectorEnv(env, num_envs, 2)


@pytest.mark.parametrize("make", [in_this_process, in_workers])
@pytest.mark.parametrize(
    ("env", "expected"),
    [
        (Faulty, r"ZeroDivisionError: a wall of length 0 .*of seed 6, at step 3 \(counted"),
        (FaultyReset, r"KeyError: 'no such maze' .*of seed 6, at step 0 "),
    ],
)
def test_the_episode_the_step_and_the_line_are_reported(
    make: Callable[[type[Faulty]], Any], env: type[Faulty], expected: str
) -> None:
    config = EvaluationConfig(return_to_go="decrease", episodes=4, num_envs=2)
    entry = entry_of(make(env))
    with pytest.raises(UserError, match=expected) as caught:
        evaluate(make_model(), entry, config, lengths=[9], first_seed=5)
    message = str(caught.value)
    assert message.startswith("The environment tmaze does not work: ")
    assert "test_environment_errors.py, line " in message
    assert type(caught.value.__cause__) is (KeyError if env.at_reset else ZeroDivisionError)


def test_other_exceptions_are_passed_on() -> None:
    with pytest.raises(ZeroDivisionError), environment_errors("walk"):
        raise ZeroDivisionError


@pytest.mark.parametrize("debug", ["", "1"])
def test_the_traceback_is_shown_on_request(
    debug: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("RATE_DEBUG", debug)
    with pytest.raises(SystemExit), user_errors():
        raise UserError("it does not work")
    shown = capsys.readouterr().err
    assert "it does not work" in shown
    assert ("Traceback (most recent call last)" in shown) == bool(debug)
