"""Rollouts with public weights: a loaded public model as a `SequenceModel`, for `Policy`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from rate.batch import Batch, Observations
from rate.config import Decoding, ModelConfig
from rate.errors import WeightsError
from rate.heads import decode_logits
from rate.model import SequenceModel
from rate.reference.backbone import TRIPLES
from rate.reference.encoders import Interface, encode
from rate.reference.environments import convention_for
from rate.reference.inputs import check
from rate.reference.model import ReferenceModel, embed, load_reference
from rate.tokenizers import StepInputs, Tokenizer

_NESTED = ("model_state_dict", "state_dict", "model")  # what checkpoints keep weights under


class PublicTokenizer(Tokenizer):
    """The public encoders: R_t, o_t, a_t.

    Args:
        interface: The encoders with their weights.
        return_scale: Divisor of returns-to-go, as in the public data loaders.
    """

    tokens = TRIPLES
    action = None

    def __init__(self, interface: Interface, return_scale: float) -> None:
        nn.Module.__init__(self)
        self.interface, self.return_scale = interface, return_scale

    def forward(self, batch: Batch) -> Tensor:
        """Tokens `(B, T, 3, d)`."""
        return self._embed(batch.returns_to_go, batch.observations, batch.actions)

    def step(self, inputs: StepInputs) -> Tensor:
        """The tokens a_{t-1}, R_t, o_t of every row: `(B, 3, d)`."""
        observations = cast("Tensor", inputs.observations)[:, None]
        actions, returns_to_go = inputs.previous_actions[:, None], inputs.returns_to_go[:, None]
        return self._embed(returns_to_go, observations, actions)[:, 0].roll(1, dims=1)

    def _embed(self, returns_to_go: Tensor, observations: Observations, actions: Tensor) -> Tensor:
        seen = cast("Tensor", observations)
        if actions.dim() == 2:
            actions = actions[..., None]
        steps = check(self.interface, seen, actions, returns_to_go / self.return_scale, 1)
        return embed(self.interface, steps)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> PublicTokenizer:
        weights = {name: fn(weight) for name, weight in self.interface.weights.items()}
        self.interface = replace(self.interface, weights=weights)
        return cast("PublicTokenizer", super()._apply(fn, recurse))  # type: ignore[no-untyped-call]


class PublicHead(nn.Module):
    """The public head: logits, or the action itself."""

    def __init__(self, tokenizer: PublicTokenizer, space: gym.Space[Any]) -> None:
        super().__init__()
        # In a list, so that `nn.Module` does not register it twice.
        self.tokenizer, self.space = [tokenizer], space

    def forward(self, features: Tensor) -> Tensor:
        interface = self.tokenizer[0].interface
        flat = features.reshape(1, -1, features.shape[-1])
        predictions = encode(interface.encoders.head, interface.weights, flat)
        predictions = predictions.view(*features.shape[:-1], -1)
        if isinstance(self.space, gym.spaces.Discrete):
            return predictions[..., : int(self.space.n)]  # the class of padding is the last
        return predictions

    def decode(
        self, predictions: Tensor, decoding: Decoding, uniforms: Tensor | None = None
    ) -> Tensor:
        """Actions of predictions, as our own heads return them."""
        if isinstance(self.space, gym.spaces.Discrete):
            return decode_logits(
                predictions, decoding, None if uniforms is None else uniforms[..., 0]
            )
        space = cast("gym.spaces.Box", self.space)
        low, high = (torch.as_tensor(b, device=predictions.device) for b in (space.low, space.high))
        return predictions.view(*predictions.shape[:-1], *space.shape).clamp(low, high)


class PublicModel(SequenceModel):
    """A loaded public model with observation and action spaces.

    Args:
        reference: From `load_reference`.
        context_length: Steps K of a segment in its training.
        observation_space: The environment's.
        action_space: The environment's.
        return_scale: See `PublicTokenizer`.

    Raises:
        WeightsError: If the model does not fit these spaces.
    """

    def __init__(
        self,
        reference: ReferenceModel,
        context_length: int,
        observation_space: gym.Space[Any],
        action_space: gym.Space[Any],
        return_scale: float = 1.0,
    ) -> None:
        nn.Module.__init__(self)
        _check_spaces(reference, observation_space, action_space)
        self.observation_space, self.action_space = observation_space, action_space
        self.config = ModelConfig(context_length=context_length, d_model=reference.config.d_model)
        self.tokenizer = PublicTokenizer(reference, return_scale)
        self.backbone = reference.backbone.with_context(context_length)
        self.head = PublicHead(self.tokenizer, action_space)  # type: ignore[assignment]
        self.condition = None  # returns are tokens
        self._compiled = None


def load_public(
    weights: Path,
    config: Path,
    context_length: int,
    observation_space: gym.Space[Any],
    action_space: gym.Space[Any],
    return_scale: float = 1.0,
) -> PublicModel:
    """Loads a public model from its files.

    Args:
        weights: A state dict, or a checkpoint that holds one, as `torch.save` or safetensors
            writes it. No code in it is run.
        config: The public constructor's arguments, as JSON.
        context_length: See `PublicModel`, as the others.
        observation_space: The environment's.
        action_space: The environment's.
        return_scale: Divisor of returns-to-go.

    Raises:
        WeightsError: If a file cannot be read, or the model is not supported or does not fit the
            spaces.
    """
    try:
        arguments = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{config} cannot be read as JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise WeightsError(f"{config} holds no table of the public constructor's arguments.")
    try:
        reference = load_reference(arguments, read_weights(weights))
    except ValueError as error:
        raise WeightsError(f"{weights} with {config}: {error}.") from error
    return PublicModel(reference, context_length, observation_space, action_space, return_scale)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Returns a state dict in a file of safetensors or PyTorch; nothing else is unpickled.

    Raises:
        WeightsError: If the file cannot be read, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except SafetensorError as error:
        raise WeightsError(f"{path} is damaged or no safetensors file: {error}") from error
    except Exception as error:  # pickle raises whatever the file makes it raise
        what = str(error).splitlines()[0]
        raise WeightsError(f"{path} holds more than tensors, or is damaged: {what}") from error
    for name in _NESTED:
        if isinstance(found, dict) and isinstance(found.get(name), dict):
            found = found[name]
    if not isinstance(found, dict):
        raise WeightsError(f"{path} holds a {type(found).__name__}, not a state dict.")
    return found


def _check_spaces(
    reference: Interface, observation_space: gym.Space[Any], action_space: gym.Space[Any]
) -> None:
    encoders, name = reference.encoders, reference.config.env_name
    shape = tuple(observation_space.shape or ())
    expected: tuple[int, ...] = (1,)
    if encoders.observations.kind == "linear":
        expected = (reference.weights[f"{encoders.observations.layer}.weight"].shape[1],)
    elif encoders.observations.kind == "image":
        expected = convention_for(name).image_shape
    if isinstance(observation_space, gym.spaces.Dict) or shape != expected:
        raise WeightsError(
            f"The public model is of {name} and sees observations of shape {expected}; those of "
            f"the environment are {observation_space}."
        )
    outputs = reference.weights[f"{encoders.head.layer}.weight"].shape[0]
    discrete = encoders.actions.kind == "embedding"
    fits = False
    if isinstance(action_space, gym.spaces.Discrete):
        spare = int(convention_for(name).counts_padding)
        fits = discrete and action_space.start == 0 and outputs - spare == action_space.n
    elif isinstance(action_space, gym.spaces.Box):
        fits = not discrete and tuple(action_space.shape) == (outputs,)
    if not fits:
        what = f"{outputs} classes" if discrete else f"vectors of {outputs}"
        raise WeightsError(
            f"The public model is of {name} and its actions are {what}; those of the environment "
            f"are {action_space}."
        )
