"""Runs of the learning rules with values: resumed, recorded, refused, and acting alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box

from datamodules.episodes import Episode
from datamodules.store import Store
from datamodules.writing import write_store
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.policy import Policy
from rate.weights import load_model
from tests.trainers.objectives.test_own import column, state
from tests.trainers.test_graphs import EXACT, OFF, repeat
from tests.trainers.test_resume import StopAt, same_run
from trainers import graphs
from trainers.cli import parse
from trainers.config import NO_ENVIRONMENT
from trainers.config_files import config_from_dict
from trainers.sequence import SequenceTrainer
from trainers.train import train

VALUES = {
    "model__condition_on_return": False,
    "training__max_steps": 5,
    "training__checkpoint_every_n_steps": 2,
    "training__log_every_n_steps": 1,
    "evaluation__every_n_steps": 0,
    "loss__critic_width": 8,
}


@pytest.fixture
def continuous(tmp_path: Path) -> Path:
    """A store of truncated episodes with bounded continuous actions."""
    spaces = Box(-1, 1, (2,), np.float32), Box(-2, 1, (2,), np.float32)
    rng = np.random.default_rng(0)

    def episode(number: int) -> Episode:
        seen, actions = (rng.uniform(-1, 1, (8, 2)).astype(np.float32) for _ in range(2))
        rewards = actions[:, 0].copy()
        return Episode(seen, actions, rewards, False, True, number, seen[-1])

    spec = EnvironmentSpec("reach", *spaces, target_return=1.0)
    write_store(map(episode, range(12)), tmp_path / "reach", spec, {"source": "a test"})
    return tmp_path / "reach"


@pytest.mark.parametrize("rule", ["ddqn", "cql", "iql", "sac_discrete", "td3_bc", "cql_continuous"])
def test_a_resumed_run_equals_an_uninterrupted_one(make_config, continuous, rule) -> None:
    changes = {**VALUES, "training__objective": rule.removesuffix("_continuous")}
    if rule in ("td3_bc", "cql_continuous"):
        changes |= {"data__store": str(continuous), "training__segments": 2}

    def run(name: str, at: int | None = None, resume: Path | None = None) -> Path:
        config = make_config(logging__name=name, **changes)
        if "data__store" in changes:
            config = replace(config, environment=NO_ENVIRONMENT)
        report = None if at is None else StopAt(at)
        folder = Path(config.logging.output) / config.run_name
        if at is None:
            return train(config, resume=resume).folder
        with pytest.raises(RuntimeError, match="crash"):
            train(config, report=report)
        return folder

    whole, folder = run("whole"), run("parts", at=3)
    run("parts", resume=folder)
    same_run(whole, folder)
    mine, others = state(whole), state(folder)
    assert any(name.startswith("target.") for name in mine)
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert len(column(whole, "td_error")) == 5
    assert not (whole / "checkpoints" / "best").exists()


def test_steps_of_cuda_graphs_are_equal(make_config, monkeypatch) -> None:
    changes = {**VALUES, "training__objective": "cql", **OFF, **EXACT}
    plain = train(make_config(logging__name="plain", **changes)).folder
    monkeypatch.setattr(graphs, "record", repeat)
    monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
    folder = train(make_config(logging__name="graphs", **changes)).folder
    same_run(plain, folder)
    mine, others = state(plain), state(folder)
    assert all(torch.equal(mine[name], others[name]) for name in mine)


def test_the_target_network_starts_as_the_model_does(make_config, data_root) -> None:
    """With the scales of the data and the weights of `training.init`."""
    config = make_config(**VALUES, training__objective="ddqn")
    module = SequenceTrainer(config, Store.open(data_root / "tmaze-12-60-seed0").spec)
    with torch.no_grad():
        module.model.head.linear.weight.zero_()
    module.objective.begin(module.model, Store.open(data_root / "tmaze-12-60-seed0"))
    for name, weight in module.objective.target.model.state_dict().items():
        assert torch.equal(weight, module.model.state_dict()[name])
    # The largest reward is 1 and an episode has at most 11 steps, all of which are terminated.
    assert module.objective.largest == pytest.approx((1 - 0.99**11) / 0.01)


def test_values_that_diverge_are_told_with_the_step(make_config, monkeypatch) -> None:
    monkeypatch.setattr("trainers.objectives.values.ValueObjective.begin", lambda *_: None)
    monkeypatch.setattr("trainers.objectives.ddqn.DDQN.__init__", _with_limit(0.0), raising=True)
    with pytest.warns(UserWarning, match=r"At optimiser step 1, values diverge") as told:
        train(make_config(**VALUES, training__objective="ddqn"))
    assert sum("diverge" in str(each.message) for each in told) == 1


def _with_limit(limit: float):  # type: ignore[no-untyped-def]
    from trainers.objectives.ddqn import DDQN

    plain = DDQN.__init__

    def init(self, *given) -> None:  # type: ignore[no-untyped-def]
        plain(self, *given)
        self.largest = limit

    return init


def test_the_saved_model_acts_greedily_alone(make_config) -> None:
    """It needs neither the objective nor a return."""
    result = train(make_config(**VALUES, training__objective="cql", loss__dueling=True))
    saved = load_model(result.folder)
    assert not any(name.startswith(("target", "heads")) for name in saved.model.state_dict())
    policy = Policy(saved.model, num_envs=2, target_return=saved.spec.target_return)
    step = policy.step(np.zeros((2, 4), np.float32))
    assert step.actions.tolist() == step.predictions.argmax(-1).tolist()
    assert {"which", "length", "success"} <= result.rows[0].keys()


COMMAND = ["--training.objective"]


def test_the_command_line_has_its_settings_and_hides_returns() -> None:
    config = parse("tmaze", [*COMMAND, "cql", "--loss.conservative_weight", "2"]).config
    assert not config.model.condition_on_return
    assert vars(config.loss)["conservative_weight"] == 2
    assert config.run_name == "tmaze-rate-cql-1"
    assert config_from_dict(config.to_dict()) == config
    r2d2 = parse("tmaze", [*COMMAND, "r2d2"]).config.loss
    assert {"n_step": 5, "dueling": True, "rescale_values": True}.items() <= vars(r2d2).items()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ("td3_bc", r"training\.objective=td3_bc learns continuous actions.* discrete: Discrete\(4"),
        ("cql --model.condition_on_return true", r"Set model\.condition_on_return=false"),
        ("ddqn --loss.n_step 90", r"loss\.n_step=90 is longer than a training window of 90"),
        ("r2d2 --loss.burn_in 90", r"loss\.burn_in=90 leaves nothing of a training window of 90"),
        ("iql --training.bptt_segments 0", r"segments one by one.*Set training\.bptt_segments=1"),
        (
            "iql --curriculum.enabled false --data.window consecutive",
            r"data\.window=consecutive trains on windows one by one",
        ),
        ("iql --loss.expectile 1", r"loss\.expectile is 1"),
        ("cql --loss.discount 1.5", r"loss\.discount is 1\.5"),
        ("cql --loss.target_rate 0", r"loss\.target_rate is 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse("tmaze", [*COMMAND, *options.split()])


def test_discrete_rules_and_settings_refuse_continuous_actions(continuous) -> None:
    data = ["--data", str(continuous), "--training.objective"]
    with pytest.raises(ConfigError, match=r"ddqn learns discrete actions.*are continuous: Box"):
        parse("none", [*data, "ddqn"])
    with pytest.raises(ConfigError, match=r"loss\.dueling=True is of discrete actions"):
        parse("none", [*data, "cql", "--loss.dueling", "true"])


def test_data_without_rewards_are_refused(make_config, continuous, tmp_path) -> None:
    store, zeros = Store.open(continuous), np.zeros(8, np.float32)
    episodes = (replace(store.episode(n), rewards=zeros) for n in range(store.num_episodes))
    write_store(episodes, tmp_path / "unpaid", store.spec, {"source": "a test"})
    config = make_config(
        **VALUES,
        training__objective="td3_bc",
        data__store=str(tmp_path / "unpaid"),
        training__segments=2,
    )
    with pytest.raises(ConfigError, match=r"every reward is 0.*--map THEIRS=rewards"):
        train(replace(config, environment=NO_ENVIRONMENT))
