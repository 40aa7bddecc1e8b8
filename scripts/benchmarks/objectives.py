"""Timing of an update of every learning rule, in turns with behaviour cloning."""

from __future__ import annotations

import math
import statistics
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from rate.batch import Batch
from rate.errors import ConfigError
from scripts.benchmarks.configurations import Configuration
from scripts.benchmarks.rows import Row, Subject, quiet
from scripts.benchmarks.timing import Turns, quartiles
from trainers.config_learning import BEHAVIOUR_CLONING
from trainers.objectives import OBJECTIVES, objective_settings
from trainers.sequence import SequenceTrainer

# Its batches have what on-policy rules need: the observation that follows a cut.
_OFFLINE = "iql"


def time_objectives(subject: Subject, budget: float) -> list[Row]:
    """Updates of one model by each rule that learns its actions, on batches on the device.

    An update is the gradient of the whole window, its clipping, the optimiser's step and that of
    target networks, without Lightning. `ratio` is the speed relative to behaviour cloning.
    """
    others = [rule for rule in rules_of(subject.configuration) if rule != BEHAVIOUR_CLONING]
    rules = [BEHAVIOUR_CLONING, *others]
    contestants = {rule: partial(Update, subject, rule) for rule in rules}
    turns = Turns(contestants, subject.device, budget)
    with quiet():
        turns.run()
    rows = subject.failed("objectives", turns.failed)
    timings = turns.timings()
    cloning = timings.get(BEHAVIOUR_CLONING)
    for rule, timing in timings.items():
        row = subject.row("objectives", rule, peak_memory=turns.memory[rule])
        row = row.timed(timing, subject.batch * subject.configuration.window)
        if cloning is not None and rule != BEHAVIOUR_CLONING:
            pairs = zip(cloning.blocks, timing.blocks, strict=True)
            ratios = [theirs / own for theirs, own in pairs]
            row = replace(row, ratio=statistics.median(ratios))
            if len(ratios) > 1:
                low, high = quartiles(ratios)
                row = replace(row, ratio_low=low, ratio_high=high)
        rows.append(row)
    return rows


def rules_of(configuration: Configuration) -> list[str]:
    """Returns the names of the rules that learn the actions of a configuration."""
    found = []
    for rule in OBJECTIVES.own_names():
        with suppress(ConfigError):
            space = configuration.spec.action_space
            objective_settings(rule)().check_actions(rule, space)
            found.append(rule)
    return sorted(found)


def with_rule(subject: Subject, rule: str) -> Subject:
    """Returns a subject whose run learns by a rule with its default settings, told no returns."""
    settings: dict[str, Any] = {"training.objective": rule, "loss": {}}
    settings["model.condition_on_return"] = False
    if objective_settings(rule).on_policy:
        settings |= {"data.source": "online", "data.store": None}
    return replace(subject, settings={**settings, **(subject.settings or {})})


def make_batch(subject: Subject, rule: str) -> Batch:
    """Returns a batch of the data on the device, as a rule takes it.

    Rules that learn from their own unrolls take the data for these. Those that correct for the lag
    of the policy are told that every action had probability 1.
    """
    kind = objective_settings(rule)
    (batch,) = with_rule(subject, _OFFLINE if kind.on_policy else rule).batches(1)
    if kind.corrects_for_lag:
        batch = replace(batch, behaviour=torch.zeros_like(batch.rewards))
    return batch


class Update:
    """Takes an optimiser step by a rule at each call.

    Attributes:
        module: The model and the rule.
    """

    def __init__(self, subject: Subject, rule: str) -> None:
        self._batch, subject = make_batch(subject, rule), with_rule(subject, rule)
        self.module = SequenceTrainer(subject.run, subject.configuration.spec).to(subject.device)
        self.module.objective.begin(self.module.model, None)
        (self._optimizer,), _ = self.module.configure_optimizers()
        self._trained = [each for each in self.module.parameters() if each.requires_grad]
        self._limit = subject.run.optimizer.gradient_clip or math.inf

    def __call__(self) -> None:
        model, cut = self.module.model, self.module.config.training.bptt_segments
        features, _, losses = model.features_and_losses(self._batch, detach_every=cut)
        sums = self.module.sums(self._batch, features, losses)
        self._optimizer.zero_grad(set_to_none=True)
        (sums.loss / sums.weight).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._trained, self._limit)
        self._optimizer.step()
        model.backbone.after_step()
        self.module.objective.after_step(model)
