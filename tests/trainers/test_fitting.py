"""The data of a run: the sampled episodes, and target returns outside their range."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from datamodules.episodes import DatasetError, Episode
from datamodules.writing import write_store
from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import ConfigError
from tests.trainers.conftest import MakeConfig
from trainers.fitting import make_datamodule
from trainers.registry import get_environment
from trainers.train import train

TMAZE = get_environment("tmaze")
RETURNS = np.arange(20) / 8  # exact in float32


@pytest.fixture
def store(tmp_path: Path) -> str:
    """A store of twenty episodes; episode i has the return i / 8 and 12 + i % 5 steps."""

    def episode(number: int) -> Episode:
        steps = 12 + number % 5
        rewards = np.zeros(steps)
        rewards[-1] = RETURNS[number]
        observations = np.zeros((steps, 4), np.float32)
        return Episode(observations, np.zeros(steps, np.int64), rewards, True, False, number)

    path = tmp_path / "store"
    write_store(map(episode, range(20)), path, TMAZE_SPEC, {"source": "a test"})
    return str(path)


def drawn(config: Any) -> set[int]:
    """Returns the episodes of one pass over the data."""
    sampler = make_datamodule(config, TMAZE).make_sampler(None)
    batches = range(-(-sampler.num_episodes // config.training.batch_size))
    return {int(number) for index in batches for number in sampler.episodes(index)}


@pytest.mark.parametrize(
    ("min_return", "min_length", "expected"),
    [
        (None, None, set(range(20))),
        (1.25, None, set(range(10, 20))),
        (None, 15, {i for i in range(20) if i % 5 >= 3}),
        (1.25, 16, {14, 19}),
    ],
)
def test_only_episodes_within_the_limits_are_sampled(
    make_config: MakeConfig,
    store: str,
    min_return: float | None,
    min_length: int | None,
    expected: set[int],
) -> None:
    limits = {"data__min_return": min_return, "data__min_length": min_length, "data__held_out": 0.0}
    assert drawn(make_config(data__store=store, **limits)) == expected


@pytest.mark.parametrize(("share", "count"), [(0.2, 4), (0.21, 5), (0.001, 1), (1.0, 20)])
def test_the_best_episodes_are_a_share_of_all(
    make_config: MakeConfig, store: str, share: float, count: int
) -> None:
    found = drawn(make_config(data__store=store, data__best_share=share, data__held_out=0.0))
    assert found == set(range(20 - count, 20))


def test_a_share_of_episodes_that_makes_no_sense_is_refused(make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=r"data\.best_share is 0"):
        make_config(data__best_share=0.0)
    with pytest.raises(ConfigError, match=r"data\.min_return and data\.best_share both"):
        make_config(data__best_share=0.5, data__min_return=1.0)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"data__min_return": 3.0}, "no episode has a return of at least 3"),
        ({"data__min_length": 17}, "no episode has at least 17 steps"),
    ],
)
def test_limits_that_no_episode_meets_leave_no_run(
    make_config: MakeConfig, store: str, limits: dict[str, Any], message: str
) -> None:
    config = make_config(data__store=store, **limits)
    with pytest.raises(DatasetError, match=message):
        train(config)
    assert not (Path(config.logging.output) / config.run_name).exists()


def test_a_resume_with_other_limits_is_refused(make_config: MakeConfig, store: str) -> None:
    folder = train(make_config(data__store=store)).folder
    with pytest.raises(Exception, match=r"data\.min_return is 1\.0, but the run"):
        train(make_config(data__store=store, data__min_return=1.0), resume=folder)


@pytest.mark.parametrize(
    ("target", "warns"), [(None, False), (0.0, False), (2.375, False), (2.5, True), (-1.0, True)]
)
def test_a_target_return_beyond_the_data_is_warned_of(
    make_config: MakeConfig, store: str, target: float | None, warns: bool
) -> None:
    config = make_config(data__store=store, evaluation__target_return=target)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_datamodule(config, TMAZE)
    messages = [m for m in (str(warning.message) for warning in caught) if "never saw" in m]
    assert len(messages) == warns
    if warns:
        assert f"is {target:g} (evaluation.target_return)" in messages[0]
        assert "returns from 0 to 2.375" in messages[0]
        assert store in messages[0]


def test_the_warning_is_shown_in_training(make_config: MakeConfig) -> None:
    config = make_config(evaluation__target_return=3.0, evaluation__every_n_steps=0)
    with pytest.warns(UserWarning, match="asked for what it never saw"):
        train(config)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        # 4 episodes each of 12 to 16 steps, windows of 12.
        ({}, "40 of 280 steps .* takes the first 12 steps of an episode"),
        ({"training__segments": 4}, None),
        ({"data__window": "random"}, None),
        ({"data__min_length": 16}, "16 of 64 steps"),
        ({"curriculum__enabled": True}, "232 of 280 steps .* takes episodes of at most 12 steps"),
        ({"curriculum__enabled": True, "data__window": "random"}, None),
    ],
)
def test_steps_outside_all_windows_are_reported(
    make_config: MakeConfig, store: str, changes: dict[str, Any], found: str | None
) -> None:
    settings = {"training__segments": 3, "model__context_length": 4, "data__held_out": 0.0}
    config = make_config(data__store=store, **{**settings, **changes})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        make_datamodule(config, TMAZE)
    messages = [m for m in (str(warning.message) for warning in caught) if "never trained" in m]
    assert len(messages) == (found is not None)
    if found:
        assert re.search(found, messages[0])


def test_a_collection_is_reported(make_config: MakeConfig, tmp_path: Path) -> None:
    """Output without a progress bar, on an environment whose data an expert collects."""
    from dataclasses import replace

    reports: list[tuple[str, int, int]] = []
    settings = {"data__num_episodes": 10, "data__max_length": 12, "data__workers": 1}
    config = make_config(data__root=str(tmp_path / "data"), **settings)
    config = replace(config, environment="retrieval")
    retrieval = get_environment("retrieval")
    datamodule = make_datamodule(config, retrieval, lambda *report: reports.append(report))
    assert reports == [("collecting", done, 10) for done in range(11)]
    batch = datamodule.make_sampler(None).batch(0)
    assert isinstance(batch.observations, torch.Tensor)  # the privileged state stays in the file
    reports.clear()
    make_datamodule(config, retrieval, lambda *report: reports.append(report))
    assert reports == []
