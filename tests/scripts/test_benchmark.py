"""The benchmark's command: what it measures, prints and writes."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

from scripts import benchmark
from scripts.benchmarks.configurations import MODELS
from scripts.benchmarks.machine import measure_machine, step_flops
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.report import show_skipped
from scripts.benchmarks.rows import Row, Task
from tests.processes import PATIENCE
from tests.scripts.benchmarks.tiny import tiny

CPU = torch.device("cpu")
EAGER_FILE = Path(benchmark.__file__).parent / "benchmarks" / "eager.py"


@pytest.fixture
def tiny_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIGURATIONS:
        small = replace(tiny(name), batch_size=2, cpu_batch_size=2, cpu_num_envs=2, epoch=2)
        monkeypatch.setitem(CONFIGURATIONS, name, replace(small, simulator=None))
    monkeypatch.setitem(
        CONFIGURATIONS, "tmaze", replace(CONFIGURATIONS["tmaze"], simulator=("tmaze", 30))
    )


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Runs the command; returns what it wrote."""
    files = ["--output", str(folder), "--results", str(folder / "speed.csv")]
    benchmark.main([*arguments, "--device", "cpu", "--budget-seconds", "inf", *files])
    result: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    return result


@pytest.fixture(autouse=True)
def _few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few steps as possible: one to warm up, and two rounds of one step each."""
    monkeypatch.setattr("scripts.benchmarks.timing._ROUNDS", 2)
    monkeypatch.setattr("scripts.benchmarks.timing._LONGEST_BLOCK", 0.0)
    monkeypatch.setattr("scripts.benchmarks.timing._MOST_WARM_UPS", 1)
    monkeypatch.setattr("scripts.benchmarks.sampling._BYTES", 0)
    monkeypatch.setattr(benchmark, "measure_machine", lambda device, _: measure_machine(device, 0))


@pytest.mark.usefixtures("tiny_configurations")
@pytest.mark.long
def test_every_part_is_measured_in_turns_with_its_baselines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["tmaze", "atari"]
    few = ["behaviour_cloning", "cql"]
    monkeypatch.setattr("scripts.benchmarks.objectives.rules_of", lambda _: few)
    wanted = ["--configurations", *names, "--reference-module", str(EAGER_FILE)]
    result = run(tmp_path, *wanted)
    assert set(result["skipped"].values()) == {
        "the path that is timed here is the plain one",
        "no simulator of these shapes is registered",
    }
    measured = {(row["part"], row["configuration"], row["variant"]) for row in result["rows"]}
    for name in names:
        for part in ("step", "sampler", "fit", "rollout"):
            assert (part, name, "ours") in measured
        assert ("step", name, "reference module") in measured
        assert ("objectives", name, "behaviour_cloning") in measured
        assert ("objectives", name, "cql") in measured
        assert ("replay", name, "list of episodes") in measured
    assert ("simulators", "tmaze", "ours, as small as the preset") in measured
    for place in ("tmaze", "memory_length", "visual_match"):
        assert ("collector", place, "ours") in measured
    for row in result["rows"]:
        assert row["milliseconds"] > 0
        assert row["repeats"] == len(row["blocks"]) == 2
        if row["part"] in ("step", "fit"):
            assert row["flop_utilisation"] > 0
        if row["part"] == "objectives":
            assert ("ratio" in row) == (row["variant"] != "behaviour_cloning")
        parts = ("step", "sampler", "replay", "rollout", "collector")
        if row["variant"] == "ours" and row["part"] in parts:
            assert 0 < row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
        if row["part"] == "fit":
            assert 0 <= row["data_wait"] < 1
    assert (tmp_path / "speed.png").stat().st_size > 0
    out = capsys.readouterr().out
    assert "x baseline" in out
    assert "step atari dt, ours / reference: " in out


@pytest.mark.usefixtures("tiny_configurations")
def test_other_backbones_are_timed_in_the_size_of_their_preset(
    tmp_path: Path, error_of: Callable[..., str]
) -> None:
    wanted = ["--configurations", "tmaze", "--only", "step", "rollout", "--models"]
    result = run(tmp_path, *wanted, "gru")
    measured = [(row["part"], row["model"], row["variant"]) for row in result["rows"]]
    assert ("step", "gru", "ours") in measured
    assert ("rollout", "gru", "ours") in measured
    assert ("step", "gru", "eager float32, a step per segment") not in measured
    assert "Did you mean gru?" in error_of(benchmark.main, [*wanted, "gruu", "--device", "cpu"])


@pytest.mark.usefixtures("tiny_configurations")
def test_set_changes_the_run_that_is_timed(tmp_path: Path) -> None:
    wanted = ["--set", "training.precision=bf16-mixed", "model.d_ff=8", "--models", "rmt", "dt"]
    result = run(tmp_path, "--configurations", "tmaze", "--only", "step", "agreement", *wanted)
    ours = [row for row in result["rows"] if row["variant"] == "ours"]
    assert {row["model"] for row in ours} == {"rmt", "dt"}
    assert {row["precision"] for row in ours} == {"bf16-mixed"}
    differences = [row["difference"] for row in ours if row["part"] == "agreement"]
    assert len(differences) == 2
    assert all(0 < difference < 0.05 for difference in differences)


@pytest.mark.usefixtures("tiny_configurations")
def test_rows_are_added_to_a_table_of_an_earlier_version(tmp_path: Path) -> None:
    wanted = ["--configurations", "mujoco", "--only", "sampler"]
    table = tmp_path / "speed.csv"
    run(tmp_path, *wanted)
    with table.open() as file:
        lines = [row[:-5] + row[-1:] for row in csv.reader(file)]  # without quartiles of ratios
    assert "ratio_low" not in lines[0]
    with table.open("w") as file:
        csv.writer(file).writerows(lines)
    run(tmp_path, *wanted)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["ratio_low"]) for row in rows] == [False, False, False, True]
    assert {row["command"].split()[1] for row in rows} == {"scripts/benchmark.py"}
    assert all(row["device"] for row in rows)


@pytest.mark.usefixtures("tiny_configurations")
def test_without_results_no_committed_table_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "speed.csv").write_text("committed\n")
    monkeypatch.chdir(tmp_path)
    wanted = ["--configurations", "mujoco", "--only", "sampler"]
    benchmark.main([*wanted, "--device", "cpu", "--budget-seconds", "inf"])
    assert (tmp_path / "data" / "results" / "speed.csv").read_text() == "committed\n"
    assert len((tmp_path / "runs" / "benchmark" / "speed.csv").read_text().splitlines()) == 3


@pytest.mark.usefixtures("tiny_configurations")
def test_an_interrupted_benchmark_adds_nothing_to_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--configurations", "mujoco", "--only", "sampler", "rollout"]
    run(tmp_path, *wanted)
    before = (tmp_path / "speed.csv").read_bytes()

    def interrupt(subject: Any, budget: float) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setitem(benchmark._PARTS, "rollout", (interrupt, 1))
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *wanted)
    assert stopped.value.code == 130
    assert (tmp_path / "speed.csv").read_bytes() == before
    assert "Nothing was added to" in capsys.readouterr().err
    assert {
        row["part"] for row in json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    } == {"sampler"}


@pytest.mark.usefixtures("tiny_configurations")
def test_markdown_has_the_latest_of_equal_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], error_of: Callable[..., str]
) -> None:
    for _ in range(2):
        run(tmp_path, "--configurations", "mujoco", "--only", "sampler", "rollout")
    capsys.readouterr()
    table = tmp_path / "speed.csv"
    benchmark.main(["--markdown", "--results", str(table)])
    lines = capsys.readouterr().out.splitlines()
    titles = [line for line in lines if line.startswith("**")]
    assert [title.split("**")[1].split()[0] for title in titles] == ["Sampler:", "Rollout,"]
    rows = [line for line in lines if line.startswith("| mujoco")]
    assert len(rows) == 4
    ours = next(row for row in rows if "| ours |" in row)
    assert "x (" in ours
    table.write_text("a,b\n1,2\n")
    assert "no table" in error_of(benchmark.main, ["--markdown", "--results", str(table)])


def test_a_closed_pipe_ends_the_command_without_a_traceback() -> None:
    """As with `| head`."""
    command = [sys.executable, "scripts/benchmark.py", "--markdown"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 141
        assert process.stderr.read() == ""


@pytest.mark.long
@pytest.mark.usefixtures("tiny_configurations")
def test_cost_against_scale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.benchmarks.scale._ENVIRONMENTS", (1, 2))
    monkeypatch.setattr("scripts.benchmarks.scale._LENGTHS", (600, 1200))
    monkeypatch.setattr("scripts.benchmarks.scale._DATA_STEPS", (60, 600))
    result = run(tmp_path, "--scale", "environments", "episode_length", "dataset", "memory_tokens")
    points = [(row["series"], row["value"]) for row in result["rows"]]
    assert {("environments", 2), ("dataset", 600), ("memory_tokens", 135)} <= set(points)
    assert {row["part"] for row in result["rows"]} == {"scale"}
    assert (tmp_path / "scale.png").stat().st_size > 0


def test_invalid_options_are_refused(error_of: Callable[..., str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("import torch\n")
    short = ["--device", "cpu", "--only", "step", "--configurations", "tmaze", "--budget-seconds"]
    assert "no file" in error_of(benchmark.main, [*short, "1", "--reference-module", "no.py"])
    message = error_of(benchmark.main, [*short, "1", "--reference-module", str(empty)])
    assert "no torch module RATE" in message
    with pytest.raises(SystemExit):
        benchmark.main(["--set", "training.precision"])


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
def test_every_model_fits_every_configuration(name: str) -> None:
    for model in MODELS:
        derived = CONFIGURATIONS[name].with_model(model)
        assert derived.own == model
        assert derived.window <= CONFIGURATIONS[name].episode_length


def test_flops_are_those_of_the_matrix_products() -> None:
    configuration = CONFIGURATIONS["mujoco"]
    one, many = (step_flops(configuration.model, configuration.spec, 20, b) for b in (1, 64))
    assert many == pytest.approx(64 * one, rel=0.01)
    # 6 FLOPs for every weight of the blocks and every token.
    blocks = 3 * 12 * 128**2
    assert many == pytest.approx(6 * blocks * 60 * 64, rel=0.15)


def test_the_time_that_is_left_is_divided_among_the_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: clock.now))
    budgets = []

    def measure(budget: float, takes: float) -> list[Row]:
        budgets.append(budget)
        clock.now += takes
        return [Row("step", "tmaze", "rate", milliseconds=1.0), Row("step", "a", "b", note="why")]

    tasks = [Task("1", partial(measure, takes=12), 2), Task("2", partial(measure, takes=100))]
    tasks.append(Task("3", partial(measure, takes=1)))
    console = Console(quiet=True, force_terminal=True)
    rows, skipped = benchmark.run_tasks(tasks, 40.0, console)
    assert budgets == [20, 14]
    assert len(rows) == 2
    assert skipped == {
        "1, ours": "why",
        "2, ours": "why",
        "3": "for lack of time (--budget-seconds)",
    }


def test_names_in_brackets_are_printed_as_they_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_skipped({"one": "pip install '.[vizdoom]'"}, Console(width=200))
    assert "Not measured, pip install '.[vizdoom]': one." in capsys.readouterr().out
