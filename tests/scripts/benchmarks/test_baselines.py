"""The baselines compute what the model, the policy, the sampler and the trainer do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from rate.model import SequenceModel
from rate.policy import Policy
from rate.reference import load_reference, run_segments
from scripts.benchmarks import eager
from scripts.benchmarks.data import make_store, random_batch, sample
from scripts.benchmarks.eager import RATE
from scripts.benchmarks.full_window import FullWindowPolicy
from scripts.benchmarks.machine import Machine
from scripts.benchmarks.objectives import Update, make_batch, rules_of, with_rule
from scripts.benchmarks.public import PublicTraining, load_class, public_arguments
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.rows import Subject, quiet
from scripts.benchmarks.sampling import EpisodeList, per_sample_batch
from scripts.benchmarks.training import Cycle
from tests.scripts.benchmarks.tiny import tiny
from trainers.randomness import seed_step
from trainers.sequence import SequenceTrainer

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["tmaze", "vizdoom", "memory_maze", "minigrid"])
def test_the_eager_baseline_computes_what_the_reference_does(name: str) -> None:
    configuration = tiny(name, cache_length=20)
    training = PublicTraining(RATE, configuration, CPU)
    batch = training.prepare(random_batch(configuration.spec, 2, configuration.window))
    model = training.model.eval()
    reference = load_reference(public_arguments(configuration), model.state_dict())
    answers = run_segments(
        reference, batch.observations, batch.actions[..., None], batch.returns_to_go, 5
    )
    mems, tokens = None, model.mem_tokens.repeat(1, 2, 1)
    for number, answer in enumerate(answers):
        part = batch.steps(5 * number, 5 * number + 5)
        logits, mems, tokens = training._forward(part, mems, tokens)
        torch.testing.assert_close(logits, answer.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tokens.transpose(0, 1), answer.memory_tokens)


def test_modules_of_an_older_public_version_can_be_timed() -> None:
    class Older(RATE):
        def forward(self, states, actions, rtgs, target, timesteps, *mems, mem_tokens=None):
            out = super().forward(states, actions, rtgs, None, None, *mems, mem_tokens=mem_tokens)
            return [out["logits"], None, *(out["new_mems"] or ())], out["mem_tokens"]

    configuration = tiny("vizdoom", cache_length=20)
    batch = random_batch(configuration.spec, 2, configuration.window)
    losses = []
    for kind in (RATE, Older):
        torch.manual_seed(0)
        training = PublicTraining(kind, configuration, CPU)
        losses.append(training.step(training.prepare(batch)))
    assert losses[0] == losses[1]
    assert load_class(f"{eager.__file__}:Block").__name__ == "Block"


def test_every_segment_has_an_optimiser_step_of_its_own() -> None:
    configuration = tiny("tmaze")
    training = PublicTraining(RATE, configuration, CPU)
    training.step(training.prepare(random_batch(configuration.spec, 2, configuration.window)))
    steps = {int(state["step"]) for state in training.optimizer.state.values()}
    assert max(steps) == configuration.segments
    # As published, memory is detached at every border, so the valve gets no gradient.
    assert not any(p.grad is not None for p in training.model.mha_mem_to_mem.parameters())


def test_per_sample_batches_hold_windows_of_the_data_set(tmp_path: Path) -> None:
    spec = CONFIGURATIONS["vizdoom"].spec
    store = make_store(tmp_path / "store", spec, episodes=3, length=7)
    batch = per_sample_batch(store, 4, 10, np.random.default_rng(1))
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.observations.shape == (4, 10, 3, 64, 112)
    for row in range(4):
        real = int(batch.mask[row].sum())
        assert (batch.returns_to_go[row, :real] == 1).all()
        assert (batch.returns_to_go[row, real:] == 0).all()
        assert batch.episode_end[row].nonzero().item() == real - 1
    assert 0 < batch.observations.max() <= 1


def test_rules_are_those_that_learn_the_actions() -> None:
    rules = {"behaviour_cloning", "cql", "iql", "a2c", "vtrace"}
    assert rules_of(CONFIGURATIONS["tmaze"]) == sorted(rules | {"ddqn", "r2d2", "sac_discrete"})
    assert "td3_bc" in rules_of(CONFIGURATIONS["mujoco"])
    assert not {"ddqn", "r2d2", "sac_discrete"} & set(rules_of(CONFIGURATIONS["mujoco"]))


def test_a_list_of_episodes_holds_the_unrolls() -> None:
    unrolls = random_batch(CONFIGURATIONS["tmaze"].spec, 3, 7)
    batch = EpisodeList(unrolls, seed=1).sample(20)
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.observations.shape == (20, 7, 4)
    same = (batch.observations[:, None] == unrolls.observations).all(-1).all(-1)  # (20, 3)
    assert same.sum(1).eq(1).all()
    assert same.any(0).all()  # all are drawn
    number = same.int().argmax(1)
    assert torch.equal(batch.actions, unrolls.actions[number])


@pytest.mark.parametrize("rule", ["behaviour_cloning", "vtrace"])
def test_an_update_that_is_timed_is_a_step_of_training(rule: str, tmp_path: Path) -> None:
    own = replace(tiny("tmaze"), batch_size=2, cpu_batch_size=2)
    at_once = {"optimizer.warmup_steps": 0}
    subject = Subject(own, Machine(CPU, "none", 1.0, 1.0, 1.0), tmp_path, settings=at_once)
    with quiet():
        update = Update(subject, rule)
        seed_step(subject.run.training.seed, 0, 0, CPU)  # as training does before each batch
        update()
        module = SequenceTrainer(with_rule(subject, rule).run, own.spec)
        module.objective.begin(module.model, None)
        trainer = Trainer(
            accelerator="cpu",
            max_steps=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=tmp_path,
        )
        trainer.fit(module, train_dataloaders=Cycle([make_batch(subject, rule)]))
    before = SequenceTrainer(with_rule(subject, rule).run, own.spec).state_dict()
    weights = update.module.state_dict()
    assert any(not torch.equal(weights[name], before[name]) for name in weights)
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weights[name], weight, rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("name", ["tmaze", "mujoco"])
def test_the_full_window_baseline_acts_as_the_policy(name: str) -> None:
    configuration = tiny(name)
    spec = configuration.spec
    model = SequenceModel(configuration.model, spec.observation_space, spec.action_space)
    ours = Policy(model, num_envs=1, target_return=1.0)
    theirs = FullWindowPolicy(model, target_return=1.0)
    for observation in sample(spec.observation_space, 12, np.random.default_rng(0)):
        expected = ours.act(observation[None], np.array([0.1]))
        found = theirs.act(observation[None], np.array([0.1]))
        np.testing.assert_allclose(found, expected, atol=1e-5)
