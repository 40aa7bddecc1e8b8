"""Tokenizers: embed the steps of a trajectory as tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rate.batch import Batch, Observations, map_tensors
from rate.config import ModelConfig
from rate.encoders import VectorEncoder, make_action_encoder, make_encoder
from rate.kernels.cpu_dropout import Dropout
from rate.nn.positions import sinusoidal_embedding


@dataclass(frozen=True)
class StepTokens:
    """The tokens of a step, in their order.

    Attributes:
        count: n, how many they are.
        read: Index of the token at which the action is predicted. It and the tokens before it are
            known before the action is chosen; those after it (the action) afterwards.
    """

    count: int
    read: int

    @property
    def late(self) -> int:
        """Number of late tokens of a step: those that are known only after its action."""
        return self.count - 1 - self.read


@dataclass(frozen=True)
class StepInputs:
    """The inputs of one decoding step, of every row.

    Attributes:
        previous_actions: `(B,)` or `(B, A)`; in a row whose episode begins, any valid action.
        returns_to_go: `(B, 1)`.
        observations: `(B, *obs)` or a dictionary of such tensors.
        timesteps: `(B,)` int64, the step's index within its episode.
    """

    previous_actions: Tensor
    returns_to_go: Tensor
    observations: Observations
    timesteps: Tensor


class Tokenizer(nn.Module):
    """Embeds a step as `n` tokens.

    With `position="timestep"` (or `sinusoidal`) a learned embedding of the timestep is added to
    all tokens of a step, and the result is normalised, as in Decision Transformer. Timesteps beyond
    the table use its last row.

    Args:
        config: The settings of the model.
        observation_space: Chooses the encoder.
        action_space: Chooses the encoder of past actions.

    Attributes:
        tokens: The number of tokens of a step, and the one at which the action is predicted.
        observation: The encoder of observations, which normalises by the moments of the data.
        action: The encoder of past actions, or None where the model has none.
        has_returns: Whether a token holds the return-to-go. Otherwise a model that is conditioned
            on it has a `ReturnCondition`.
    """

    tokens: StepTokens
    has_returns: bool = True
    action: nn.Module | None

    def __init__(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__()
        d_model = config.d_model
        self._make_encoders(config, observation_space, action_space)
        self.timestep: nn.Embedding | None = None
        if config.position != "relative":
            self.timestep = nn.Embedding(config.max_timestep, d_model)
            if config.position == "sinusoidal":
                rows = config.max_timestep
                table = sinusoidal_embedding(torch.arange(rows), d_model, slowest=rows)
                self.timestep.weight.data.copy_(table)
            self.norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(config.dropout)

    def _make_encoders(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        self.observation = make_encoder(
            observation_space,
            config.d_model,
            config.image_channels,
            config.image_norm,
            config.image_contrast,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Tokens `(B, T, n, d)` of all steps of a batch."""
        raise NotImplementedError

    def step(self, inputs: StepInputs) -> Tensor:
        """The new tokens `(B, n, d)` of a decoding step.

        The late tokens of the previous step, then those of this step up to the one that is read.
        """
        raise NotImplementedError

    def add_positions(self, tokens: Tensor, timesteps: Tensor) -> Tensor:
        """Adds timestep embeddings, if any, to tokens `(B, T, n, d)` of timesteps `(B, T)`."""
        if self.timestep is not None:
            rows = timesteps.clamp(0, self.timestep.num_embeddings - 1)
            tokens = self.norm(tokens + self.timestep(rows)[:, :, None])
        out: Tensor = self.dropout(tokens)
        return out


class PairTokenizer(Tokenizer):
    """The tokens o_t, a_t of a step; features are conditioned on R_t (arXiv 2601.15953)."""

    tokens = StepTokens(count=2, read=0)
    has_returns = False
    action: nn.Module

    def _make_encoders(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        self.action_weight = 1.0 if config.condition_on_action else 0.0
        super()._make_encoders(config, observation_space, action_space)
        self.action = make_action_encoder(action_space, config.d_model)

    def forward(self, batch: Batch) -> Tensor:
        """Tokens `(B, T, n, d)`."""
        return self._embed(batch.returns_to_go, batch.observations, batch.actions, batch.timesteps)

    def step(self, inputs: StepInputs) -> Tensor:
        """The tokens a_{t-1} and those of this step before its action: `(B, n, d)`."""
        observations = map_tensors(inputs.observations, lambda tensor: tensor[:, None])
        actions, timesteps = inputs.previous_actions[:, None], inputs.timesteps[:, None]
        now = self._embed(inputs.returns_to_go[:, None], observations, actions, timesteps)[:, 0]
        if self.timestep is None:
            return now.roll(1, dims=1)  # the action is the last of a step
        # a_{t-1} belongs to the step before.
        previous = self.add_positions(self._embed_actions(actions)[:, :, None], timesteps - 1)[:, 0]
        return torch.cat((previous, now[:, :-1]), dim=1)

    def _embed(
        self, returns_to_go: Tensor, observations: Observations, actions: Tensor, timesteps: Tensor
    ) -> Tensor:
        known = self._known(returns_to_go, observations)
        tokens = torch.stack((*known, self._embed_actions(actions)), dim=2)
        return self.add_positions(tokens, timesteps)

    def _known(self, returns_to_go: Tensor, observations: Observations) -> tuple[Tensor, ...]:
        """The tokens `(B, T, d)` of a step that are known before its action."""
        return (self.observation(observations),)

    def _embed_actions(self, actions: Tensor) -> Tensor:
        """`(B, T, *action)` to `(B, T, d)`."""
        embedded: Tensor = self.action_weight * self.action(actions)
        return embedded


class TripleTokenizer(PairTokenizer):
    """The tokens R_t, o_t, a_t of a step (Chen et al. 2021, section 3)."""

    tokens = StepTokens(count=3, read=1)
    has_returns = True

    def _make_encoders(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        self.return_weight = 1 / config.return_scale if config.condition_on_return else 0.0
        self.returns = nn.Linear(1, config.d_model)
        super()._make_encoders(config, observation_space, action_space)

    def _known(self, returns_to_go: Tensor, observations: Observations) -> tuple[Tensor, ...]:
        wanted = self.returns(self.return_weight * returns_to_go.to(self.returns.weight.dtype))
        return wanted, self.observation(observations)


class ObservationTokenizer(Tokenizer):
    """One token a step, that of its observation: the model has neither returns nor actions."""

    tokens = StepTokens(count=1, read=0)
    action: None = None

    def forward(self, batch: Batch) -> Tensor:
        """Tokens `(B, T, 1, d)`."""
        return self.add_positions(self.observation(batch.observations)[:, :, None], batch.timesteps)

    def step(self, inputs: StepInputs) -> Tensor:
        """The token o_t of every row: `(B, 1, d)`."""
        observations = map_tensors(inputs.observations, lambda tensor: tensor[:, None])
        tokens: Tensor = self.observation(observations)[:, :, None]  # (B, 1, 1, d)
        return self.add_positions(tokens, inputs.timesteps[:, None])[:, 0]


def set_action_scale(tokenizer: Tokenizer, centre: Tensor, unit: Tensor) -> None:
    """Scales past actions, where they are vectors, by a centre and units, `(A,)` each."""
    if isinstance(tokenizer.action, VectorEncoder):
        tokenizer.action.set_scale(centre, unit)
