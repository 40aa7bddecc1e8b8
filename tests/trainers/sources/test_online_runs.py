"""Runs that act while they learn: resumed, refused, and what they write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from rate.errors import ConfigError
from tests.trainers.objectives.test_own import column, state
from tests.trainers.test_resume import StopAt, same_run
from trainers.cli import parse
from trainers.config import NO_ENVIRONMENT, RunConfig
from trainers.train import train

# Corridors of 20 steps, unrolls of at most 11, and a replay that is soon full.
ONLINE: dict[str, Any] = {
    "data__source": "online",
    "data__max_length": 20,
    "model__condition_on_return": False,
    "online__num_envs": 3,
    "online__capacity": 9,
    "online__begin_after": 4,
    "training__max_steps": 7,
    "training__log_every_n_steps": 1,
    "evaluation__every_n_steps": 0,
}
RULES: dict[str, dict[str, Any]] = {
    "r2d2": {"online__priority_exponent": 0.6, "loss__burn_in": 3},
    "sac_discrete": {"online__updates": 2},
    "vtrace": {"online__updates": 2, "online__capacity": 5000, "loss__critic_width": 8},
}


def run_of(make_config, name: str, at: int | None = None, **changes: Any) -> Path:
    """Trains, and crashes at a step and goes on if told to; returns the run's folder."""
    config = make_config(logging__name=name, **{**ONLINE, **changes})
    if at is None:
        return train(config).folder
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(at))
    folder = Path(config.logging.output) / config.run_name
    return train(config, resume=folder).folder


@pytest.mark.parametrize("rule", RULES)
def test_a_resumed_run_equals_an_uninterrupted_one(make_config, monkeypatch, rule) -> None:
    """With episodes that a crash interrupts, and unrolls that were overwritten after the save."""
    monkeypatch.setattr("trainers.sources.online._EPOCH", 4)  # Lightning's epochs change nothing
    changes = {"training__objective": rule, **RULES[rule]}
    whole, parts = (
        run_of(make_config, "whole", **changes),
        run_of(make_config, "parts", 6, **changes),
    )
    same_run(whole, parts)
    mine, others = state(whole), state(parts)
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    steps = column(whole, "online/steps")
    assert steps == sorted(steps)
    assert steps[-1] > 60


def test_recorded_data_are_a_share_of_every_batch(make_config, data_root) -> None:
    """A run that begins with the weights of an offline one, and resumes as it would go on."""
    offline = run_of(
        make_config,
        "offline",
        data__source="offline",
        training__objective="cql",
        online__num_envs=16,
        online__capacity=5000,
        online__begin_after=64,
    )
    changes = {
        "training__objective": "cql",
        "training__init": str(offline),
        "training__batch_size": 6,
        "data__store": str(data_root / "tmaze-12-60-seed0"),
        "online__data_share": 0.34,
    }
    whole, parts = (
        run_of(make_config, name, at, **changes) for name, at in (("a", None), ("b", 6))
    )
    same_run(whole, parts)
    saved = torch.load(whole / "checkpoints" / "last.ckpt", weights_only=True)
    assert saved["OnlineData"]["replay"]["count"] > 0


def command(options: str, environment: str = "memory_length") -> RunConfig:
    return parse(environment, ["--model", "lstm", *options.split()]).config


def test_the_command_line_turns_a_preset_into_a_run_in_its_environment() -> None:
    config = command("--source online --training.objective r2d2 --data.max_length 10")
    assert config.is_online
    assert config.window == 12  # eleven steps, and the observation after an unroll
    assert not config.model.condition_on_return
    assert config.run_name == "memory_length-lstm-r2d2-online-1"
    own = command("--source online --training.objective ddqn", "CartPole-v1")
    assert not own.data.normalise
    made = parse("tmaze", ["--source", "online", "--training.objective", "a2c"])
    assert not made.config.curriculum.enabled
    assert made.config.run_name == "tmaze-rate-a2c-online-1"
    assert not made.notes  # --source is no flag of the public code


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("", r"behaviour_cloning learns from offline batches alone.*ddqn, r2d2, sac_discrete, a2c"),
        ("a2c --data.source offline", r"a2c learns from online batches.*Set --source online"),
        ("cql --data.source offline --online.updates 2", r"settings online\.\* are of training in"),
        ("r2d2 --loss.burn_in 6", r"loss\.burn_in=6, more than half of an unroll of 11 steps"),
        ("ddqn --curriculum.enabled true", r"online does not go with curriculum\.enabled=true"),
        ("ddqn --data.normalise true", r"online does not go with data\.normalise=true"),
        ("ddqn --training.devices 2", r"2 x 1 devices: one process acts and learns"),
        ("a2c --online.updates 2", r"a2c learns once from each unroll.*or choose vtrace"),
        ("vtrace --online.exploration epsilon", r"vtrace acts by samples of its policy"),
        ("vtrace --data.store somewhere", r"not from those in somewhere.*--init RUN"),
        ("ddqn --online.begin_after 9 --online.capacity 8", r"online\.begin_after=9 unrolls never"),
        ("ddqn --online.epsilon 1.5", r"online\.epsilon is 1\.5"),
        ("ddqn --online.temperature 0", r"online\.temperature is 0"),
        (
            "ddqn --online.final_epsilon 0 --online.epsilon_decay exponential",
            r"exponential never reaches 0",
        ),
        ("ddqn --online.exploration greedy", r"online\.exploration"),
        (
            "ddqn --online.priority_exponent 1 --training.cuda_graphs always "
            "--training.accelerator gpu",
            r"cuda_graphs=always and priorities",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: str, told: str) -> None:
    rule = f"--training.objective {options}" if options else ""
    with pytest.raises(ConfigError, match=told):
        command(f"--data.max_length 10 --source online {rule}")


def test_data_without_an_environment_are_refused(walks) -> None:
    words = ["--data", str(walks), "--source", "online", "--training.objective", "ddqn"]
    with pytest.raises(ConfigError, match="environment=none: there is nothing to act in"):
        parse(NO_ENVIRONMENT, words)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("ddqn", "ddqn learns discrete actions.*are continuous"),
        ("vtrace", "vtrace learns discrete actions.*are continuous"),
        ("td3_bc --online.exploration softmax", "softmax is of discrete actions"),
    ],
)
def test_continuous_actions_are_refused_by_discrete_rules(options, told, tmp_path) -> None:
    words = f"--source online --training.objective {options} --logging.output {tmp_path}"
    with pytest.raises(ConfigError, match=told):
        train(parse("Pendulum-v1", [*words.split(), "--model", "lstm"]).config)
