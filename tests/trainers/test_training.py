"""The training step: loss, optimiser and recipes."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from datamodules.tmaze import generate_tmaze
from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import UserError
from rate.model import SequenceModel
from rate.weights import load_model
from tests.factories import MODELS
from tests.processes import PATIENCE
from trainers.config_learning import OptimizerConfig
from trainers.errors import TrainingError
from trainers.optimization import learning_rate_factor, parameter_groups
from trainers.train import train


def metrics(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> list[float]:
    return [float(row[name]) for row in metrics(folder) if row[name]]


def spaces():
    return TMAZE_SPEC.observation_space, TMAZE_SPEC.action_space


class TestOptimiser:
    @pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
    def test_the_learning_rate_has_one_warmup(self, schedule) -> None:
        config = OptimizerConfig(schedule=schedule, warmup_steps=10, final_fraction=0.2)
        factors = np.array([learning_rate_factor(step, config, 100) for step in range(150)])
        assert factors[0] == pytest.approx(0.1)
        assert factors[9] == factors.max() == 1
        assert (np.diff(factors[9:]) <= 0).all()
        assert factors[100:] == pytest.approx(1.0 if schedule == "constant" else 0.2)

    @pytest.mark.parametrize("name", ["rate", "rate_gru", "gtrxl", "dt", "trxl"])
    def test_only_matrices_decay(self, name) -> None:
        model = SequenceModel(MODELS[name], *spaces())
        groups = parameter_groups(model, 0.1)
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        assert len(decay) == len(list(model.parameters()))
        names = dict(model.named_parameters())
        assert all(decay[id(p)] == 0 for p in names.values() if p.ndim < 2)
        free = ("memory", "slot_embedding", "embedding.weight", "timestep.weight")
        free += ("content_bias", "position_bias")
        for parameter_name, parameter in names.items():
            if parameter_name.endswith(free):
                assert decay[id(parameter)] == 0, parameter_name
            if parameter_name.endswith(("qkv.weight", "head.linear.weight", "weight_hh")):
                assert decay[id(parameter)] == 0.1, parameter_name


class TestRecipes:
    def test_memory_is_trained_through_segments_unless_detached(self, make_config) -> None:
        """The valve has an effect on the loss only through later segments."""
        through = train(make_config(logging__name="through")).folder
        cut = train(make_config(logging__name="cut", training__bptt_segments=1)).folder

        def valve_moved(folder: Path) -> bool:
            from trainers.config_files import load_config_file
            from trainers.sequence import SequenceTrainer

            start = SequenceTrainer(load_config_file(folder / "config.yaml"), TMAZE_SPEC).model
            end = load_model(folder / "checkpoints" / "last").model
            return not torch.equal(
                start.backbone.valve.attention.out.bias, end.backbone.valve.attention.out.bias
            )

        assert valve_moved(through)
        assert not valve_moved(cut)

    def test_the_published_recipe_steps_once_per_segment(self, make_config) -> None:
        seen = []
        config = make_config(
            training__bptt_segments=0, training__max_steps=9, training__log_every_n_steps=1
        )
        result = train(config, report=lambda phase, step, total: seen.append((phase, step)))
        assert [step for phase, step in seen if phase == "training"] == [3, 6, 9]
        assert len(column(result.folder, "loss")) == 9

    def test_the_curriculum_grows_and_serves_short_episodes_first(self, make_config) -> None:
        config = make_config(
            curriculum__enabled=True,
            curriculum__max_steps=3,
            training__max_steps=9,
            training__log_every_n_steps=1,
        )
        folder = train(config).folder
        assert column(folder, "segments") == [1, 1, 1, 2, 2, 2, 3, 3, 3]

    def test_a_curriculum_advances_when_last_steps_are_learnt(self, make_config) -> None:
        config = make_config(
            curriculum__enabled=True,
            curriculum__threshold=0.01,
            curriculum__window=2,
            training__max_steps=8,
            training__log_every_n_steps=1,
        )
        segments = column(train(config).folder, "segments")
        assert segments[0] == 1
        assert segments[-1] > 1
        assert segments == sorted(segments)

    @pytest.mark.parametrize("precision", ["bf16-mixed", "64-true"])
    def test_other_precisions_train(self, make_config, precision) -> None:
        folder = train(make_config(training__precision=precision)).folder
        assert np.isfinite(column(folder, "loss")).all()

    def test_the_loss_decreases(self, make_config) -> None:
        config = make_config(
            training__max_steps=60,
            training__batch_size=16,
            optimizer__learning_rate=1e-2,
            model__dropout=0.0,
            evaluation__every_n_steps=0,
        )
        losses = column(train(config).folder, "loss")
        assert losses[-1] < 0.3 * losses[0]

    def test_a_loss_that_is_not_finite_stops_training(self, make_config) -> None:
        config = make_config(optimizer__learning_rate=1e30, optimizer__gradient_clip=0.0)
        with pytest.raises(TrainingError, match=r"optimiser step \d+, in batch \d+"):
            train(config)


class TestRun:
    def test_a_run_is_a_folder(self, make_config) -> None:
        config = make_config(logging__tensorboard=True)
        result = train(config, command="python scripts/train_tmaze.py --seed 1")
        folder = result.folder
        assert folder.name == "tmaze-rate-1"
        names = {path.name for path in folder.iterdir()}
        assert names == {
            "checkpoints",
            "config.yaml",
            "environment.txt",
            "evaluation.json",
            "held_out.json",
            "metrics.csv",
            "tensorboard",
        }
        assert list((folder / "tensorboard").glob("events.out.tfevents.*"))
        assert yaml.safe_load((folder / "config.yaml").read_text()) == config.to_dict()
        text = (folder / "environment.txt").read_text()
        assert "command: python scripts/train_tmaze.py --seed 1" in text
        assert f"torch: {torch.__version__}" in text
        assert not [path for path in folder.rglob("*") if ".tmp" in path.name]

    def test_scores_are_on_held_out_seeds_for_last_and_best(self, make_config) -> None:
        config = make_config()
        result = train(config)
        evaluation = json.loads((result.folder / "evaluation.json").read_text())
        assert evaluation["first_episode_seed"] == config.evaluation.test_seed
        assert evaluation["last_episode_seed"] == config.evaluation.test_seed + 3
        assert evaluation["rows"] == result.rows
        assert {row["which"] for row in result.rows} == {"last", "best"}
        assert {row["length"] for row in result.rows} == {8}

    def test_a_failed_start_leaves_no_files(self, make_config, tmp_path) -> None:
        short = generate_tmaze(tmp_path / "short", 6, num_episodes=20)
        config = make_config(data__store=str(short))
        with pytest.raises(UserError, match="12"):
            train(config)
        assert not (Path(config.logging.output) / config.run_name).exists()


DDP = """
import sys
from lightning.pytorch import Trainer
from datamodules.trajectories import TrajectoryDataModule
from datamodules.tmaze import generate_tmaze
from rate.envs.tmaze import TMAZE_SPEC
from rate.errors import UserError
from trainers.config_files import load_config_file
from trainers.csv_logger import MetricsTable
from trainers.sequence import SequenceTrainer
from pathlib import Path
from tests.processes import PATIENCE

config_file, store, folder, devices = sys.argv[1:]
config = load_config_file(Path(config_file))
data = TrajectoryDataModule(
    store, batch_size=4, context_length=4, segments=config.training.segments, seed=1
)
trainer = Trainer(
    devices=int(devices),
    strategy="ddp" if devices == "2" else "auto",
    accelerator="cpu",
    max_steps=4,
    max_epochs=-1,
    logger=MetricsTable(Path(folder)),
    enable_progress_bar=False,
    enable_model_summary=False,
    enable_checkpointing=False,
)
trainer.fit(SequenceTrainer(config, TMAZE_SPEC), datamodule=data)
"""


@pytest.mark.slow
@pytest.mark.parametrize("segments", [pytest.param(1, marks=pytest.mark.long), 3])
def test_two_processes_equal_one(make_config, data_root, tmp_path, segments) -> None:
    """Lightning's plain ddp strategy: the same samples once, hence the same losses.

    With one segment, memory is not read and its parameters have no gradient in either run.
    """
    config = make_config(
        training__segments=segments,
        training__log_every_n_steps=1,
        training__max_steps=4,
        model__dropout=0.0,
        model__memory_noise=0.0,
    )
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config.to_dict()))
    (tmp_path / "ddp.py").write_text(DDP)
    store = data_root / "tmaze-12-60-seed0"
    for devices in ("1", "2"):
        (tmp_path / devices).mkdir()
        arguments = [str(tmp_path / "config.yaml"), str(store), str(tmp_path / devices), devices]
        subprocess.run(
            [sys.executable, str(tmp_path / "ddp.py"), *arguments],
            check=True,
            timeout=PATIENCE,
            capture_output=True,
            cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
    for name in ("loss", "grad_norm", "accuracy"):
        one, two = column(tmp_path / "1", name), column(tmp_path / "2", name)
        assert len(one) == 4
        assert two == pytest.approx(one, rel=1e-4, abs=1e-6)


def test_the_losses_of_a_backbone_are_logged_and_its_bounds_are_kept(make_config) -> None:
    """The mean of each is added to the mean of the objective's loss."""
    config = make_config(
        model__adaptive_depth=True,
        model__span=8,
        model__span_weight=100.0,  # shares would leave [0, 1] in the first step
        optimizer__learning_rate=1.0,
        optimizer__warmup_steps=0,
        training__max_steps=2,
    )
    result = train(config)
    (ponder,), (span,), (loss,) = (
        column(result.folder, name) for name in ("ponder_loss", "span_loss", "loss")
    )
    assert ponder >= 0.01
    assert loss >= ponder + span > 50
    share = load_model(result.folder).model.backbone.blocks[0].attention.span.share
    assert share.tolist() == [0.0, 0.0]
