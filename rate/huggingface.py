"""Decision Transformers of Hugging Face as models of this project; `transformers` is not needed.

A checkpoint is a folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`, of
which nothing but tensors is unpickled), as `DecisionTransformerModel.save_pretrained` writes it.
Its inner GPT-2 adds the first row of its position table to every token, after the norm of the
embedding: here the row is part of that norm's bias, so that the two models are equal.

A checkpoint does not say how its data were scaled. Model cards do: the public ones for MuJoCo
divide returns by 1000, and give the mean and the deviation of the states.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from rate.architecture import WINDOW, make_config
from rate.encoders import VectorEncoder
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError, WeightsError
from rate.files import load_json
from rate.model import SequenceModel
from rate.reference.acting import read_weights
from rate.reference.encoders import Shapes
from rate.reference.weights import check_floating, check_shapes
from rate.weights import SavedModel

CONFIG, ARCHITECTURE = "config.json", "decision_transformer"
RETURN_SCALE = 1000.0
WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# What the settings must be, since the model has no other; with the library's defaults.
_FIXED = {
    "activation_function": "relu",
    "layer_norm_epsilon": 1e-5,
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "add_cross_attention": False,
}
# The library's defaults; `max_length` is K in the public examples of acting.
_SIZES = {
    "state_dim": 17,
    "act_dim": 4,
    "hidden_size": 128,
    "max_ep_len": 4096,
    "n_layer": 3,
    "n_head": 1,
    "max_length": 20,
}
_MASKS = (".attn.bias", ".attn.masked_bias")  # constants that older versions save
# Parts of a block, `encoder.h.I.` there and `backbone.blocks.I.` here.
_BLOCK = {
    "ln_1": "attention_norm",
    "attn.c_attn": "attention.qkv",
    "attn.c_proj": "attention.out",
    "ln_2": "feed_forward.0",
    "mlp.c_fc": "feed_forward.1",
    "mlp.c_proj": "feed_forward.4",
}
_PARTS = {
    "embed_return": "tokenizer.returns",
    "embed_state": "tokenizer.observation.linear",
    "embed_action": "tokenizer.action.linear",
    "embed_ln": "tokenizer.norm",
    "encoder.ln_f": "backbone.norm",
    "predict_action.0": "head.linear",
}


def is_checkpoint(path: Path) -> bool:
    """Whether a path is the folder of a model as Hugging Face saves it."""
    return (path / CONFIG).is_file() and any((path / name).is_file() for name in WEIGHTS)


def load_decision_transformer(
    folder: Path,
    *,
    target_return: float,
    return_scale: float = RETURN_SCALE,
    state_mean: Sequence[float] | None = None,
    state_std: Sequence[float] | None = None,
    spec: EnvironmentSpec | None = None,
) -> SavedModel:
    """Returns a Decision Transformer of Hugging Face, in evaluation mode.

    Args:
        folder: See the docstring of this module.
        target_return: The return-to-go at the first step, in units of the reward.
        return_scale: What returns were divided by in training.
        state_mean: By which states were normalised in training; None is 0.
        state_std: The same; None is 1.
        spec: The environment; None has the spaces of the checkpoint and no name.

    Raises:
        ConfigError: If a number does not fit the checkpoint, or is not finite.
        WeightsError: If a file is missing or damaged, or of another architecture.
    """
    settings = _settings(folder)
    weights = _weights(folder)
    try:
        check_floating(weights)
        if settings["n_layer"] > len(weights):
            raise ValueError("The weights are of fewer layers than n_layer")
        check_shapes(weights, *_shapes(settings))
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}.") from error
    spec = _spec(settings, target_return, spec)
    config = make_config(
        backbone=WINDOW,
        block="gpt",
        position="timestep",
        context_length=settings["max_length"],
        d_model=settings["hidden_size"],
        d_ff=settings["n_inner"],
        num_layers=settings["n_layer"],
        num_heads=settings["n_head"],
        max_timestep=settings["max_ep_len"],
        return_scale=return_scale,
    )
    model = SequenceModel(config, spec.observation_space, spec.action_space)
    model.load_state_dict({**model.state_dict(), **_translated(weights, settings["n_layer"])})
    mean = _numbers("state_mean", state_mean, settings["state_dim"], usual=0.0)
    std = _numbers("state_std", state_std, settings["state_dim"], usual=1.0)
    if not (std > 0).all():
        raise ConfigError("state_std has a number that is not above 0; states are divided by it.")
    cast("VectorEncoder", model.tokenizer.observation).set_scale(mean, std)
    return SavedModel(model.eval(), spec, extra={"source": "Hugging Face DecisionTransformerModel"})


def _settings(folder: Path) -> dict[str, Any]:
    """The sizes in `config.json`, checked."""
    path = folder / CONFIG
    try:
        found = load_json(path)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or found.get("model_type") != ARCHITECTURE:
        named = found.get("model_type") if isinstance(found, dict) else None
        raise WeightsError(
            f"{path} describes the architecture {named!r}; only {ARCHITECTURE!r} can be loaded."
        )
    for name, needed in _FIXED.items():
        if (value := found.get(name, needed)) != needed:
            raise WeightsError(f"{path}: {name} is {value!r}; only {needed!r} can be loaded.")
    sizes = {name: found.get(name, usual) for name, usual in _SIZES.items()}
    sizes["n_inner"] = found.get("n_inner")
    if sizes["n_inner"] is None and isinstance(sizes["hidden_size"], int):
        sizes["n_inner"] = 4 * sizes["hidden_size"]
    for name, value in sizes.items():
        if not isinstance(value, int) or value < 1:
            raise WeightsError(f"{path}: {name} is {value!r}; it must be a number of at least 1.")
    if sizes["hidden_size"] % sizes["n_head"] or sizes["max_length"] > sizes["max_ep_len"]:
        raise WeightsError(
            f"{path}: n_head must divide hidden_size, and max_length be at most max_ep_len."
        )
    return {**sizes, "action_tanh": bool(found.get("action_tanh", True))}


def _weights(folder: Path) -> dict[str, Tensor]:
    path = next((folder / name for name in WEIGHTS if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(f"{folder} has neither {' nor '.join(WEIGHTS)}.")
    found = read_weights(path)
    return {name: weight for name, weight in found.items() if not name.endswith(_MASKS)}


def _shapes(settings: Mapping[str, Any]) -> tuple[Shapes, Shapes]:
    """The names and shapes of weights that must be there, and of those without an effect."""
    width, inner = settings["hidden_size"], settings["n_inner"]
    used: Shapes = {
        "embed_timestep.weight": (settings["max_ep_len"], width),
        "encoder.wpe.weight": (None, width),
    }
    sizes = {
        "embed_return": (width, 1),
        "embed_state": (width, settings["state_dim"]),
        "embed_action": (width, settings["act_dim"]),
        "predict_action.0": (settings["act_dim"], width),
    }
    for name in ("embed_ln", "encoder.ln_f"):
        used |= {f"{name}.weight": (width,), f"{name}.bias": (width,)}
    for name, (rows, columns) in sizes.items():
        used |= {f"{name}.weight": (rows, columns), f"{name}.bias": (rows,)}
    # GPT-2 has the input as the first axis of a weight.
    matrices = {
        "attn.c_attn": (width, 3 * width),
        "attn.c_proj": (width, width),
        "mlp.c_fc": (width, inner),
        "mlp.c_proj": (inner, width),
    }
    for index in range(settings["n_layer"]):
        block = f"encoder.h.{index}"
        for name in ("ln_1", "ln_2"):
            used |= {f"{block}.{name}.weight": (width,), f"{block}.{name}.bias": (width,)}
        for name, (rows, columns) in matrices.items():
            used |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (columns,)}
    unused: Shapes = {"encoder.wte.weight": (None, width)}
    for name, rows in (("predict_state", settings["state_dim"]), ("predict_return", 1)):
        unused |= {f"{name}.weight": (rows, width), f"{name}.bias": (rows,)}
    return used, unused


def _translated(weights: Mapping[str, Tensor], layers: int) -> dict[str, Tensor]:
    """The weights by the names of this project."""
    parts = dict(_PARTS)
    for index in range(layers):
        there, here = f"encoder.h.{index}", f"backbone.blocks.{index}"
        parts |= {f"{there}.{name}": f"{here}.{own}" for name, own in _BLOCK.items()}
    found = {"tokenizer.timestep.weight": weights["embed_timestep.weight"]}
    for name, own in parts.items():
        weight = weights[f"{name}.weight"]
        is_transposed = ".c_" in name
        found[f"{own}.weight"] = weight.T.contiguous() if is_transposed else weight
        found[f"{own}.bias"] = weights[f"{name}.bias"]
    position = weights["encoder.wpe.weight"][0]
    found["tokenizer.norm.bias"] = found["tokenizer.norm.bias"] + position
    return found


def _spec(
    settings: Mapping[str, Any], target_return: float, given: EnvironmentSpec | None
) -> EnvironmentSpec:
    """The environment with the spaces of the checkpoint.

    Raises:
        ConfigError: If the target is not finite, or the given environment has other spaces.
    """
    if not math.isfinite(target_return):
        raise ConfigError(f"target_return is {target_return}; it must be a finite number.")
    bound = 1.0 if settings["action_tanh"] else np.inf
    states = gym.spaces.Box(-np.inf, np.inf, (settings["state_dim"],))
    actions = gym.spaces.Box(-bound, bound, (settings["act_dim"],))
    if given is None:
        return EnvironmentSpec("", states, actions, target_return)
    for name, own, space in (
        ("observations", given.observation_space, states),
        ("actions", given.action_space, actions),
    ):
        if not _fits(own, space):
            raise ConfigError(
                f"The {name} of the checkpoint are {space}, those of {given.name} {own}."
            )
    own_actions = given.action_space if settings["action_tanh"] else actions
    return replace(given, action_space=own_actions, target_return=target_return)


def _fits(own: gym.Space[Any], space: gym.spaces.Box) -> bool:
    """Whether a space is a `Box` of the same shape, and of the same bounds where there are any."""
    if not isinstance(own, gym.spaces.Box) or own.shape != space.shape:
        return False
    is_bounded = np.isfinite(space.low).all()
    return not is_bounded or bool((own.low == space.low).all() and (own.high == space.high).all())


def _numbers(name: str, given: Sequence[float] | None, size: int, *, usual: float) -> Tensor:
    """A statistic of the states `(size,)`."""
    found = torch.as_tensor([usual] * size if given is None else given, dtype=torch.float32)
    if found.shape != (size,) or not found.isfinite().all():
        raise ConfigError(f"{name} must be {size} finite numbers, one for each part of a state.")
    return found
