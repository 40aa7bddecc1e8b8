"""A policy that is exported acts as it does here, across segment borders, rows out of phase."""

from __future__ import annotations

import builtins
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rate.batch import Observations
from rate.errors import ConfigError
from rate.export import NEXT, STATE, ActingStep, example_inputs, export
from rate.policy import Policy
from tests.factories import MODELS, SPACES, draw, make_model

CLOSE = {"rtol": 1e-5, "atol": 1e-5}  # float32; norms of small vectors enlarge its rounding
ROWS = 3
# One of every kind of state in a segment or window; the step of a recurrent backbone is its
# decoder's, which other tests compare with teacher forcing.
SEGMENTS = ["rate_cache", "cached_memories", "armt_cache", "elmur", "dt", "gpt2", "lsdt", "own"]
REFUSED = ["ffm"]  # ONNX has no complex numbers
LONG = [name for name in MODELS if name not in REFUSED]
FIRST = "dictionary_to_bounded"
EXAMPLE = Path(__file__).parents[1] / "act_with_onnx.py"


def is_long(name: str) -> Any:
    return pytest.param(name, marks=pytest.mark.long)


class Exported:
    """An exported step and its state, which begins with what must not matter."""

    def __init__(self, policy: Policy, run: Any) -> None:
        self.policy, self.run = policy, run
        inputs = example_inputs(policy.model, len(policy.timesteps))
        self.names = [name for name in inputs if not name.startswith(STATE)]
        kept = {name: x for name, x in inputs.items() if name.startswith(STATE)}
        self.state = {name: torch.full_like(x, 3) for name, x in kept.items()}

    def step(self, observations: Observations, rewards: np.ndarray | None) -> tuple[Any, Any]:
        """The policy's step, and that of the exported one for the same inputs."""
        policy = self.policy
        actions, timesteps = policy.actions.clone(), policy.timesteps.clone()
        arrays = {"observation": observations}
        if isinstance(observations, dict):
            arrays = {f"observation.{key}": value for key, value in observations.items()}
            expected = policy.step({k: v.numpy() for k, v in observations.items()}, rewards)
        else:
            expected = policy.step(observations.numpy(), rewards)
        parts: dict[str, Any] = {
            **arrays,
            "previous_action": actions,
            "return_to_go": policy.returns_to_go.float(),
            "timestep": timesteps,
        }
        outputs = self.run({name: parts[name] for name in self.names} | self.state)
        self.state = {
            STATE + name.removeprefix(NEXT): x
            for name, x in outputs.items()
            if name.startswith(NEXT)
        }
        return expected, list(outputs.values())[:2]


def play(exported: Exported, steps: int, atol: float = 1e-5) -> None:
    """Plays episodes of lengths of their own in each row; compares every step."""
    policy, rng = exported.policy, np.random.default_rng(0)
    seen = draw(policy.model.observation_space, steps, ROWS, seed=3)
    rewards = None
    for tick in range(steps):
        reset = np.array([tick % length == length - 1 for length in (97, 11, 13)])
        if tick and reset.any():
            policy.reset(reset)
        now = {k: v[tick] for k, v in seen.items()} if isinstance(seen, dict) else seen[tick]
        expected, (action, predictions) = exported.step(now, rewards)
        torch.testing.assert_close(predictions, expected.predictions, rtol=1e-5, atol=atol)
        if "int" in str(action.dtype):
            assert (action.numpy() == expected.actions).all()
        else:
            torch.testing.assert_close(action.numpy(), expected.actions, **CLOSE)
        rewards = rng.normal(size=ROWS)


def policy_of(name: str, spaces: str = "vector_to_discrete", **changes: Any) -> Policy:
    return Policy(make_model(name, spaces, **changes), num_envs=ROWS, target_return=2.0)


def onnx_of(policy: Policy, path: Path, batch_size: int | None) -> Any:
    """A function of tensors by name that runs the exported file."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    policy.export(path, batch_size=batch_size)
    options = runtime.SessionOptions()
    options.intra_op_num_threads = 1
    session = runtime.InferenceSession(path, options)
    names = [output.name for output in session.get_outputs()]

    def run(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        arrays = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        return {name: torch.from_numpy(x) for name, x in zip(names, arrays, strict=True)}

    return run


@pytest.mark.parametrize("name", SEGMENTS)
def test_a_step_of_tensors_equals_the_decoder(name: str) -> None:
    policy = policy_of(name)
    with torch.no_grad():
        play(Exported(policy, ActingStep(policy.model)), 25)


def test_onnx_equals_the_policy_over_many_segments(tmp_path: Path) -> None:
    policy = policy_of("rate", num_layers=1)
    play(Exported(policy, onnx_of(policy, tmp_path / "policy.onnx", ROWS)), 1000)


@pytest.mark.long
@pytest.mark.parametrize("name", LONG)
def test_onnx_of_any_number_of_rows_equals_the_policy(name: str, tmp_path: Path) -> None:
    policy = policy_of(name)
    atol = 1e-4 if name in ("armt", "mlstm") else 1e-5  # they divide by what may be small
    play(Exported(policy, onnx_of(policy, tmp_path / "policy.onnx", None)), 1000, atol)


@pytest.mark.parametrize("spaces", [FIRST, *(is_long(name) for name in SPACES if name != FIRST)])
def test_onnx_has_the_inputs_of_every_space(spaces: str, tmp_path: Path) -> None:
    policy = policy_of("mlp", spaces)
    play(Exported(policy, onnx_of(policy, tmp_path / "policy.onnx", ROWS)), 30)


def test_an_archive_of_torch_has_the_step_and_the_description(tmp_path: Path) -> None:
    policy = policy_of("min_gru", num_layers=1)
    path = policy.export(tmp_path / "policy.pt2", "torch", batch_size=None)
    held = {"rate.json": ""}
    program = torch.export.load(path, extra_files=held)
    play(Exported(policy, program.module()), 30)
    about = json.loads(held["rate.json"])
    late, cell = about["state"]
    assert (late["name"], late["next"]) == ("state.late", "next_state.late")
    assert (late["shape"], late["dtype"]) == (["batch", 1, 16], "float32")
    assert cell["name"] == "state.cells.0.log_hidden"
    assert [part["name"] for part in about["inputs"]][-1] == "timestep"
    assert about["environment"]["action_space"]["n"] == 4
    assert (about["target_return"], about["return_to_go"]) == (2.0, "decrease")


def test_what_onnx_cannot_hold_is_refused_by_name(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    with pytest.raises(ConfigError, match=r"model\.backbone=ffm .* complex"):
        policy_of("ffm", num_layers=1).export(tmp_path / "policy.onnx")
    assert not list(tmp_path.iterdir())


def test_bad_settings_are_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy, path = policy_of("gru"), tmp_path / "policy.onnx"
    with pytest.raises(ConfigError, match="format is 'onx'; choose one of: onnx, torch"):
        export(policy, path, "onx")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size is 0; it must be at least 1, or None"):
        policy.export(path, batch_size=0)
    found = builtins.__import__

    def without_onnx(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "onnx":
            raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
        return found(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_onnx)
    with pytest.raises(ConfigError, match=r"needs onnx, which is not installed.*\bexport\b"):
        policy.export(path)


@pytest.mark.parametrize("name", ["tmaze-lstm", is_long("tmaze-rate")])
def test_the_example_acts_in_tmaze_without_this_project(name: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = Policy.from_pretrained(name).export(tmp_path / "policy.onnx")
    probe = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], None, '__main__');"
        "print(sorted({'torch', 'rate', 'trainers', 'gymnasium'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", probe, EXAMPLE, path],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["mean return of 10 episodes of 90 steps: 1.00", "[]"]
