"""A backbone as a user writes one: a class and its settings, found by their import path alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from rate.backbones.base import Backbone
from rate.config import ModelConfig
from rate.state import State
from rate.tokenizers import StepTokens


@dataclass(frozen=True)
class TracesConfig(ModelConfig):
    """The settings of `Traces`.

    Attributes:
        leak: What is left of a trace after a step.
    """

    backbone: str = "tests.own_cells:Traces"
    leak: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_share("leak")


@dataclass(frozen=True)
class TracesState(State):
    """The trace `(B, d)` after the last step."""

    trace: Tensor


class Traces(Backbone[TracesState]):
    """Leaky sums of all tokens: m_t = leak m_{t-1} + tanh(W x_t), seen with R_t and o_t."""

    Config = TracesConfig
    config: TracesConfig

    def __init__(self, config: TracesConfig, tokens: StepTokens) -> None:
        super().__init__(config, tokens)
        self.write = nn.Linear(tokens.count * config.d_model, config.d_model)
        self.read = nn.Linear((tokens.read + 2) * config.d_model, config.d_model)
        self.dropout = nn.Dropout(config.dropout)

    def initial_state(self, batch_size: int) -> TracesState:
        return TracesState(self.write.weight.new_zeros(batch_size, self.config.d_model))

    def forward(
        self, tokens: Tensor, mask: Tensor, state: TracesState
    ) -> tuple[Tensor, TracesState]:
        trace, features = state.trace, []
        for step in range(mask.shape[1]):
            seen = tokens[:, step, : self.tokens.read + 1].flatten(1)
            features.append(self.read(torch.cat((trace, seen), dim=1)))
            new = self.config.leak * trace + torch.tanh(self.write(tokens[:, step].flatten(1)))
            trace = torch.where(mask[:, step, None], new, trace)
        return self.dropout(torch.stack(features, dim=1)), TracesState(trace)
