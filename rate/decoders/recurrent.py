"""Decoding of step-recurrent backbones: the state is carried from step to step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

import torch
from torch import Tensor

from rate.batch import on_device

if TYPE_CHECKING:
    from rate.backbones.step_recurrent import StepRecurrent, StepState

S = TypeVar("S", bound="StepState")


class RecurrentDecoder(Generic[S]):
    """Carries a backbone's state from step to step.

    Args:
        backbone: In evaluation mode.
        batch_size: Rows.
    """

    def __init__(self, backbone: StepRecurrent[S], batch_size: int) -> None:
        self.backbone, self.device = backbone, next(backbone.parameters()).device
        self.state: S = backbone.initial_state(batch_size)
        self.time = torch.zeros(batch_size, dtype=torch.int64)  # on the host; since the reset

    def reset(self, rows: Tensor, state: S | None = None) -> None:
        """See `Decoder`."""
        first = self.backbone.initial_state(len(self.time)) if state is None else state
        self.state = self.state.where(on_device(rows, self.device), first)
        self.time[rows] = 0

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        time = on_device(self.time, self.device)
        features, self.state = self.backbone.step(tokens, time, self.state)
        self.time += 1
        return features
