"""Checks and conversion of trajectories for the encoders of a public model."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rate.reference.encoders import Interface, count_classes
from rate.reference.environments import convention_for


@dataclass(frozen=True)
class Steps:
    """Consecutive steps, as the encoders take them.

    Attributes:
        observations: `(B, T, state_dim)`, `(B, T, C, H, W)` or token indices `(B, T)` int64.
        actions: Row of the embedding `(B, T)` int64, or `(B, T, A)`.
        returns_to_go: `(B, T, 1)`.
    """

    observations: Tensor
    actions: Tensor
    returns_to_go: Tensor

    def part(self, start: int, stop: int) -> Steps:
        return Steps(
            self.observations[:, start:stop],
            self.actions[:, start:stop],
            self.returns_to_go[:, start:stop],
        )


def check(
    model: Interface,
    observations: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    context_length: int,
) -> Steps:
    """Check the inputs of `run_segments` and bring them to the model's device and dtype.

    Raises:
        ValueError: Naming the input that does not fit, its shape or value, and what would.
    """
    if context_length < 1:
        raise ValueError(f"context_length={context_length} must be at least 1")
    if returns_to_go.dim() == 2:
        returns_to_go = returns_to_go[..., None]
    if returns_to_go.dim() != 3 or returns_to_go.shape[-1] != 1 or not returns_to_go.numel():
        raise ValueError(f"returns_to_go is {_shape(returns_to_go)}, expected (B, T, 1)")
    batch = returns_to_go.shape[:2]
    for name, values in (("observations", observations), ("actions", actions)):
        if values.shape[:2] != batch:
            raise ValueError(
                f"{name} is {_shape(values)}, but returns_to_go has (B, T) = {tuple(batch)}"
            )
    return Steps(
        _observations(model, observations.to(model.device)),
        _actions(model, actions.to(model.device)),
        returns_to_go.to(model.device, model.dtype),
    )


def _observations(model: Interface, values: Tensor) -> Tensor:
    encoder = model.encoders.observations
    if encoder.kind == "embedding":
        rows = model.weights[f"{encoder.layer}.weight"].shape[0]
        return _indices("observations", values, rows)
    if encoder.kind == "linear":
        width = model.weights[f"{encoder.layer}.weight"].shape[1]
        _expect("observations", values, (width,))
        return values.to(model.dtype)
    _expect("observations", values, convention_for(model.config.env_name).image_shape)
    if values.dtype == torch.uint8:
        # The public data loaders divide pixels by 255 before the model sees them.
        return values.to(model.dtype) / 255
    if not values.is_floating_point():
        raise ValueError(
            f"observations are {values.dtype}: images must be uint8 or floats in [0, 1]"
        )
    return values.to(model.dtype)


def _actions(model: Interface, values: Tensor) -> Tensor:
    config = model.config
    if model.encoders.actions.kind == "linear":
        _expect("actions", values, (config.act_dim,))
        return values.to(model.dtype)
    rows = model.weights[f"{model.encoders.actions.layer}.weight"].shape[0]
    has_row = rows > count_classes(config, model.weights)
    if config.padding_idx is not None and (
        has_row or convention_for(config.env_name).counts_padding
    ):
        values = values.masked_fill(values == config.padding_idx, rows - 1)
    return _indices("actions", values, rows)


def _indices(name: str, values: Tensor, rows: int) -> Tensor:
    """Embedding rows `(B, T)` of indices `(B, T, 1)`."""
    if values.dim() == 2:
        values = values[..., None]
    _expect(name, values, (1,))
    indices = values[..., 0].long()
    outside = (indices < 0) | (indices >= rows)
    if outside.any():
        raise ValueError(
            f"{name} hold {indices[outside][0].item()}, outside 0 to {rows - 1}, the rows of the "
            "stored embedding (of actions, the padding value of a model with a row for it)"
        )
    return indices


def _expect(name: str, values: Tensor, step: tuple[int, ...]) -> None:
    if tuple(values.shape[2:]) != step:
        sizes = ", ".join(map(str, step))
        raise ValueError(f"{name} is {_shape(values)}, expected (B, T, {sizes})")


def _shape(values: Tensor) -> str:
    return f"of shape {tuple(values.shape)}"
