"""Names of runs from their changed settings; folders of runs are never reused."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from rate.errors import ConfigError
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.runs import enter_run, run_folder


def create_run(config: RunConfig) -> Path:
    """Returns the folder of a started run with a checkpoint."""
    with enter_run(config) as folder:
        (folder / "checkpoints" / "last.ckpt").touch()
    return folder


@pytest.mark.parametrize(
    ("environment", "words", "name"),
    [
        ("tmaze", "", "tmaze-rate-1"),
        ("tmaze", "--seed 2 --model_mode RMT", "tmaze-rmt-2"),
        ("tmaze", "--arch_mode GTrXL --nmt 5 --n_head_ca 4 --mrv_act relu", "tmaze-rate-gtrxl-1"),
        ("tmaze", "--nmt 7 --mem_len 90", "tmaze-rate-nmt7-cache90-1"),
        ("tmaze", "--nmt 0 --n_head_ca 0", "tmaze-rate-nmt0-no-valve-1"),
        ("tmaze", "--model.valve gated", "tmaze-rate-gated-1"),
        ("tmaze", "--curr false", "tmaze-rate-no-curriculum-1"),
        ("tmaze", "--skip_dec_ffn", "tmaze-rate-no-ffn-1"),
        ("tmaze", "--training.bptt_segments 0", "tmaze-rate-bptt0-1"),
        ("tmaze", "--training.max_steps 7 --optimizer.learning_rate 1", "tmaze-rate-1"),
        ("tmaze", "--model.valve gated --ckpt_folder mine", "tmaze-mine-1"),
        ("retrieval", "--model_mode DT --env.privileged true", "retrieval-dt-privileged-1"),
    ],
)
def test_a_name_lists_the_differences_from_the_preset(
    environment: str, words: str, name: str
) -> None:
    assert parse(environment, words.split()).config.run_name == name


def test_a_name_lists_the_differences_from_the_file(tmp_path: Path) -> None:
    folder = create_run(parse("tmaze", ["--nmt", "7", f"--logging.output={tmp_path}"]).config)
    file = f"--config={folder / 'config.yaml'}"
    assert parse("tmaze", [file]).config.run_name == "tmaze-rate-nmt7-1"
    changed = parse("tmaze", [file, "--model.block=gtrxl"]).config
    assert changed.run_name == "tmaze-rate-nmt7-gtrxl-1"
    resumed = parse("tmaze", [f"--resume={folder}", "--training.max_steps=900"]).config
    assert resumed.run_name == "tmaze-rate-nmt7-1"


def config_of(output: Path, *words: str) -> RunConfig:
    return parse("tmaze", [f"--logging.output={output}", *words]).config


def test_another_run_of_the_same_name_gets_a_number(tmp_path: Path) -> None:
    """This includes given names, because two commands of the public README have the same one."""
    public = ["--ckpt_folder=RMT", "--nmt=15", "--mem_len=0", "--n_head_ca=0"]
    first = create_run(config_of(tmp_path, *public))
    before = (first / "config.yaml").read_bytes()
    other = config_of(tmp_path, "--ckpt_folder=RMT", "--nmt=0", "--mem_len=90", "--n_head_ca=0")
    with pytest.warns(UserWarning, match=r"model\.num_memory_tokens is 15 there, and 0 here.*run2"):
        second = create_run(other)
    with pytest.warns(UserWarning, match="tmaze-RMT-1 holds another run"):
        third = create_run(config_of(tmp_path, *public, "--training.max_steps=7"))
    assert [path.name for path in (first, second, third)] == [
        "tmaze-RMT-1",
        "tmaze-RMT-1-run2",
        "tmaze-RMT-1-run3",
    ]
    assert (first / "config.yaml").read_bytes() == before
    assert run_folder(other) == second  # as another process of the run finds it


@pytest.mark.parametrize("words", [[], ["--training.threads=2"], ["--data.root=elsewhere"]])
def test_the_same_run_is_not_created_twice(tmp_path: Path, words: list[str]) -> None:
    folder = create_run(config_of(tmp_path))
    with pytest.raises(ConfigError, match=f"--resume {folder}"):
        create_run(config_of(tmp_path, *words))
    with pytest.warns(UserWarning, match="run2"):
        again = create_run(config_of(tmp_path, "--training.max_steps=7"))
    with pytest.raises(ConfigError, match=f"--resume {again}"):
        create_run(config_of(tmp_path, "--training.max_steps=7"))
    assert sorted(tmp_path.iterdir()) == [folder, again]


def test_an_unreadable_run_is_not_changed(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    folder = create_run(config)
    (folder / "config.yaml").write_text("{", encoding="utf-8")
    with pytest.warns(UserWarning, match="cannot be read"):
        assert create_run(config).name == "tmaze-rate-1-run2"
    assert (folder / "config.yaml").read_text(encoding="utf-8") == "{"


def test_other_processes_find_the_same_folder(tmp_path: Path) -> None:
    config = config_of(tmp_path)
    create_run(config_of(tmp_path, "--training.max_steps=7"))
    expected = run_folder(config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert create_run(config) == expected == run_folder(config)
