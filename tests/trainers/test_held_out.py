"""Metrics of action prediction on held-out episodes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from datamodules.held_out import HeldOut, held_out_episodes
from datamodules.sampler import WindowSampler
from datamodules.store import Store
from rate.config import Decoding
from rate.errors import ConfigError
from rate.weights import load_model
from tests.factories import K, make_batch, make_model
from tests.processes import PATIENCE
from tests.trainers.test_graphs import EXACT, OFF, repeat
from tests.trainers.test_resume import StopAt, same_run, weights
from trainers import graphs
from trainers.api import Run
from trainers.config_files import load_config_file
from trainers.held_out import Account, Bins
from trainers.sequence import SequenceTrainer
from trainers.train import train


class Ten:
    """A stand-in for held-out data with the two attributes that an account reads."""

    last_step = 2 * K

    def __init__(self, action_space: Any) -> None:
        self.action_space = action_space


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def evaluation(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return found


@pytest.mark.parametrize("places", [1, 3, 4, 10, 97])
@pytest.mark.parametrize("most", [1, 4, 20])
def test_bins_hold_every_position_once(places: int, most: int) -> None:
    bins = Bins.of(places, most)
    everywhere = np.arange(places)
    bins.add(everywhere, (everywhere.astype(float), np.ones(places)))
    found = bins.rows("accuracy")
    assert len(found) == min(places, most)
    assert [row["from"] for row in found] == [0, *(row["to"] + 1 for row in found[:-1])]
    assert found[-1]["to"] == places - 1
    for row in found:
        inside = everywhere[row["from"] : row["to"] + 1]
        assert row["steps"] == len(inside) > 0
        assert row["action_loss"] == inside.mean()
        assert abs(len(inside) - places / len(found)) <= 1


@pytest.mark.parametrize(
    "spaces", ["vector_to_discrete", "scalar_to_multi_discrete", "matrix_to_bounded"]
)
def test_an_account_equals_a_loop_over_steps(spaces: str) -> None:
    model = make_model("rate", spaces)
    batch = make_batch(model, [2 * K + 1, K, 3])
    account = Account(Ten(model.action_space), K, 3)  # type: ignore[arg-type]
    with torch.no_grad():
        features, _ = model.features(batch)
        account.add(model, features, batch)
        predictions, _ = model(batch)
    losses = model.head.loss(predictions, batch.actions)
    actions = model.head.decode(predictions, Decoding())
    name = "action_error" if spaces == "matrix_to_bounded" else "accuracy"
    found: dict[str, list[tuple[int, float, float]]] = {"by_position": [], "by_distance": []}
    for row in range(3):
        for step in range(int(batch.mask[row].sum())):
            right, said = batch.actions[row, step], actions[row, step]
            score = float((right == said).all())
            if name == "action_error":
                score = float((right - said).abs().mean())
            values = float(losses[row, step]), score
            found["by_position"].append((int(batch.timesteps[row, step]), *values))
            found["by_distance"].append((step % K, *values))
    totals = account.row()
    assert totals["steps"] == int(batch.mask.sum())
    for key, steps in found.items():
        assert totals["action_loss"] == pytest.approx(
            np.mean([step[1] for step in steps]), rel=1e-5
        )
        assert totals[name] == pytest.approx(np.mean([step[2] for step in steps]), rel=1e-5)
        assert sum(part["steps"] for part in totals[key]) == len(steps)
        for part in totals[key]:
            inside = [step for step in steps if part["from"] <= step[0] <= part["to"]]
            assert part["steps"] == len(inside)
            assert part["action_loss"] == pytest.approx(np.mean([s[1] for s in inside]), rel=1e-5)
            assert part[name] == pytest.approx(np.mean([s[2] for s in inside]), rel=1e-5)


def test_a_run_reports_its_held_out_episodes_and_metrics(make_config, data_root) -> None:
    config = make_config(evaluation__held_out_every_n_steps=2)
    folder = train(config).folder
    kept = held_out_episodes(60, 0.05).tolist()
    assert len(kept) == 3
    store = Store.open(data_root / "tmaze-12-60-seed0")
    assert json.loads((folder / "held_out.json").read_text()) == {
        "data": store.fingerprint,
        "num_episodes": 60,
        "share": 0.05,
        "episodes": kept,
    }
    logged = [row for row in rows(folder) if row["held_out/loss"]]
    assert [row["step"] for row in logged] == ["2", "4", "6", "8"]
    report = evaluation(folder)["held_out"]
    assert [row["which"] for row in report] == ["last", "best"]
    assert report[0]["step"] == 8
    assert report[0]["steps"] == sum(min(12, int(store.lengths[n])) for n in kept)
    # The last weights, on all held-out steps: three windows are less than a batch.
    assert float(logged[-1]["held_out/action_loss"]) == pytest.approx(report[0]["action_loss"])
    assert float(logged[-1]["held_out/accuracy"]) == pytest.approx(report[0]["accuracy"])
    model = load_model(folder / "checkpoints" / "last").model
    held_out = HeldOut(store, 0.05, 12)
    source = held_out.batches(WindowSampler(store, 4, 12, seed=0).arrays, 4, 4)
    assert len(source) == 1
    batch = source.batch(0)
    with torch.no_grad():
        predictions, _ = model(batch)
        losses = model.head.loss(predictions, batch.actions)[batch.mask]
    assert report[0]["action_loss"] == pytest.approx(float(losses.mean()), rel=1e-5)


def test_the_logged_loss_is_the_objective_s(make_config) -> None:
    settings = {"loss__weighted_steps": "last", "loss__step_weight": 50.0}
    folder = train(make_config(**settings)).folder
    (row,) = [row for row in rows(folder) if row["held_out/loss"]]
    assert float(row["held_out/loss"]) != pytest.approx(
        float(row["held_out/action_loss"]), rel=1e-3
    )
    assert row["held_out/last_step_accuracy"]
    places = {name.partition("@")[2].partition("_")[0] for name in row if "@" in name}
    assert {"position", "distance"} <= places


@pytest.mark.parametrize("curriculum", [False, True])
def test_measuring_changes_nothing_about_training(make_config, curriculum) -> None:
    settings = {"curriculum__enabled": curriculum, "curriculum__max_steps": 2}
    often = {**settings, "evaluation__held_out_every_n_steps": 1}
    never = {**settings, "evaluation__held_out_every_n_steps": 0}
    first = train(make_config(logging__name="often", **often)).folder
    second = train(make_config(logging__name="never", **never)).folder
    mine, others = weights(first), weights(second)
    assert all(torch.equal(mine[name], others[name]) for name in mine)
    assert "held_out/loss" not in rows(second)[0]
    assert evaluation(first)["held_out"] == evaluation(second)["held_out"]


def test_recorded_steps_are_evaluated_as_well(make_config, monkeypatch) -> None:
    settings = {**OFF, **EXACT, "evaluation__held_out_every_n_steps": 3}
    plain = train(make_config(logging__name="plain", **settings)).folder
    monkeypatch.setattr(graphs, "record", repeat)
    monkeypatch.setattr(SequenceTrainer, "_on_gpu", True)
    same_run(plain, train(make_config(logging__name="graphs", **settings)).folder)


def test_a_resumed_run_equals_an_uninterrupted_one(make_config) -> None:
    settings = {"evaluation__held_out_every_n_steps": 2}
    whole = train(make_config(logging__name="whole", **settings)).folder
    config = make_config(logging__name="parts", **settings)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    train(config, resume=folder)
    same_run(whole, folder)


def test_without_held_out_episodes_training_is_unchanged(make_config) -> None:
    """Training is on all episodes; runs of versions without held-out episodes resume unchanged."""
    whole = train(make_config(logging__name="whole", data__held_out=0.0)).folder
    assert "held_out/loss" not in rows(whole)[0]
    assert evaluation(whole)["held_out"] == []
    config = make_config(logging__name="old", data__held_out=0.0)
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    values = yaml.safe_load((folder / "config.yaml").read_text())
    del values["data"]["held_out"], values["evaluation"]["held_out_every_n_steps"]
    (folder / "config.yaml").write_text(yaml.safe_dump(values))
    train(load_config_file(folder / "config.yaml"), resume=folder)
    same_run(whole, folder)


def test_a_run_cannot_go_on_with_other_episodes(make_config) -> None:
    config = make_config()
    with pytest.raises(RuntimeError, match="crash"):
        train(config, report=StopAt(5))
    folder = Path(config.logging.output) / config.run_name
    with pytest.raises(ConfigError, match=r"data\.held_out is 0\.0, but the run .* with 0\.05"):
        train(make_config(data__held_out=0.0), resume=folder)


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_an_invalid_share_is_refused(make_config, share: float) -> None:
    with pytest.raises(ConfigError, match=rf"data\.held_out is {share}; it must be in \[0, 1\)"):
        make_config(data__held_out=share)


def test_a_run_without_rollouts_and_held_out_episodes_is_warned_of(make_config, data_root) -> None:
    alone = {"data__store": str(data_root / "tmaze-12-60-seed0"), "data__held_out": 0.01}
    config = replace(make_config(**alone), environment="none", env={})
    with pytest.warns(
        UserWarning, match=r"Nothing will tell how good the model is.*held_out=0\.01"
    ):
        train(config)


def test_without_an_environment_it_selects_the_best_weights(make_config, data_root) -> None:
    store = str(data_root / "tmaze-12-60-seed0")
    config = make_config(
        data__store=store,
        evaluation__held_out_every_n_steps=2,
        optimizer__learning_rate=0.3,  # so high that the last weights need not be the best
    )
    alone = replace(config, environment="none", env={})
    result = train(alone)
    assert result.rows == []
    assert Run.open(result.folder).held_out == result.held_out
    last, best = result.held_out
    assert (last["which"], last["step"]) == ("last", 8)
    assert 0 <= last["accuracy"] <= 1
    # The best weights are those with the lowest logged loss.
    logged = {int(r["step"]): r["held_out/action_loss"] for r in rows(result.folder)}
    losses = {step: float(loss) for step, loss in logged.items() if loss}
    assert list(losses) == [2, 4, 6, 8]
    assert (best["which"], best["step"]) == ("best", result.best_step)
    assert losses[best["step"]] == min(losses.values())
    assert best["action_loss"] == pytest.approx(losses[best["step"]], rel=1e-6)
    again = replace(alone, logging=replace(alone.logging, name="parts"))
    with pytest.raises(RuntimeError, match="crash"):
        train(again, report=StopAt(7))
    resumed = train(again, resume=Path(again.logging.output) / again.run_name)
    assert resumed.held_out == result.held_out


# The first rollouts of one process take longer than collectives may.
TOGETHER = """
import sys
import time
from datetime import timedelta
from pathlib import Path
from torch import distributed as dist
from torch.distributed.distributed_c10d import _set_pg_timeout
from trainers.callbacks import SelectionRollouts
from trainers.config_files import load_config_file
from trainers.train import train

evaluate = SelectionRollouts._evaluate

def evaluate_late(self, *arguments):
    SelectionRollouts._evaluate = evaluate
    _set_pg_timeout(timedelta(seconds=1), dist.group.WORLD)
    time.sleep(3 * (1 - dist.get_rank()))
    evaluate(self, *arguments)
    _set_pg_timeout(timedelta(minutes=30), dist.group.WORLD)

SelectionRollouts._evaluate = evaluate_late
if __name__ == "__main__":
    train(load_config_file(Path(sys.argv[1])))
"""


@pytest.mark.slow
def test_two_processes_share_the_evaluation(make_config, tmp_path) -> None:
    exact = {"model__dropout": 0.0, "model__memory_noise": 0.0, "data__held_out": 0.2}
    alone = train(make_config(logging__name="alone", **exact)).folder
    two = {"training__devices": 2, "training__strategy": "ddp"}
    config = make_config(logging__name="together", **exact, **two)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "together.py").write_text(TOGETHER)
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, str(tmp_path / "together.py"), str(tmp_path / "config.yaml")],
        check=True,
        timeout=PATIENCE,
        cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    together = rows(Path(config.logging.output) / config.run_name)
    names = [name for name in together[-1] if name.startswith(("held_out/", "selection/"))]
    assert len(names) > 10
    assert "selection/success@6" in names
    for name in names:
        found = [float(row[name]) for row in together if row[name]]
        wanted = [float(row[name]) for row in rows(alone) if row[name]]
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-6)
