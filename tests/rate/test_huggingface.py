"""Decision Transformers of Hugging Face: equal predictions, and refusals by name.

No network is at hand: a folder of random weights in the layout of `save_pretrained` stands for a
download, and `forward` says what the library computes (transformers, `DecisionTransformerModel`).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from gymnasium.spaces import Box
from safetensors.torch import save_file
from torch import Tensor

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError, WeightsError
from rate.huggingface import is_checkpoint, load_decision_transformer
from rate.policy import Policy
from tests.factories import make_batch

CONFIG: dict[str, Any] = {
    "model_type": "decision_transformer",
    "architectures": ["DecisionTransformerModel"],
    "state_dim": 5,
    "act_dim": 2,
    "hidden_size": 12,
    "max_ep_len": 40,
    "n_layer": 2,
    "n_head": 3,
    "n_inner": None,
    "max_length": 6,
    "action_tanh": True,
    "activation_function": "relu",
    "layer_norm_epsilon": 1e-05,
}
MEAN, STD = [0.5, -1.0, 0.0, 2.0, 0.1], [1.0, 2.0, 0.5, 1.5, 3.0]


def random_weights(config: dict[str, Any], dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Weights under the library's names."""
    width, states, actions = config["hidden_size"], config["state_dim"], config["act_dim"]
    inner = config["n_inner"] or 4 * width
    matrices = {
        "embed_return": (width, 1),
        "embed_state": (width, states),
        "embed_action": (width, actions),
        "predict_state": (states, width),
        "predict_action.0": (actions, width),
        "predict_return": (1, width),
    }
    shapes = {f"{name}.weight": shape for name, shape in matrices.items()}
    shapes |= {f"{name}.bias": shape[:1] for name, shape in matrices.items()}
    shapes |= {"embed_timestep.weight": (config["max_ep_len"], width)}
    shapes |= {"encoder.wte.weight": (1, width), "encoder.wpe.weight": (1024, width)}
    norms = ["embed_ln", "encoder.ln_f"]
    for index in range(config["n_layer"]):
        block = f"encoder.h.{index}"
        norms += [f"{block}.ln_1", f"{block}.ln_2"]
        for name, shape in (
            ("attn.c_attn", (width, 3 * width)),
            ("attn.c_proj", (width, width)),
            ("mlp.c_fc", (width, inner)),
            ("mlp.c_proj", (inner, width)),
        ):
            shapes |= {f"{block}.{name}.weight": shape, f"{block}.{name}.bias": shape[1:]}
    shapes |= {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}
    rng = torch.Generator().manual_seed(1)
    return {n: 0.3 * torch.randn(shape, generator=rng, dtype=dtype) for n, shape in shapes.items()}


def forward(
    config: dict[str, Any],
    w: dict[str, Tensor],
    returns: Tensor,
    states: Tensor,
    actions: Tensor,
    timesteps: Tensor,
) -> Tensor:
    """The library's action predictions `(B, T, A)` of normalised states and scaled returns."""

    def linear(name: str, x: Tensor) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    def convolution(name: str, x: Tensor) -> Tensor:  # Conv1D of GPT-2
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"])

    time = w["embed_timestep.weight"][timesteps]
    parts = [
        linear("embed_return", returns) + time,
        linear("embed_state", states) + time,
        linear("embed_action", actions) + time,
    ]
    x = torch.stack(parts, dim=2).flatten(1, 2)  # (B, 3 T, d)
    x = norm("embed_ln", x) + w["encoder.wpe.weight"][0]  # all position ids are 0
    heads, count = config["n_head"], x.shape[1]
    future = torch.ones(count, count, dtype=torch.bool).triu(1)
    for index in range(config["n_layer"]):
        block = f"encoder.h.{index}"
        y = convolution(f"{block}.attn.c_attn", norm(f"{block}.ln_1", x))
        query, key, value = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in y.chunk(3, dim=-1)
        )
        scores = (query @ key.mT / math.sqrt(query.shape[-1])).masked_fill(future, -math.inf)
        mixed = (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
        x = x + convolution(f"{block}.attn.c_proj", mixed)
        hidden = convolution(f"{block}.mlp.c_fc", norm(f"{block}.ln_2", x)).relu()
        x = x + convolution(f"{block}.mlp.c_proj", hidden)
    x = norm("encoder.ln_f", x)[:, 1::3]
    actions = linear("predict_action.0", x)
    return actions.tanh() if config["action_tanh"] else actions


def write(folder: Path, config: dict[str, Any], weights: dict[str, Tensor]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(weights, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("action_tanh", [True, False])
def test_predictions_are_those_of_the_library(action_tanh: bool, tmp_path: Path) -> None:
    """In float64: what float32 weights are rounded to is the same number in both."""
    config = {**CONFIG, "action_tanh": action_tanh}
    weights = random_weights(config)
    weights["encoder.wpe.weight"][0] = 0.25  # its sum with a bias is then exact in float32
    weights["embed_ln.bias"] = weights["embed_ln.bias"].mul(64).round() / 64
    folder = write(tmp_path, config, weights)
    saved = load_decision_transformer(folder, target_return=1.0, return_scale=1.0)
    model = saved.model.double()
    batch = make_batch(model, [6, 4])
    args = [batch.returns_to_go, batch.observations, batch.actions]
    exact = {name: weight.double() for name, weight in weights.items()}
    expected = forward(config, exact, *(x.double() for x in args), batch.timesteps)
    with torch.no_grad():
        batch.returns_to_go = batch.returns_to_go.double()
        found, _ = model(batch)
    real = batch.mask
    torch.testing.assert_close(found[real], expected[real], rtol=0.0, atol=2e-15)


def test_it_acts_with_the_scales_of_its_data(tmp_path: Path) -> None:
    """Past K steps, as the public examples do: the window is computed again at every step."""
    weights, size = random_weights(CONFIG), CONFIG["max_length"]
    scale, target = 100.0, 300.0
    saved = load_decision_transformer(
        write(tmp_path, CONFIG, weights),
        target_return=target,
        return_scale=scale,
        state_mean=MEAN,
        state_std=STD,
    )
    policy, rng = Policy(saved.model, num_envs=1, target_return=target), np.random.default_rng(0)
    returns, states, actions = [], [], torch.zeros(1, 0, 2)
    wanted, reward = target, None
    for step in range(3 * size):
        state = rng.normal(size=(1, 5)).astype(np.float32)
        found = policy.act(state, reward)
        returns.append(wanted / scale)
        states.append((torch.from_numpy(state) - torch.tensor(MEAN)) / torch.tensor(STD))
        at = slice(max(0, step + 1 - size), step + 1)
        padded = torch.cat((actions, torch.zeros(1, 1, 2)), dim=1)
        expected = forward(
            CONFIG,
            weights,
            torch.tensor(returns)[None, at, None],
            torch.stack(states, dim=1)[:, at],
            padded[:, at],
            torch.arange(step + 1)[None, at],
        )[:, -1]
        np.testing.assert_allclose(found, expected.numpy(), rtol=0, atol=1e-5)
        actions = torch.cat((actions, torch.from_numpy(found)[:, None]), dim=1)
        reward = rng.normal(size=1)
        wanted -= float(reward[0])


def test_a_pickle_of_tensors_is_read_and_one_of_code_is_not(tmp_path: Path) -> None:
    folder = write(tmp_path, CONFIG, random_weights(CONFIG))
    expected = load_decision_transformer(folder, target_return=1.0).model.state_dict()
    (folder / "model.safetensors").unlink()
    assert not is_checkpoint(folder)
    masks = {"encoder.h.0.attn.bias": torch.ones(1, 1, 8, 8, dtype=torch.bool)}  # of old versions
    torch.save({**random_weights(CONFIG), **masks}, folder / "pytorch_model.bin")
    assert is_checkpoint(folder)
    found = load_decision_transformer(folder, target_return=1.0).model.state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    torch.save({"weight": print}, folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"pytorch_model\.bin holds more than tensors"):
        load_decision_transformer(folder, target_return=1.0)


Change = Callable[[dict[str, Any], dict[str, Tensor]], object]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c, w: c.update(model_type="gpt2"), "describes the architecture 'gpt2'; only"),
        (lambda c, w: c.update(activation_function="gelu"), "activation_function is 'gelu'; only"),
        (lambda c, w: c.update(n_head=5), "n_head must divide hidden_size"),
        (lambda c, w: c.update(max_length=41), "max_length be at most max_ep_len"),
        (lambda c, w: c.update(n_layer=10**9), "fewer layers than n_layer"),
        (lambda c, w: c.update(n_layer=3), "missing: encoder.h.2.ln_1.weight"),
        (lambda c, w: c.update(state_dim="5"), "state_dim is '5'; it must be a number"),
        (lambda c, w: w.pop("embed_ln.bias"), "missing: embed_ln.bias"),
        (lambda c, w: w.update(more=torch.zeros(1)), "unexpected: more"),
        (lambda c, w: c.update(hidden_size=24), r"embed_state.weight is \(12, 5\), expected"),
    ],
)
def test_another_model_is_refused_by_name(change: Change, message: str, tmp_path: Path) -> None:
    config, weights = dict(CONFIG), random_weights(CONFIG)
    change(config, weights)
    with pytest.raises(WeightsError, match=message):
        load_decision_transformer(write(tmp_path, config, weights), target_return=1.0)


def test_what_does_not_fit_the_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, CONFIG, random_weights(CONFIG))
    for settings, message in (
        ({"state_mean": [0.0]}, "state_mean must be 5 finite numbers"),
        ({"state_std": [1.0, 1.0, 0.0, 1.0, 1.0]}, "state_std has a number that is not above 0"),
        ({"target_return": math.nan}, "target_return is nan"),
        ({"return_scale": 0.0}, "return_scale"),
    ):
        with pytest.raises(ConfigError, match=message):
            load_decision_transformer(folder, **{"target_return": 1.0, **settings})
    wide = EnvironmentSpec("own", Box(-9, 9, (5,)), Box(-2, 2, (2,)), 1.0)
    with pytest.raises(ConfigError, match=r"actions of the checkpoint are Box\(-1.0, 1.0.*of own"):
        load_decision_transformer(folder, target_return=1.0, spec=wide)
