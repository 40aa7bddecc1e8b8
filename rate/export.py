"""A policy as a file for other programs: one step of acting, as ONNX or of `torch.export`.

The graph holds the model and what decides in acting: it starts an episode in the rows whose
timestep is 0, and ends segments, each row at its own step. Its inputs are

    observation (one `observation.KEY` for each key of a dictionary), previous_action,
    return_to_go, timestep, and `state.NAME` for every tensor of the state

of which `previous_action` and `return_to_go` are there if the model is conditioned on them. Its
outputs are the most likely `action`, `logits` (of a continuous action its `mean`), and
`next_state.NAME`, which are the `state.NAME` of the next step. What is in the state of the first
step of an episode does not matter.

The file carries a description as JSON (`describe`), under the key `rate` of the metadata of an ONNX
file, and as `rate.json` in an archive of `torch.export`.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

from rate.advice import install
from rate.batch import Observations
from rate.config import Decoding
from rate.encoders import DictionaryEncoder, VectorEncoder
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError, shortened
from rate.files import write_atomic
from rate.heads import ContinuousHead
from rate.model import SequenceModel
from rate.tokenizers import StepInputs

if TYPE_CHECKING:
    from rate.policy import Policy

Format = Literal["onnx", "torch"]
SUFFIXES: dict[str, Format] = {".onnx": "onnx", ".pt2": "torch"}
EXTRA = "export"  # of this project, which installs what writes ONNX
KEY = "rate"  # of the description in the metadata of a file
FORMAT = 1  # of the description
STATE, NEXT = "state.", "next_state."
_ANY = "batch"  # the name of a batch size that is free
_ADVICE = "Where one format or a free batch size fails, the other, or a fixed one, may do."


class ActingStep(nn.Module):
    """A step of acting as a function of named tensors; see the docstring of this module.

    Args:
        model: In evaluation mode.
    """

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
        """The outputs by name, in their order, of the inputs by name."""
        model, timesteps = self.model, inputs["timestep"]
        step = StepInputs(
            self._or_zeros(inputs, "previous_action", model.action_space),
            self._or_zeros(inputs, "return_to_go", gym.spaces.Box(-np.inf, np.inf, (1,))),
            self._observations(inputs),
            timesteps,
        )
        first = model.backbone.acting_state(timesteps.shape[0])
        state = first.with_tensors({name: inputs[STATE + name] for name in first.tensors()})
        state = state.where(timesteps == 0, first)
        tokens = model.tokenizer.step(step)
        features, state = model.backbone.step(tokens, timesteps, state)
        predictions = model.head(model.conditioned(features, step.returns_to_go))
        action = model.head.decode(predictions, Decoding())
        kind = _tensor(model.action_space, 0).dtype
        return {
            "action": action.to(kind),
            _predicted(model): predictions,
            # A copy, where the state is as it was: an output of a graph is no input of it.
            **{NEXT + name: tensor.clone() for name, tensor in state.tensors().items()},
        }

    def _or_zeros(self, inputs: dict[str, Tensor], name: str, space: gym.Space[Any]) -> Tensor:
        """An input, or zeros where the model is not conditioned on it."""
        if name in inputs:
            return inputs[name]
        like = _tensor(space, 1)
        return like.expand(inputs["timestep"].shape[0], *like.shape[1:])

    def _observations(self, inputs: dict[str, Tensor]) -> Observations:
        space = self.model.observation_space
        if isinstance(space, gym.spaces.Dict):
            return {key: inputs[f"observation.{key}"] for key in space.spaces}
        return inputs["observation"]


def example_inputs(model: SequenceModel, rows: int) -> dict[str, Tensor]:
    """Returns inputs of `ActingStep` by name, in their order, at the first step of an episode."""
    space, config = model.observation_space, model.config
    parts = {"observation": space}
    if isinstance(space, gym.spaces.Dict):
        parts = {f"observation.{key}": part for key, part in space.spaces.items()}
    if config.condition_on_action:
        parts["previous_action"] = model.action_space
    if config.condition_on_return:
        parts["return_to_go"] = gym.spaces.Box(-np.inf, np.inf, (1,))
    inputs = {name: _tensor(part, rows) for name, part in parts.items()}
    inputs["timestep"] = torch.zeros(rows, dtype=torch.int64)
    state = model.backbone.acting_state(rows).tensors()
    return inputs | {STATE + name: tensor.detach().clone() for name, tensor in state.items()}


def export(
    policy: Policy, path: Path | str, format: Format = "onnx", *, batch_size: int | None = 1
) -> Path:
    """Writes a step of a policy as a file; see `rate.policy.Policy.export`.

    Raises:
        ConfigError: If the format is unknown, the extra `export` is not installed, the batch size
            is no positive number, or the backbone cannot be exported; names it.
        OSError: If the file cannot be written.
    """
    if format not in get_args(Format):
        raise ConfigError(f"format is {format!r}; choose one of: {', '.join(get_args(Format))}.")
    if batch_size is not None and batch_size < 1:
        raise ConfigError(f"batch_size is {batch_size}; it must be at least 1, or None for any.")
    if format == "onnx":
        _check_packages()
    model = deepcopy(policy.model).cpu().eval()
    inputs = example_inputs(model, batch_size or 2)  # 1 would be taken for a constant
    with torch.no_grad():
        outputs = ActingStep(model)(inputs)
    description = json.dumps(
        describe(policy, inputs, outputs, batch_size), indent=1, allow_nan=False
    )
    write = _as_onnx if format == "onnx" else _as_archive
    try:
        with _quietly():
            program = _traced(model, inputs, free=batch_size is None)
            content = write(program, list(inputs), list(outputs), description)
    except Exception as error:  # PyTorch raises many kinds for what it cannot trace or translate
        raise ConfigError(
            f"model.backbone={model.config.backbone} cannot be exported as {format} with "
            f"batch_size={batch_size} ({shortened(_cause(error))}). {_ADVICE}"
        ) from error
    path = Path(path)
    write_atomic(path, content)
    return path


def _traced(
    model: SequenceModel, inputs: dict[str, Tensor], *, free: bool
) -> torch.export.ExportedProgram:
    """The graph of a step, of any number of rows if `free`."""
    shape = {0: torch.export.Dim(_ANY)} if free else None
    shapes = (dict.fromkeys(inputs, shape),)
    with torch.no_grad():
        return torch.export.export(
            ActingStep(model), (inputs,), dynamic_shapes=shapes, strict=False
        )


def _cause(error: BaseException) -> BaseException:
    """The first error of a chain."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


@contextmanager
def _quietly() -> Iterator[None]:
    """Context in which PyTorch neither logs its tracing nor tells of what else it could do."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.__trace")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _as_onnx(
    program: torch.export.ExportedProgram,
    inputs: list[str],
    outputs: list[str],
    description: str,
) -> bytes:
    made = torch.onnx.export(
        program, dynamo=True, input_names=inputs, output_names=outputs, verbose=False
    )
    if made is None:
        raise TypeError("PyTorch made no ONNX program")
    made.model.metadata_props[KEY] = description
    content: bytes = made.model_proto.SerializeToString()
    return content


def _as_archive(
    program: torch.export.ExportedProgram,
    inputs: list[str],
    outputs: list[str],
    description: str,
) -> bytes:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={f"{KEY}.json": description})
    return buffer.getvalue()


def describe(
    policy: Policy,
    inputs: dict[str, Tensor],
    outputs: dict[str, Tensor],
    batch_size: int | None,
) -> dict[str, Any]:
    """Returns the description of a file as plain JSON types.

    It has the environment with its spaces and the target return, how return-to-go and actions are
    to be had, the normalisation of observations (which the graph does itself), and the name, type
    and shape of every input and output. A free batch size is `batch` in a shape.
    """
    model = policy.model
    spec = policy.spec or EnvironmentSpec(
        "", model.observation_space, model.action_space, policy.target_return
    )
    tensors = {**inputs, **outputs}
    shown = {name: _described(name, tensor, batch_size) for name, tensor in tensors.items()}
    return {
        "format": FORMAT,
        "backbone": model.config.backbone,
        "environment": spec.to_dict(),
        "target_return": float(policy.target_return),
        **policy.return_to_go_rule,
        "decoding": asdict(policy.decoding),
        "normalisation": _normalisation(model),
        "inputs": [shown[name] for name in inputs if not name.startswith(STATE)],
        "outputs": [shown[name] for name in outputs if not name.startswith(NEXT)],
        "state": [
            {**shown[name], "next": NEXT + name.removeprefix(STATE)}
            for name in inputs
            if name.startswith(STATE)
        ],
    }


def _described(name: str, tensor: Tensor, batch_size: int | None) -> dict[str, Any]:
    shape = [batch_size or _ANY, *tensor.shape[1:]]
    return {"name": name, "dtype": str(tensor.dtype).removeprefix("torch."), "shape": shape}


def _normalisation(model: SequenceModel) -> dict[str, Any]:
    """The mean and deviation by which vectors are normalised, by the names of the inputs."""
    encoder = model.tokenizer.observation
    parts = {"observation": encoder}
    if isinstance(encoder, DictionaryEncoder):
        pairs = zip(encoder.keys, encoder.encoders, strict=True)
        parts = {f"observation.{key}": next(part.children()) for key, part in pairs}
    return {
        name: {"mean": part.mean.tolist(), "std": part.std.tolist()}
        for name, part in parts.items()
        if isinstance(part, VectorEncoder)
    }


def _predicted(model: SequenceModel) -> str:
    return "mean" if isinstance(model.head, ContinuousHead) else "logits"


def _tensor(space: gym.Space[Any], rows: int) -> Tensor:
    """Zeros `(rows, *space)` of the type of a space's elements."""
    return torch.from_numpy(np.zeros((rows, *(space.shape or ())), space.dtype))


def _check_packages() -> None:
    """Raise a `ConfigError` if what writes ONNX is not installed, before anything is traced."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"To write ONNX needs {error.name}, which is not installed. Install it with: "
            f"{install(EXTRA)}"
        ) from error
