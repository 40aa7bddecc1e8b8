"""Decoding of step-recurrent backbones: the state is carried from step to step."""

from __future__ import annotations

from dataclasses import replace
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
        self.begun = torch.zeros(batch_size, dtype=torch.bool)  # on the host: has taken a step
        self.mask = torch.ones(batch_size, 1, dtype=torch.bool, device=self.device)

    def reset(self, rows: Tensor, state: S | None = None) -> None:
        """See `Decoder`."""
        first = self.backbone.initial_state(len(self.begun)) if state is None else state
        self.state = self.state.where(on_device(rows, self.device), first)
        self.begun[rows] = False

    def step(self, tokens: Tensor) -> Tensor:
        """See `Decoder`."""
        late = self.backbone.tokens.late
        begun = on_device(self.begun, self.device)[:, None, None]
        state = replace(self.state, late=torch.where(begun, tokens[:, :late], self.state.late))
        # The late tokens of this step (its action) are not known yet; the next step brings them.
        tokens = torch.cat((tokens[:, late:], torch.zeros_like(tokens[:, :late])), dim=1)
        features: Tensor
        features, self.state = self.backbone(tokens[:, None], self.mask, state)
        self.begun[:] = True
        return features[:, 0]
