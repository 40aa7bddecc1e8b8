"""Loggers: metrics of resumed runs, final scores, and Weights & Biases."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer import event_file_writer

from rate.errors import ConfigError
from trainers.loggers import Curves, make_loggers
from trainers.train import train


@pytest.fixture(autouse=True)
def _files_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resets the counter in the names of TensorBoard's files.

    Files are read in the order of their names, in which 10 comes before 9. The counter would
    include the files of all tests of this process, whereas real runs are separate processes.
    """
    monkeypatch.setattr(event_file_writer, "_global_uid", event_file_writer.AtomicCounter(0))


def curves(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Returns the curves of a run as TensorBoard reads them."""
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return {
        name: [(event.step, event.value) for event in events.Scalars(name)]
        for name in events.Tags()["scalars"]
        if name != "epoch"
    }


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_curve_has_no_step_twice(tmp_path: Path) -> None:
    for first, last, value in ((1, 9, 1.0), (5, 12, 2.0), (11, 13, 3.0)):
        logger = Curves(tmp_path)
        if first > 1:
            logger.rewind(first - 1)
        for step in range(first, last + 1):
            logger.log_metrics({"loss": value}, step)
        logger.save()  # without closing: the process is killed
    found = curves(tmp_path)["loss"]
    assert [step for step, _ in found] == list(range(1, 14))
    assert [value for _, value in found] == [1.0] * 4 + [2.0] * 6 + [3.0] * 3


def crash(phase: str, step: int, total: int) -> None:
    if phase == "training" and step >= 8:
        raise RuntimeError("crash")


def test_tensorboard_shows_the_table_of_metrics(make_config: Any) -> None:
    config = make_config(logging__tensorboard=True, training__log_every_n_steps=1)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=crash)
    folder = Path(config.logging.output) / config.run_name
    assert len(table(folder)) > 6  # past the checkpoint of step 6
    train(config, resume=folder)
    rows, found = table(folder), curves(folder)
    for name in ("loss", "selection/return@6", "last/return@8", "best/success@8"):
        wanted = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [step for step, _ in found[name]] == [step for step, _ in wanted]
        assert [v for _, v in found[name]] == pytest.approx([v for _, v in wanted], rel=1e-6)


def test_final_scores_are_logged(make_config: Any) -> None:
    folder = train(make_config()).folder
    scores = json.loads((folder / "evaluation.json").read_text())["rows"]
    last = table(folder)[-1]
    assert last["step"] == "8"
    for row in scores:
        assert float(last[f"{row['which']}/return@8"]) == pytest.approx(row["return"])
        assert float(last[f"{row['which']}/success@8"]) == pytest.approx(row["success"])


class FakeWandb:
    """A stand-in for the package that records its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[dict[str, Any]] = []
        self.finished: list[int] = []
        self.problem: Exception | None = None
        package, errors = ModuleType("wandb"), ModuleType("wandb.errors")
        errors.Error = type("Error", (Exception,), {})  # type: ignore[attr-defined]
        package.errors = errors  # type: ignore[attr-defined]
        package.Settings = dict  # type: ignore[attr-defined]
        package.finish = lambda exit_code: self.finished.append(exit_code)  # type: ignore[attr-defined]
        self.error = errors.Error  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "wandb", package)
        monkeypatch.setitem(sys.modules, "wandb.errors", errors)
        monkeypatch.setattr("lightning.pytorch.loggers.WandbLogger", self.begin)
        monkeypatch.delenv("WANDB_MODE", raising=False)

    def begin(self, **settings: Any) -> FakeWandb:
        self.begun.append(settings)
        return self

    def log_hyperparams(self, params: Any) -> None:
        if self.problem is not None:
            raise self.problem


def begin(config: Any, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    with make_loggers(config, folder):
        pass


def test_a_resumed_run_is_the_same_run_of_wandb(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, config = FakeWandb(monkeypatch), make_config(logging__wandb=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "wandb_config.yaml").write_text("project: mine\nmode: online\ngroup: null\n")
    monkeypatch.chdir(tmp_path)
    begin(config, tmp_path / "one")
    begin(config, tmp_path / "other")
    monkeypatch.chdir(tmp_path / "elsewhere")
    begin(config, tmp_path / "one")
    monkeypatch.setenv("WANDB_MODE", "offline")
    begin(config, tmp_path / "one")
    one, other, again, offline = wandb.begun
    assert one["id"] == again["id"] != other["id"]
    assert one == again == {**offline, "mode": "online"}
    assert (one["project"], one["mode"]) == ("mine", "online")
    assert offline["mode"] == "offline"
    assert wandb.finished == [0, 0, 0, 0]


def test_wandb_is_online_only_on_request(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb, config = FakeWandb(monkeypatch), make_config(logging__wandb=True)
    monkeypatch.chdir(tmp_path)
    begin(config, tmp_path / "one")  # by the project's configuration file
    monkeypatch.setattr("trainers.wandb_run._FILE", "none.yaml")
    begin(config, tmp_path / "other")  # without a configuration file
    assert [settings["mode"] for settings in wandb.begun] == ["offline", "offline"]


def test_errors_of_wandb_are_raised_before_data_are_collected(
    make_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = FakeWandb(monkeypatch)
    wandb.problem = wandb.error("No API key configured.")
    config = make_config(logging__wandb=True, data__root=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"No API key configured\. .*wandb login.*WANDB_MODE"):
        train(config)
    assert not (tmp_path / "none").exists()
    wandb.problem = None
    with pytest.raises(RuntimeError), make_loggers(config, tmp_path):
        raise RuntimeError
    assert wandb.finished == [1]
