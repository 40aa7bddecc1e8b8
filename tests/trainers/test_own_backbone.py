"""A backbone named by its import path is trained, resumed and evaluated."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
import yaml

from rate.errors import ConfigError
from rate.weights import load_model
from tests.digests import renew_model
from tests.own_cells import Traces
from trainers.cli import parse
from trainers.commands.evaluate import main as evaluate
from trainers.train import train

TINY = [
    *(
        "--model.context_length=4",
        "--training.max_steps=4",
        "--training.batch_size=4",
        "--data.num_episodes=40",
    ),
    *("--training.checkpoint_every_n_steps=2", "--training.segments=3", "--evaluation.lengths=9"),
    *("--evaluation.selection_lengths=9", "--evaluation.episodes=2"),
    *("--evaluation.every_n_steps=2", "--logging.progress=false", "--logging.tensorboard=false"),
]
OWN = ["--model.backbone=tests.own_cells:Traces", "--model.leak=0.8"]


def command(tmp_path: Path, *options: str) -> list[str]:
    return [*TINY, f"--logging.output={tmp_path}", f"--data.root={tmp_path / 'data'}", *options]


def test_a_users_backbone_trains_resumes_and_acts(tmp_path: Path) -> None:
    command_line = parse("tmaze", command(tmp_path, *OWN))
    assert "cache" not in command_line.config.to_dict()["model"]
    result = train(command_line.config)
    assert result.folder.name == "tmaze-rate-Traces-1"
    saved = yaml.safe_load((result.folder / "config.yaml").read_text(encoding="utf-8"))
    assert saved["model"]["backbone"] == "tests.own_cells:Traces"
    assert saved["model"]["leak"] == 0.8
    model = load_model(result.folder).model
    assert isinstance(model.backbone, Traces)
    again = parse("tmaze", ["--resume", str(result.folder), "--training.max_steps=6"])
    assert train(again.config, resume=again.resume).steps == 6
    longer = load_model(result.folder / "checkpoints" / "last").model
    assert not torch.equal(longer.backbone.write.weight, model.backbone.write.weight)


@pytest.mark.parametrize("name", ["lstm", "gru"])
def test_recurrent_baselines_resume_bit_for_bit(name: str, tmp_path: Path) -> None:
    """A resumed run has the same weights as an uninterrupted one."""
    options = [f"--model_mode={name}", "--training.bptt_segments=1"]
    whole = train(parse("tmaze", command(tmp_path, *options, "--logging.name=whole")).config)
    half = [*options, "--logging.name=half", "--training.max_steps=2"]
    begun = train(parse("tmaze", command(tmp_path, *half)).config)
    again = parse("tmaze", ["--resume", str(begun.folder), "--training.max_steps=4"])
    train(again.config, resume=again.resume)
    one, two = (load_model(run.folder / "checkpoints" / "last").model for run in (whole, begun))
    for key, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[key]), key


WRONG = [
    ("--model.backbone=tests.own_cells:Tracts", "has no attribute 'Tracts'. Did you mean Traces?"),
    ("--model.backbone=own_sells:Traces", "there is no module 'own_sells'"),
    ("--model.backbone=lsdm", "model.backbone=lsdm is not known. Did you mean lstm?"),
    ("--model.backbone=torch.nn:Linear", "it must be a subclass of rate.backbones.base.Backbone"),
]


@pytest.mark.parametrize(("option", "message"), WRONG)
def test_a_missing_backbone_is_named(option: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse("tmaze", [option])
    assert message in str(error.value)


def test_settings_of_another_backbone_are_refused() -> None:
    command = parse("tmaze", ["--model.backbone=lstm"])
    assert command.config.run_name == "tmaze-rate-lstm-1"
    assert any("lstm has no num_memory_tokens, valve" in note for note in command.notes)
    with pytest.raises(ConfigError, match="setting of the backbone segment_transformer; that of"):
        parse("tmaze", ["--model_mode=lstm", "--nmt=5"])
    with pytest.raises(ConfigError, match=r"There is no option --model\.leek. Did you mean"):
        parse("tmaze", [*OWN, "--model.leek=0.1"])


def test_code_named_in_weights_runs_only_if_the_user_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is imported only then; modules that were imported before are allowed."""
    folder = train(parse("tmaze", command(tmp_path, *OWN)).config).folder / "checkpoints" / "last"
    (tmp_path / "their_cells.py").write_text("from tests.own_cells import Traces", encoding="utf-8")
    description = folder / "model.json"
    text = description.read_text(encoding="utf-8")
    description.write_text(text.replace("tests.own_cells:", "their_cells:"), encoding="utf-8")
    renew_model(folder)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "others"))
    monkeypatch.setattr("rate.trust._NAMED", set())
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r"yourself: --model\.backbone their_cells:Traces"):
        load_model(folder)
    assert "their_cells" not in sys.modules
    evaluate([str(folder), "--model.backbone=their_cells:Traces", "--lengths=9", "--episodes=2"])
    assert "0.00" in capsys.readouterr().out
    assert load_model(folder).model.config.leak == 0.8
    sys.modules.pop("their_cells")
