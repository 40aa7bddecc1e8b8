"""The end of curriculum stages."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from trainers.callbacks import Curriculum
from trainers.config_learning import CurriculumConfig

STAGES, BATCHES = 6, 400


class FakeData:
    """A data module that only records its stages."""

    segments, stage, batches_done = STAGES, None, 0

    def __init__(self) -> None:
        self.begun: list[tuple[int, int]] = []

    def make_sampler(self, segments: int) -> None:
        """Accepts every stage."""

    def set_curriculum(self, segments: int, start_step: int) -> None:
        self.begun.append((segments, start_step))


def batches(seed: int) -> list[tuple[int, int]]:
    """Returns ended episodes and correct last actions of each batch; their share grows."""
    rng = np.random.default_rng(seed)
    ended = rng.integers(0, 5, BATCHES)
    chance = np.minimum(1.0, np.linspace(0.3, 1.2, BATCHES))
    return [(int(n), int(rng.binomial(n, p))) for n, p in zip(ended, chance, strict=True)]


def stages_of_the_definition(found, config: CurriculumConfig) -> list[int]:
    """Returns the batch after which each stage begins, if metrics are read at every step."""
    begun, accuracies = [0], []
    for step, (weight, correct) in enumerate(found, 1):
        if len(begun) == STAGES:
            break
        accuracies += [correct / weight] if weight else []
        last = accuracies[-config.window :]
        learnt = len(last) == config.window and sum(last) / len(last) >= config.threshold
        if learnt or (config.max_steps and step - begun[-1] >= config.max_steps):
            begun.append(step)
            accuracies = []
    return begun


@pytest.mark.parametrize("saved", [0, 7])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("window", "threshold", "max_steps"),
    [(1, 0.9, None), (5, 0.99, None), (5, 0.8, None), (20, 0.7, 90), (5, 1.0, 30)],
)
def test_stages_begin_at_the_same_batch_for_every_logging_interval(
    window: int, threshold: float, max_steps: int | None, seed: int, saved: int
) -> None:
    config = CurriculumConfig(True, threshold, window, max_steps)
    data, found = FakeData(), batches(seed)
    curriculum = Curriculum(config, data)
    curriculum.on_train_start(None, None)
    for step, counts in enumerate(found, 1):
        data.batches_done = step
        weight, correct = map(float, counts)
        outputs = {"metrics": {"last_step_accuracy": torch.tensor([correct, weight])}}
        trainer = SimpleNamespace(global_step=step)
        curriculum.on_train_batch_end(trainer, None, outputs, None, step - 1)
        if saved and step % saved == 0:  # a checkpoint and its resumption
            state = curriculum.state_dict()
            curriculum = Curriculum(config, data)
            curriculum.load_state_dict(state)
    assert [step for _, step in data.begun] == stages_of_the_definition(found, config)
    assert [segments for segments, _ in data.begun] == list(range(1, len(data.begun) + 1))
    assert len(data.begun) > 2
