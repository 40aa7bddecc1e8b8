"""A study trains its missing runs, keeps finished ones, and refuses to mix settings."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from rate.errors import ConfigError
from tests.processes import PATIENCE
from trainers.commands.scores import COLUMNS, read_scores
from trainers.commands.study import main, threads_of_a_run
from trainers.commands.study_file import load_study
from trainers.registry import find_environment

ROOT = Path(__file__).parents[3]
STUDY = """\
# Two models.
environment: tmaze
seeds: [1, 2]
options: "--model.d_model=32"
runs:
  memory: --model_mode RATE --model.num_memory_tokens=3
  plain: --model_mode=DT --text 'two words'
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY, encoding="utf-8")
    return path


def files(folder: Path) -> dict[Path, int]:
    """Returns the modification time of every file below a folder."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("path", sorted((ROOT / "trainers/studies").glob("*.yaml")), ids=str)
def test_the_studies_of_the_project_are_valid(path: Path) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    needs = find_environment(content["environment"]).needs
    if any(find_spec(package) is None for package in needs):
        pytest.skip(f"not installed here: {', '.join(needs)}")
    runs = load_study(path, None, None, []).runs
    values = next(iter(content.get("vary", {}).values()), [None])
    made = [
        len(run.get("seeds", content["seeds"])) * len(run.get("values", values))
        for run in (run if isinstance(run, dict) else {} for run in content["runs"].values())
    ]
    assert len(runs) == sum(made)
    assert len({config.run_name for config in runs}) == len(runs)
    assert path.read_text(encoding="utf-8").startswith("# ")


def test_a_study_is_the_product_of_runs_and_seeds(study: Path) -> None:
    loaded = load_study(study, None, None, ["--training.max_steps=4"])
    assert loaded.name == "small"
    assert [config.run_name for config in loaded.runs] == [
        "tmaze-memory-1",
        "tmaze-memory-2",
        "tmaze-plain-1",
        "tmaze-plain-2",
    ]
    assert [config.name for config in loaded.runs] == ["rate", "rate", "dt", "dt"]
    assert all(c.model.d_model == 32 and c.training.max_steps == 4 for c in loaded.runs)
    assert loaded.runs[0].model.num_memory_tokens == 3
    assert loaded.runs[3].logging.comment == "two words"
    chosen = load_study(study, [7, 7], ["plain"], [])
    assert [config.run_name for config in chosen.runs] == ["tmaze-plain-7"]


def test_a_study_trains_its_missing_runs_only(
    study: Path,
    short: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    error_of: Callable[..., str],
) -> None:
    """A single test, because a study's processes take seconds to start."""
    runs = tmp_path / "runs"
    command = [str(study), "--jobs", "1", f"--output={runs}", *short]

    main([*command, "--only", "memory", "--seeds", "1"])
    first = files(runs / "tmaze-memory-1")
    assert not (runs / "tmaze-plain-1").exists()

    capsys.readouterr()
    main([*command, "--only", "memory"])
    output = capsys.readouterr().out
    assert "1 of 2 runs have finished before" in output
    assert "tmaze-memory-2 training" in output
    assert "tmaze-memory-1 training" not in output
    assert files(runs / "tmaze-memory-1") == first

    table, figure = runs / "small.csv", runs / "small.png"
    with table.open(encoding="utf-8", newline="") as file:
        assert tuple(next(csv.reader(file))) == COLUMNS
    rows = read_scores(table)
    assert [(r["model"], r["seed"], r["which"], r["length"]) for r in rows] == [
        ("memory", seed, which, length)
        for seed in (1, 2)
        for which in ("last", "best")
        for length in (9, 40)
    ]
    evaluation = json.loads((runs / "tmaze-memory-2/evaluation.json").read_text(encoding="utf-8"))
    assert [row["success"] for row in rows[4:]] == [r["success"] for r in evaluation["rows"]]
    assert figure.read_bytes().startswith(b"\x89PNG")

    further = "evaluations:\n  twenty: {lengths: [20], episodes: 3}\n"
    study.write_text(STUDY + further, encoding="utf-8")
    main([*command, "--only", "memory", "--seeds", "1"])
    assert first.items() <= files(runs / "tmaze-memory-1").items()  # it is not trained again
    (row,) = (r for r in read_scores(table) if r["environment"] == "tmaze twenty")
    assert [row[n] for n in ("model", "seed", "which", "length", "episodes", "steps")] == [
        *("memory", 1, "last", 20, 3),
        19.0,
    ]
    study.write_text(STUDY, encoding="utf-8")

    everything = files(runs)
    error = error_of(main, [*command, "--only", "memory", "--model.num_layers=1"])
    assert "tmaze-memory-1 holds a run with model.num_layers 2, but 1 is asked for" in error
    assert files(runs) == everything

    finished = runs / "tmaze-memory-1"
    (finished / "evaluation.json").write_text("{", encoding="utf-8")
    assert "evaluation.json is damaged" in error_of(main, [*command, "--only", "memory"])


def test_a_failed_run_is_reported_and_the_others_finish(
    study: Path, short: list[str], tmp_path: Path, error_of: Callable[..., str]
) -> None:
    runs = tmp_path / "runs"
    (runs / "tmaze-memory-1").mkdir(parents=True)
    (runs / "tmaze-memory-1" / "mine").touch()
    command = [str(study), "--jobs", "1", "--seeds", "1", f"--output={runs}", *short]
    error = error_of(main, command, code=1)
    assert "1 of 2 runs did not finish. The same command continues with them." in error
    assert "tmaze-memory-1: " in error
    assert "is there already" in error
    assert (runs / "tmaze-plain-1" / "evaluation.json").is_file()
    assert not (runs / "small.csv").exists()


@pytest.mark.parametrize(
    ("kill", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGUSR1)]
)
def test_an_interrupted_study_saves_its_run_and_starts_no_other(
    kill: Callable[[int, int], None], number: int, study: Path, short: list[str], tmp_path: Path
) -> None:
    """The signal goes to all of its processes, as Ctrl+C does, or to the study alone."""
    runs = tmp_path / "runs"
    command = [sys.executable, "scripts/study.py", str(study), "--jobs=1", f"--output={runs}"]
    process = subprocess.Popen(
        [*command, *short, "--training.max_steps=100000", "--evaluation.every_n_steps=0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl+C signals all processes of a terminal's command
    )
    assert process.stdout is not None
    assert any(line.startswith("tmaze-memory-1 training") for line in process.stdout)
    kill(process.pid, number)
    _, error = process.communicate(timeout=PATIENCE)
    assert process.returncode == 128 + number
    assert error == "Stopped; the same command continues the study.\n"
    assert [path.name for path in runs.iterdir()] == ["tmaze-memory-1"]
    assert (runs / "tmaze-memory-1" / "checkpoints" / "last.ckpt").is_file()
    assert not list(tmp_path.glob("**/evaluation.json"))


def test_an_unknown_run_is_refused(study: Path) -> None:
    with pytest.raises(ConfigError, match="has no run memroy, rate; it has: memory, plain"):
        load_study(study, None, ["plain", "rate", "memroy"], [])


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("model.backbone", "their_code:Cell"),
        ("training.objective", "their_code:Loss"),
        ("data.reading.format", "their_code:Format"),
        ("data.expert", "their_code:policy"),
        ("env.python", "/opt/other/bin/python"),
    ],
)
def test_code_that_a_study_file_names_has_to_be_named_by_the_user(
    study: Path, tmp_path: Path, monkeypatch, setting: str, value: str
) -> None:
    """The module would leave a file behind if it were imported."""
    (tmp_path / "their_code.py").write_text("open('imported', 'w')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    content = yaml.safe_load(study.read_text())
    content["options"] = f"--{setting}={value}"
    study.write_text(yaml.safe_dump(content))
    with pytest.raises(ConfigError, match=r"have not named before on this computer.*--" + setting):
        load_study(study, None, None, [])
    assert not (tmp_path / "imported").exists()


def test_the_environment_of_a_study_file_has_to_be_named_by_the_user(study: Path) -> None:
    content = yaml.safe_load(study.read_text())
    study.write_text(yaml.safe_dump({**content, "environment": "their_code:make_env"}))
    with pytest.raises(ConfigError, match=r"their_code:make_env.*have not named"):
        load_study(study, None, None, [])
    runs = load_study(study, None, None, [], environment="tmaze").runs
    assert {config.environment for config in runs} == {"tmaze"}


def test_an_invalid_option_is_reported_with_its_run(study: Path) -> None:
    with pytest.raises(ConfigError, match=r"Run plain of .*small\.yaml: training\.segments=3"):
        load_study(study, None, None, ["--training.segments=3"])
    with pytest.raises(ConfigError, match=r"Run memory of .*Did you mean --model\.num_layers\?"):
        load_study(study, None, None, ["--model.num_layer=3"])


def test_a_study_varies_an_option(study: Path) -> None:
    """Every run is made with every value, or with its own, and `only` takes one or all of them."""
    varied = STUDY.replace("--model_mode=DT --text 'two words'", "{values: [96]}")
    study.write_text(varied + "vary: {model.d_model: [32, 64]}", encoding="utf-8")
    loaded = load_study(study, [1], None, [])
    assert [(config.logging.name, config.model.d_model) for config in loaded.runs] == [
        ("memory-32", 32),
        ("memory-64", 64),
        ("plain-96", 96),
    ]
    chosen = load_study(study, [1], ["memory-64"], [])
    assert [config.logging.name for config in chosen.runs] == ["memory-64"]
    chosen = load_study(study, [1], ["memory"], [])
    assert [config.logging.name for config in chosen.runs] == ["memory-32", "memory-64"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a YAML file"),
        ("[]", "is no study"),
        ("environment: tmaze\nruns: {a: ''}", "is no study"),
        (STUDY + "option: ''", "is no study"),
        ("environment: tmaze\nseeds: [1]\nruns: {}", "at least one run"),
        ("environment: tmaze\nseeds: [1]\nruns: [a]", "as LABEL: OPTIONS"),
        ("environment: tmaze\nseeds: 3\nruns: {a: ''}", "seeds must be whole numbers"),
        ("environment: tmaze\nseeds: [x]\nruns: {a: ''}", "seeds must be whole numbers"),
        (STUDY + "baselines: [oracle]", "baselines is a list of some of expert, random"),
        (STUDY + "baselines: expert", "baselines is a list of some of expert, random"),
        (STUDY + "evaluations: [far]", "of the form NAME: {env: {SETTING: VALUE}}"),
        (STUDY + "evaluations: {a/b: {}}", "the evaluation 'a/b' must be named in letters"),
        (STUDY + "evaluations: {far: {env.size: 3}}", "far may have env, lengths and episodes"),
        (STUDY + "evaluations: {far: {lengths: [0]}}", "positive whole numbers"),
        (STUDY + "evaluations: {far: {env: 3}}", "env maps settings to values"),
        (STUDY + "vary: [model.d_model]", "vary is of the form {OPTION: [VALUE, ...]}"),
        (STUDY + "vary: {model.d_model: 32}", "values must be a list, like [1, 10, 100]"),
        (STUDY + "vary: {a: [1], b: [2]}", "one option"),
        (
            "environment: tmaz\nseeds: [1]\nruns: {a: ''}",
            "no environment 'tmaz'; did you mean 'tmaze'?",
        ),
    ],
)
def test_an_invalid_study_file_is_refused(study: Path, text: str, message: str) -> None:
    study.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        load_study(study, None, None, [])
    assert message in str(caught.value)
    assert study.name in str(caught.value)


def test_a_study_without_options_has_those_of_the_presets(study: Path) -> None:
    study.write_text("environment: tmaze\nseeds: [1]\nruns: {rate: }", encoding="utf-8")
    (config,) = load_study(study, None, None, []).runs
    assert config.model.d_model == 64


def test_an_invalid_command_starts_no_run(
    study: Path, tmp_path: Path, error_of: Callable[..., str]
) -> None:
    before = files(tmp_path)
    output = f"--output={tmp_path / 'runs'}"
    assert "cannot be read" in error_of(main, [str(tmp_path / "none.yaml"), output])
    assert "'0' is no whole number" in error_of(main, [str(study), output, "--jobs", "0"])
    assert "no option --seed_s" in error_of(main, [str(study), output, "--seed_s=3"])
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("cores", "jobs", "runs", "threads"), [(4, 4, 2, 2), (4, 4, 9, 1), (4, 1, 2, 4), (64, 64, 2, 4)]
)
def test_few_runs_share_all_cores(
    cores: int, jobs: int, runs: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainers.commands.study.available_cores", lambda: cores)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads_of_a_run(jobs, runs) == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert threads_of_a_run(jobs, runs) is None
