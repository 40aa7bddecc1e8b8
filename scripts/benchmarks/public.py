"""Training steps of a module with the public model's constructor and forward.

    model = RATE(env_name=..., n_layer=..., ...)       # the arguments of `ReferenceConfig`
    out = model(states, actions, rtgs, target, timesteps, *mems, mem_tokens=..., masks=...)

`out` has `logits`, `new_mems` and `mem_tokens`; or it is `([logits, loss, *mems], mem_tokens)`, as
in older versions. Arguments that a module does not take are left out.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from gymnasium.spaces import Discrete
from torch import Tensor, nn

from rate.architecture import SEGMENTS, settings_of
from rate.backbones.settings import SegmentTransformerConfig
from rate.batch import Batch
from rate.errors import ConfigError
from scripts.benchmarks.configurations import Configuration

PADDING = -10  # the public code's action of a padded step


def load_class(location: str) -> type[nn.Module]:
    """Imports a model class from a file; this runs the file's code.

    Args:
        location: `PATH` or `PATH:CLASS`; the class is RATE by default.

    Raises:
        ConfigError: If there is no such file, it cannot be imported, or it has no such class.
    """
    path, _, name = location.partition(":")
    file, name = Path(path).resolve(), name or "RATE"
    if not file.is_file():
        raise ConfigError(f"--reference-module: there is no file {file}.")
    # The file may import its neighbours by their own names or by that of its package.
    sys.path[:0] = [str(file.parent), str(file.parent.parent)]
    spec = importlib.util.spec_from_file_location("benchmark_reference", file)
    if spec is None or spec.loader is None:
        raise ConfigError(f"--reference-module: {file} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        raise ConfigError(f"--reference-module: {file} cannot be imported: {error}") from error
    found = getattr(module, name, None)
    if not (inspect.isclass(found) and issubclass(found, nn.Module)):
        raise ConfigError(
            f"--reference-module: {file} has no torch module {name}; name one as {path}:CLASS."
        )
    return found


def public_arguments(configuration: Configuration) -> dict[str, Any]:
    """Arguments of the public constructor for a configuration."""
    spec, settings = configuration.spec, settings_of(SEGMENTS, asdict(configuration.model))
    model = SegmentTransformerConfig(**settings)
    discrete = isinstance(spec.action_space, Discrete)
    activation = model.valve_activation
    return {
        "env_name": configuration.environment,
        "state_dim": (spec.observation_space.shape or (1,))[0],
        "act_dim": int(spec.action_space.n)
        if isinstance(spec.action_space, Discrete)
        else (spec.action_space.shape or (1,))[0],
        "n_layer": model.num_layers,
        "n_head": model.num_heads,
        "d_model": model.d_model,
        "d_head": model.head_width,
        "d_inner": model.ff_width,
        "dropout": model.dropout,
        "dropatt": model.attention_dropout,
        "mem_len": model.cache_length,
        "ext_len": 0,
        "num_mem_tokens": model.num_memory_tokens,
        "mem_at_end": model.num_memory_tokens > 0,
        "n_head_ca": model.valve_heads if model.valve == "cross_attention" else 0,
        "mrv_act": "no_act" if activation == "none" else activation,
        "skip_dec_ffn": model.skip_ffn,
        "padding_idx": PADDING if discrete else None,
    }


class PublicTraining:
    """The published training loop: memory is detached after, and a step taken on, every segment.

    Args:
        model_class: A module with the public constructor and forward.
        configuration: The sizes.
        device: Device of the model.
    """

    def __init__(
        self, model_class: type[nn.Module], configuration: Configuration, device: torch.device
    ) -> None:
        arguments = public_arguments(configuration)
        self.model = model_class(**_known(model_class.__init__, arguments)).to(device).train()
        self.context_length = configuration.model.context_length
        self.clip = configuration.optimizer.gradient_clip
        self.continuous = not isinstance(configuration.spec.action_space, Discrete)
        settings = configuration.optimizer
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def prepare(self, batch: Batch) -> Batch:
        """Converts observations to float32, pixels to [0, 1]; this is not part of a step."""
        observations = batch.observations
        if not isinstance(observations, Tensor):
            raise ConfigError("The public model takes one observation, not a dictionary.")
        scale = 1 / 255 if observations.dtype == torch.uint8 else 1.0
        return Batch(**{**vars(batch), "observations": observations.float() * scale})

    def step(self, batch: Batch) -> float:
        """Takes an optimiser step on every segment of a batch; returns the last loss."""
        mems: list[Tensor] | None = None
        tokens = getattr(self.model, "mem_tokens", None)
        if tokens is not None:
            tokens = tokens.repeat(1, batch.batch_size, 1)  # (m, B, d)
        loss = 0.0
        for number, start in enumerate(range(0, batch.num_steps, self.context_length)):
            part = batch.steps(start, start + self.context_length)
            tokens = tokens.detach() if tokens is not None and number else tokens
            logits, mems, tokens = self._forward(part, mems, tokens)
            loss = self._optimise(logits, part)
        return loss

    def _forward(
        self, part: Batch, mems: list[Tensor] | None, tokens: Tensor | None
    ) -> tuple[Tensor, list[Tensor] | None, Tensor | None]:
        actions = part.actions if self.continuous else part.actions[..., None]
        named = {"mem_tokens": tokens, "masks": part.mask}
        out = self.model(
            *(part.observations, actions, part.returns_to_go, actions, part.timesteps[:, :1, None]),
            *(mems or ()),
            **_known(self.model.forward, named),
        )
        if isinstance(out, Mapping):
            return out["logits"], out.get("new_mems"), out.get("mem_tokens")
        answers, memory = out
        return answers[0], list(answers[2:]) or None, memory

    def _optimise(self, logits: Tensor, part: Batch) -> float:
        if self.continuous:
            loss = F.mse_loss(logits, part.actions)
        else:
            loss = F.cross_entropy(logits.flatten(0, 1), part.actions.flatten())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip)
        self.optimizer.step()
        return loss.item()


def _known(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments that a function takes."""
    parameters = inspect.signature(function).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return arguments
    return {name: value for name, value in arguments.items() if name in parameters}
