"""Rollouts with public weights equal their forward pass over whole segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor

from rate.errors import WeightsError
from rate.policy import Policy
from rate.reference import load_reference, run_segments
from rate.reference.acting import PublicModel, load_public
from rate.tokenizers import StepInputs
from tests.parity.test_reference import NAMES, read
from trainers.commands.evaluate import main as evaluate

K = 3
FOUR, VECTOR = spaces.Discrete(4), spaces.Box(-1, 1, (4,), np.float32)
STATES = [name for name in NAMES if name.endswith("tmaze")]


def make_model(name: str) -> PublicModel:
    config, weights, _, _ = read(name)
    return PublicModel(load_reference(config, weights), K, VECTOR, FOUR)


@pytest.mark.parametrize("name", STATES)
def test_decoding_equals_whole_segments(name: str) -> None:
    """Two rows, one of which is reset in the middle of a segment."""
    model, steps, rng = make_model(name), 4 * K, torch.Generator().manual_seed(0)
    observations = torch.randn(2, steps, 4, generator=rng)
    actions = torch.randint(0, 4, (2, steps), generator=rng)
    returns = torch.randn(2, steps, 1, generator=rng)
    decoder, begins, found = model.eval().make_decoder(2), K + 1, []
    for t in range(steps):
        if t == begins:
            decoder.reset(torch.tensor([False, True]))
        inputs = StepInputs(actions[:, t - 1], returns[:, t], observations[:, t], torch.tensor([t]))
        found.append(decoder.step(inputs))
    predictions = torch.stack(found, dim=1)

    def answers(row: int, start: int, stop: int) -> Tensor:
        parts = (x[row : row + 1, start:stop] for x in (observations, actions[..., None], returns))
        config, weights, _, _ = read(name)
        results = run_segments(load_reference(config, weights), *parts, K)
        return torch.cat([result.logits for result in results], dim=1)[0]

    first = answers(0, 0, steps)
    torch.testing.assert_close(predictions[0], first, rtol=0, atol=1e-5)
    whole = (steps - begins) // K * K
    second = answers(1, begins, begins + whole)
    torch.testing.assert_close(predictions[1, begins : begins + whole], second, rtol=0, atol=1e-5)


def test_actions_are_those_of_the_logits() -> None:
    model = make_model("rate_cache_tmaze")
    policy = Policy(model, num_envs=3, target_return=1.0)
    seen = np.random.default_rng(0).normal(size=(2 * K, 3, 4)).astype(np.float32)
    actions = [policy.act(now, np.zeros(3, np.float32)) for now in seen]
    config, weights, _, _ = read("rate_cache_tmaze")
    results = run_segments(
        load_reference(config, weights),
        torch.as_tensor(seen).transpose(0, 1),
        torch.as_tensor(np.stack(actions, axis=1))[..., None],
        torch.ones(3, 2 * K, 1),
        K,
    )
    chosen = torch.cat([result.logits for result in results], dim=1).argmax(-1)
    assert chosen.tolist() == np.stack(actions, axis=1).tolist()


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"action_space": spaces.Discrete(3)}, "its actions are 4 classes"),
    ({"action_space": spaces.Box(-1, 1, (4,))}, "its actions are 4 classes"),
    ({"observation_space": spaces.Box(-1, 1, (3,))}, r"sees observations of shape \(4,\)"),
    ({"observation_space": spaces.Dict(x=VECTOR)}, "sees observations of shape"),
]


@pytest.mark.parametrize(("changes", "message"), WRONG)
def test_other_spaces_are_refused(changes: dict[str, Any], message: str) -> None:
    config, weights, _, _ = read("rate_tmaze")
    given = {"observation_space": VECTOR, "action_space": FOUR, **changes}
    with pytest.raises(WeightsError, match=message):
        PublicModel(load_reference(config, weights), K, **given)


def saved(folder: Path, kind: str = "nested") -> tuple[Path, Path]:
    config, weights, _, _ = read("rate_tmaze")
    torch.save({"model_state_dict": weights} if kind == "nested" else weights, folder / "w.pt")
    (folder / "c.json").write_text(json.dumps(config), encoding="utf-8")
    return folder / "w.pt", folder / "c.json"


@pytest.mark.parametrize("kind", ["nested", "plain"])
def test_the_command_scores_public_weights(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, config = saved(tmp_path, kind)
    table = tmp_path / "scores.csv"
    given = ["--public-weights", str(weights), "--public-config", str(config), "--env=tmaze"]
    evaluate([*given, "--context-length=4", "--lengths=9", "--episodes=3", f"--results={table}"])
    assert "success" in capsys.readouterr().out.lower()
    assert table.read_text(encoding="utf-8").splitlines()[1].startswith("tmaze,w,0,9,")
    with pytest.raises(SystemExit):
        evaluate(given)
    assert "--public-weights needs --context-length as well" in capsys.readouterr().err


def test_invalid_files_are_named(tmp_path: Path) -> None:
    weights, config = saved(tmp_path)
    nothing = tmp_path / "nothing.pt"
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no zip")
    text = tmp_path / "text.json"
    text.write_text("no json", encoding="utf-8")
    for one, other, message in (
        (nothing, config, "nothing.pt cannot be read"),
        (broken, config, "broken.pt holds more than tensors, or is damaged"),
        (weights, text, "text.json cannot be read as JSON"),
    ):
        with pytest.raises(WeightsError, match=message):
            load_public(one, other, K, VECTOR, FOUR)
    arguments = json.loads(config.read_text(encoding="utf-8"))
    config.write_text(json.dumps({**arguments, "n_layer": 9}), encoding="utf-8")
    with pytest.raises(WeightsError, match="missing"):
        load_public(weights, config, K, VECTOR, FOUR)
