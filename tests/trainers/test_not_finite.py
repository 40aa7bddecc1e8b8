"""NaN and infinity do not end training, and all saved files are valid JSON."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import trainers.run_result
import trainers.train
from rate.envs.tmaze import TMazeVector
from rate.errors import ConfigError
from rate.files import write_json
from tests.trainers.conftest import MakeConfig
from tests.trainers.fakes import Numbers, Punctual, with_parts
from trainers.config import RunConfig
from trainers.episode_rows import MOST_FAILURES
from trainers.errors import TrainingError
from trainers.registry import get_environment
from trainers.rollout import rollout
from trainers.train import train

NAN, INF = np.nan, np.inf


class Faulty(TMazeVector):
    """A T-Maze in which some seeds return values that are not finite at their second step."""

    def __init__(self, spoil: Callable[[Any], None], seeds: set[int], *arguments: int) -> None:
        super().__init__(*arguments)
        self.spoil, self.seeds = spoil, seeds

    def step(self, actions: Any) -> Any:
        result = [*super().step(actions)]
        wrong = np.isin(self._seeds.astype(int), list(self.seeds)) & (self._time >= 2)
        self.spoil((wrong, result))
        return tuple(result)


def no_reward(found: Any) -> None:
    wrong, result = found
    result[1][wrong] = NAN


def endless_reward(found: Any) -> None:
    wrong, result = found
    result[1][wrong] = -INF


def no_observation(found: Any) -> None:
    wrong, result = found
    result[0][wrong, 1] = NAN


def no_success(found: Any) -> None:
    wrong, result = found
    result[4]["success"] = np.where(wrong, NAN, result[4]["success"])


def strict(path: Path) -> Any:
    """Returns the contents of a JSON file; fails if it holds NaN or infinity."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{path} has {name}")

    return json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def make(spoil: Any, seeds: Any) -> None:
        entry = with_parts(
            get_environment("tmaze"),
            make_vector=lambda rows, length: Faulty(spoil, set(seeds), rows, length),
        )
        monkeypatch.setattr(trainers.train, "environment_of_run", lambda _: entry)

    return make


@pytest.mark.parametrize("spoil", [no_reward, endless_reward, no_observation, no_success])
def test_an_episode_that_is_not_finite_is_flagged_and_training_continues(
    spoil: Any, faulty: Any, make_config: MakeConfig
) -> None:
    faulty(spoil, [10_001, 20_000, 20_002])
    with pytest.warns(UserWarning, match=r"left out of the scores: 1 at length 6\.") as warned:
        result = train(make_config())
    assert len([w for w in warned if "left out" in str(w.message)]) == 1
    rows = strict(result.folder / "evaluation.json")["rows"]
    assert {(row["which"], row["episodes"], row["invalid"]) for row in rows} == {
        ("last", 4, 2),
        ("best", 4, 2),
    }
    (chosen,) = strict(result.folder / "checkpoints" / "best" / "model.json")["extra"]["selection"]
    assert chosen["invalid"] == 1
    assert result.steps == 8


def test_weights_without_a_finite_score_are_not_chosen(
    faulty: Any, make_config: MakeConfig
) -> None:
    faulty(no_reward, [*range(10_000, 10_004), *range(20_000, 20_004)])
    with pytest.warns(UserWarning, match="4 at length 6"):
        result = train(make_config())
    assert result.best_step is None
    (row,) = strict(result.folder / "evaluation.json")["rows"]
    assert (row["which"], row["invalid"], row["success"], row["return"]) == ("last", 4, None, None)
    header = (result.folder / "metrics.csv").read_text(encoding="utf-8").splitlines()[0]
    assert "selection" not in header


def test_an_invalid_row_continues_with_the_next_episode() -> None:
    """It is repeated first. The scores of the other episodes do not depend on it."""

    class Spoilt(Numbers):
        def step(self, actions: Any) -> Any:
            observations, rewards, *rest = super().step(actions)
            return observations, np.where(self.seeds == 4, NAN, rewards), *rest

        def reset(self, **how: Any) -> Any:
            self.ended |= self.seeds == 4  # it may be reset before its end
            return super().reset(**how)

    for rows in (1, 3, 11):
        env = Spoilt(rows, {})
        found = rollout([Punctual(rows)], [env], range(11))
        assert sorted(env.begun) == sorted([*range(11), *[4] * MOST_FAILURES])
        good = np.arange(11) != 4
        assert found.returns[good].tolist() == [s * (1 + s % 5) for s in range(11) if s != 4]
        assert np.isnan(found.returns[4])
        assert found.lengths.tolist() == [1 if s == 4 else 1 + s % 5 for s in range(11)]


@pytest.mark.parametrize("number", [NAN, INF, -INF])
@pytest.mark.parametrize("name", ["evaluation__target_return", "data__min_return"])
def test_a_setting_that_is_not_finite_is_refused(
    name: str, number: float, make_config: MakeConfig
) -> None:
    with pytest.raises(ConfigError, match=rf"{name.replace('__', '.')} is .*finite"):
        make_config(**{name: number})


def test_an_environment_setting_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"env\.score_100 is inf; it must be a finite number"):
        RunConfig("mujoco", env={"task": "hopper", "score_100": INF})


def test_scores_that_cannot_be_saved_are_reported(
    make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: Any) -> None:
        if path.name == "evaluation.json":
            raise OSError(28, "No space left on device")
        write_json(path, content)

    monkeypatch.setattr(trainers.run_result, "write_json", full)
    with (
        pytest.warns(UserWarning, match=r"scores are not saved: last at 8: success 0.*, return "),
        pytest.raises(TrainingError, match="No space left"),
    ):
        train(make_config())


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("test_seed", -1),
        ("test_seed", (1 << 40) - 3),
        ("test_seed", 1 << 64),
        ("selection_seed", -5),
        ("selection_seed", 1 << 63),
    ],
)
def test_seeds_out_of_range_are_refused(name: str, seed: int, make_config: MakeConfig) -> None:
    with pytest.raises(ConfigError, match=rf"evaluation\.{name} is {seed}, and 4 episodes"):
        make_config(**{f"evaluation__{name}": seed})
    assert make_config(evaluation__test_seed=(1 << 40) - 4).evaluation.test_seed == (1 << 40) - 4
