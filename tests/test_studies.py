"""One seed of every study reaches the documented scores; minutes each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import pytest

from trainers.commands.scores import read_scores
from trainers.commands.study import main

STUDIES = Path(__file__).parents[1] / "trainers" / "studies"


@dataclass(frozen=True)
class Claim:
    """Bounds on the scores of the runs of a study with their last weights.

    Attributes:
        study: Name of the study.
        length: Length of the evaluation episodes.
        metric: A column of the scores.
        least: Lower bounds by run.
        most: Upper bounds by run.
        package: A package that the environment needs.
    """

    study: str
    length: int
    metric: str
    least: dict[str, float]
    most: dict[str, float]
    package: str | None = None

    def __str__(self) -> str:
        return self.study


POPGYM = {
    "RepeatFirstEasy-rate": 0.95,
    "RepeatFirstMedium-rate": 0.95,
    "RepeatFirstHard-rate": 0.95,
    "RepeatPreviousEasy-rate": 0.95,
    "CountRecallEasy-rate": 0.95,
    "AutoencodeEasy-rate": 0.9,
    "PositionOnlyCartPoleEasy-rate": 0.9,
    "PositionOnlyCartPoleMedium-rate": 0.9,
    "PositionOnlyPendulumEasy-rate": 0.83,
}
CLAIMS = [
    # With two goals or answers, guessing succeeds in about half of the episodes.
    Claim("quickstart", 9600, "success", {"rate": 0.99}, {"dt": 0.65}),
    Claim("retrieval", 900, "success", {"rate": 0.99, "oracle_dt": 0.99}, {"dt": 0.7}),
    # At the size of training; a few seeds fail in grids many times larger.
    Claim("minigrid", 31, "success", {"rate": 0.95, "oracle_dt": 0.95}, {"dt": 0.7}, "minigrid"),
    Claim("vizdoom", 300, "return", {"rate": 13.0}, {"dt": 11.0}, "vizdoom"),
    Claim("memory_maze", 1000, "return", {"oracle_dt": 15.0}, {}, "dm_control"),
    Claim("popgym", 1024, "return", POPGYM, {}, "popgym"),
    # The mean return of the data is 2459 and 4392.
    Claim("mujoco", 1000, "return", {"medium-dt": 2200.0, "expert-dt": 3950.0}, {}, "mujoco"),
    Claim("atari", 2000, "return", {"pong-dt": -12.0}, {}, "ale_py"),  # random play: -20.7
]


@pytest.mark.long
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("claim", CLAIMS, ids=str)
def test_one_seed_of_a_study_reaches_the_documented_scores(claim: Claim, tmp_path: Path) -> None:
    if claim.package and find_spec(claim.package) is None:
        pytest.skip(f"{claim.package} is not installed (make install EXTRAS=environments).")
    results = tmp_path / "scores.csv"
    main(
        [
            *(str(STUDIES / f"{claim.study}.yaml"), "--seeds", "1", "--results", str(results)),
            *("--only", *{**claim.least, **claim.most}),
            *(f"--output={tmp_path / 'runs'}", f"--data.root={tmp_path / 'data'}"),
        ]
    )
    scores = {
        row["model"]: row[claim.metric]
        for row in read_scores(results)
        if row["which"] == "last" and row["length"] == claim.length
    }
    assert set(scores) == {*claim.least, *claim.most}
    for run, score in scores.items():
        assert claim.least.get(run, -math.inf) <= score <= claim.most.get(run, math.inf), run
