"""The benchmark runs, measures what it says, and its baselines are what they are called."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from rate.reference import load_reference, run_segments
from scripts import benchmark
from scripts.benchmarks.baselines import FullWindowPolicy, per_sample_batch
from scripts.benchmarks.configurations import MODELS, Configuration
from scripts.benchmarks.data import draw, make_store, random_batch
from scripts.benchmarks.eager import RATE
from scripts.benchmarks.machine import measure_machine, step_flops
from scripts.benchmarks.public import PublicTraining, load_class, public_arguments
from scripts.benchmarks.published import CONFIGURATIONS
from scripts.benchmarks.report import show_skipped
from scripts.benchmarks.rows import Row, Task
from scripts.benchmarks.timing import Stopwatch, time_calls

CPU = torch.device("cpu")
EAGER_FILE = Path(benchmark.__file__).parent / "benchmarks" / "eager.py"


def tiny(name: str, **changes: Any) -> Configuration:
    """A configuration with its own encoders, but short, narrow and without dropout."""
    own = CONFIGURATIONS[name]
    small = {"d_model": 16, "num_layers": 2, "num_heads": 2, "d_head": 8, "d_ff": 16}
    size = {"context_length": 5, "dropout": 0.0, "attention_dropout": 0.0}
    model = replace(own.model, **{**small, **size, **changes})  # type: ignore[arg-type]
    return replace(own, model=model, episode_length=3 * own.segments * 5)


@pytest.fixture
def tiny_configurations(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CONFIGURATIONS:
        small = replace(tiny(name), batch_size=2, cpu_batch_size=2, cpu_num_envs=2, epoch=2)
        monkeypatch.setitem(CONFIGURATIONS, name, replace(small, simulator=None))
    monkeypatch.setitem(
        CONFIGURATIONS, "tmaze", replace(CONFIGURATIONS["tmaze"], simulator=("tmaze", 30))
    )


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the command; returns what it wrote."""
    files = ["--output", str(folder), "--results", str(folder / "speed.csv")]
    benchmark.main([*arguments, "--device", "cpu", "--budget-seconds", "600", *files])
    result: dict[str, Any] = json.loads((folder / "benchmark.json").read_text())
    return result


@pytest.fixture(autouse=True)
def _no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """As few repetitions as there can be."""
    monkeypatch.setattr(benchmark, "_SHORTEST", 0.0)
    monkeypatch.setattr(benchmark, "_LONGEST", 0.0)
    monkeypatch.setattr(benchmark, "measure_machine", lambda device, _: measure_machine(device, 0))


@pytest.mark.usefixtures("tiny_configurations")
def test_every_part_of_every_configuration_is_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(tmp_path, "--reference-module", str(EAGER_FILE))
    assert all("plain" in reason for reason in result["skipped"].values()), result["skipped"]
    measured = {(row["part"], row["configuration"], row["variant"]) for row in result["rows"]}
    for name in CONFIGURATIONS:
        for part in ("step", "sampler", "fit", "rollout"):
            assert (part, name, "ours") in measured
        assert ("step", name, "reference module") in measured
    for row in result["rows"]:
        assert row["milliseconds"] > 0
        assert row["timesteps_per_second"] > 0
        assert row["repeats"] >= 3
        if row["part"] in ("step", "fit"):
            assert 0 < row["flop_utilisation"] < 2
        if row["variant"] == "ours" and row["part"] in ("step", "sampler", "rollout"):
            assert row["ratio"] > 0
        if row["part"] == "fit":
            assert 0 <= row["data_wait"] < 1
    assert (tmp_path / "speed.png").stat().st_size > 0
    assert "x baseline" in capsys.readouterr().out


@pytest.mark.usefixtures("tiny_configurations")
def test_settings_are_those_of_the_run_that_is_timed(tmp_path: Path) -> None:
    wanted = ["--set", "training.precision=bf16-mixed", "model.d_ff=8", "--models", "rmt", "dt"]
    result = run(tmp_path, "--configurations", "tmaze", "--only", "step", "agreement", *wanted)
    ours = [row for row in result["rows"] if row["variant"] == "ours"]
    assert {row["model"] for row in ours} == {"rmt", "dt"}
    assert {row["precision"] for row in ours} == {"bf16-mixed"}
    differences = [row["difference"] for row in ours if row["part"] == "agreement"]
    assert len(differences) == 2
    assert all(0 < difference < 0.05 for difference in differences)


@pytest.mark.usefixtures("tiny_configurations")
def test_rows_are_added_to_a_table_that_is_there(tmp_path: Path) -> None:
    for _ in range(2):
        run(tmp_path, "--configurations", "mujoco", "--only", "sampler")
    with (tmp_path / "speed.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4
    assert {row["command"].split()[1] for row in rows} == {"scripts/benchmark.py"}
    assert all(row["device"] for row in rows)


@pytest.mark.usefixtures("tiny_configurations")
def test_measuring_adds_to_no_table_but_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data" / "results").mkdir(parents=True)
    (tmp_path / "data" / "results" / "speed.csv").write_text("committed\n")
    monkeypatch.chdir(tmp_path)
    wanted = ["--configurations", "mujoco", "--only", "sampler"]
    benchmark.main([*wanted, "--device", "cpu", "--budget-seconds", "600"])
    assert (tmp_path / "data" / "results" / "speed.csv").read_text() == "committed\n"
    assert len((tmp_path / "runs" / "benchmark" / "speed.csv").read_text().splitlines()) == 3


@pytest.mark.usefixtures("tiny_configurations")
def test_a_benchmark_that_is_stopped_adds_nothing_to_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["--configurations", "mujoco", "--only", "sampler", "rollout"]
    run(tmp_path, *wanted)
    before = (tmp_path / "speed.csv").read_bytes()

    def stop(subject: Any) -> Any:
        def measure(share: float) -> Any:
            raise KeyboardInterrupt

        yield Task("stops", measure)

    monkeypatch.setattr(benchmark, "rollout_tasks", stop)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path, *wanted)
    assert stopped.value.code == 130
    assert (tmp_path / "speed.csv").read_bytes() == before
    assert "Nothing was added to" in capsys.readouterr().err
    assert {
        row["part"] for row in json.loads((tmp_path / "benchmark.json").read_text())["rows"]
    } == {"sampler"}


@pytest.mark.usefixtures("tiny_configurations")
def test_the_latest_of_equal_rows_are_printed_as_tables(
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
    assert ours.split(" | ")[-1].rstrip(" |").endswith("x") or "x |" in ours
    table.write_text("a,b\n1,2\n")
    assert "no table" in error_of(benchmark.main, ["--markdown", "--results", str(table)])


def test_a_reader_may_leave_before_the_end() -> None:
    """As `head` does."""
    command = [sys.executable, "scripts/benchmark.py", "--markdown"]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.wait(60) == 141
        assert process.stderr.read() == ""


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


def test_what_cannot_be_asked_for_is_refused(error_of: Callable[..., str], tmp_path: Path) -> None:
    empty = tmp_path / "empty.py"
    empty.write_text("import torch\n")
    short = ["--device", "cpu", "--only", "step", "--configurations", "tmaze", "--budget-seconds"]
    assert "no file" in error_of(benchmark.main, [*short, "1", "--reference-module", "no.py"])
    message = error_of(benchmark.main, [*short, "1", "--reference-module", str(empty)])
    assert "no torch module RATE" in message
    with pytest.raises(SystemExit):
        benchmark.main(["--set", "training.precision"])


@pytest.mark.parametrize("name", ["tmaze", "vizdoom", "memory_maze", "minigrid"])
def test_the_eager_baseline_answers_as_the_public_model(name: str) -> None:
    configuration = tiny(name, cache_length=20)
    training = PublicTraining(RATE, configuration, CPU)
    batch = training.prepare(random_batch(configuration.spec, 2, configuration.window))
    model = training.model.eval()
    reference = load_reference(public_arguments(configuration), model.state_dict())
    answers = run_segments(
        reference, batch.observations, batch.actions[..., None], batch.returns_to_go, 5
    )
    mems, tokens = None, model.mem_tokens.repeat(1, 2, 1)
    for number, answer in enumerate(answers):
        part = batch.steps(5 * number, 5 * number + 5)
        logits, mems, tokens = training._forward(part, mems, tokens)
        torch.testing.assert_close(logits, answer.logits, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(tokens.transpose(0, 1), answer.memory_tokens)


def test_an_older_form_of_the_answer_and_fewer_arguments_will_do() -> None:
    class Older(RATE):
        def forward(self, states, actions, rtgs, target, timesteps, *mems, mem_tokens=None):
            out = super().forward(states, actions, rtgs, None, None, *mems, mem_tokens=mem_tokens)
            return [out["logits"], None, *(out["new_mems"] or ())], out["mem_tokens"]

    configuration = tiny("vizdoom", cache_length=20)
    batch = random_batch(configuration.spec, 2, configuration.window)
    losses = []
    for kind in (RATE, Older):
        torch.manual_seed(0)
        training = PublicTraining(kind, configuration, CPU)
        losses.append(training.step(training.prepare(batch)))
    assert losses[0] == losses[1]
    assert load_class(f"{EAGER_FILE}:Valve").__name__ == "Valve"


def test_every_segment_has_an_optimiser_step_of_its_own() -> None:
    configuration = tiny("tmaze")
    training = PublicTraining(RATE, configuration, CPU)
    training.step(training.prepare(random_batch(configuration.spec, 2, configuration.window)))
    steps = {int(state["step"]) for state in training.optimizer.state.values()}
    assert max(steps) == configuration.segments
    # What writes memory is never trained, for memory is cut: as published.
    assert not any(p.grad is not None for p in training.model.mha_mem_to_mem.parameters())


def test_per_sample_batches_hold_what_the_store_does(tmp_path: Path) -> None:
    spec = CONFIGURATIONS["vizdoom"].spec
    store = make_store(tmp_path / "store", spec, episodes=3, length=7)
    batch = per_sample_batch(store, 4, 10, np.random.default_rng(1))
    assert isinstance(batch.observations, torch.Tensor)
    assert batch.observations.shape == (4, 10, 3, 64, 112)
    for row in range(4):
        real = int(batch.mask[row].sum())
        assert (batch.returns_to_go[row, :real] == 1).all()
        assert (batch.returns_to_go[row, real:] == 0).all()
        assert batch.episode_end[row].nonzero().item() == real - 1
    assert 0 < batch.observations.max() <= 1


@pytest.mark.parametrize("name", ["tmaze", "mujoco"])
def test_the_full_window_baseline_acts_as_our_policy_does(name: str) -> None:
    from rate.model import SequenceModel
    from rate.policy import Policy

    configuration = tiny(name)
    spec = configuration.spec
    model = SequenceModel(configuration.model, spec.observation_space, spec.action_space)
    ours = Policy(model, num_envs=1, target_return=1.0)
    theirs = FullWindowPolicy(model, target_return=1.0)
    for observation in draw(spec.observation_space, 12, np.random.default_rng(0)):
        expected = ours.act(observation[None], np.array([0.1]))
        found = theirs.act(observation[None], np.array([0.1]))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", list(CONFIGURATIONS))
def test_every_model_has_a_form_on_every_configuration(name: str) -> None:
    for model in MODELS:
        derived = CONFIGURATIONS[name].with_model(model)
        assert derived.own == model
        assert derived.window <= CONFIGURATIONS[name].episode_length


def test_flops_grow_with_the_batch_and_are_those_of_the_matrices() -> None:
    configuration = CONFIGURATIONS["mujoco"]
    one, many = (step_flops(configuration.model, configuration.spec, 20, b) for b in (1, 64))
    assert many == pytest.approx(64 * one, rel=0.01)
    # 6 FLOPs for every weight of the blocks and every token.
    blocks = 3 * 12 * 128**2
    assert many == pytest.approx(6 * blocks * 60 * 64, rel=0.15)


def test_the_stopwatch_leaves_the_first_piece_out_and_takes_medians() -> None:
    watch = Stopwatch(CPU, budget=0.0)
    watch.start()
    ticks = 0
    while not watch.tick():
        ticks += 1
    assert ticks >= 4  # three of them warm up
    timing = time_calls(lambda: None, CPU, 0.01)
    assert timing.repeats > 3
    assert 0 < timing.seconds < 0.01


def test_the_time_to_get_ready_is_taken_from_every_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without, what comes last would be left out; other parts need no time to get ready."""
    monkeypatch.setattr(benchmark, "_LONGEST", 20.0)
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(benchmark, "time", SimpleNamespace(monotonic=lambda: clock.now))
    shares = []

    def measure(share: float) -> Row:
        shares.append(share)
        clock.now += share + (3.0 if len(shares) <= 10 else 0.0)
        return Row("step", "tmaze", "rate")

    parts = 10 * ["step"] + 10 * ["sampler"]
    tasks = [(f"{part} {n}", Task(str(n), measure)) for n, part in enumerate(parts)]
    rows, skipped = benchmark.run_tasks(tasks, 60.0, Console(quiet=True, force_terminal=True))
    assert len(rows) == 20
    assert not skipped
    assert 58 < clock.now < 65
    assert min(shares) > 0.5


def test_how_to_get_what_is_missing_is_told_to_the_letter(
    capsys: pytest.CaptureFixture[str],
) -> None:
    show_skipped({"one": "pip install '.[vizdoom]'"}, Console(width=200))
    assert "Not measured, pip install '.[vizdoom]': one." in capsys.readouterr().out
