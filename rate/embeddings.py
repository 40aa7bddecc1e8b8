"""From a step (return-to-go, observation, action) to its three tokens."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn

from rate.batch import Observations
from rate.config import ModelConfig
from rate.encoders import VectorEncoder, make_action_encoder, make_encoder
from rate.nn.attention import sinusoidal_embedding
from rate.nn.dropout import Dropout
from rate.nn.linear import Linear

TOKENS_PER_STEP = 3
RETURN, OBSERVATION, ACTION = range(TOKENS_PER_STEP)


class StepEmbedding(nn.Module):
    """The tokens R_t, o_t, a_t of a step (Chen et al. 2021, section 3).

    With `position="timestep"` (or `sinusoidal`) a learned embedding of the step's index is added to
    all three, and the result is normalised, as in Decision Transformer. Indices beyond the table
    use its last row.
    """

    def __init__(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__()
        d_model = config.d_model
        self.action_weight = 1.0 if config.condition_on_action else 0.0
        self.return_weight = 1 / config.return_scale if config.condition_on_return else 0.0
        self.returns = Linear(1, d_model)
        self.observation = make_encoder(
            observation_space,
            d_model,
            config.image_channels,
            config.image_norm,
            config.image_contrast,
        )
        self.action = make_action_encoder(action_space, d_model)
        self.timestep: nn.Embedding | None = None
        if config.position != "relative":
            self.timestep = nn.Embedding(config.max_timestep, d_model)
            if config.position == "sinusoidal":
                rows = config.max_timestep
                table = sinusoidal_embedding(torch.arange(rows), d_model, slowest=rows)
                self.timestep.weight.data.copy_(table)
            self.norm = nn.LayerNorm(d_model)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, returns_to_go: Tensor, observations: Observations, actions: Tensor, timesteps: Tensor
    ) -> Tensor:
        """Tokens `(B, T, 3, d_model)` of `T` steps, in the order of `RETURN, OBSERVATION, ACTION`.

        Args:
            returns_to_go: `(B, T, 1)`.
            observations: `(B, T, *obs)`, or a dictionary of such tensors.
            actions: `(B, T, *action)`.
            timesteps: `(B, T)` int64.
        """
        wanted = self.returns(self.return_weight * returns_to_go.to(self.returns.weight.dtype))
        tokens = torch.stack(
            (wanted, self.observation(observations), self.embed_actions(actions)), dim=2
        )
        return self.place(tokens, timesteps)

    def embed_actions(self, actions: Tensor) -> Tensor:
        """`(B, T, *action)` to `(B, T, d_model)`."""
        embedded: Tensor = self.action_weight * self.action(actions)
        return embedded

    def place(self, tokens: Tensor, timesteps: Tensor) -> Tensor:
        """Give tokens `(B, T, n, d)` of steps `(B, T)` their place in time, if they carry it."""
        if self.timestep is not None:
            rows = timesteps.clamp(0, self.timestep.num_embeddings - 1)
            tokens = self.norm(tokens + self.timestep(rows)[:, :, None])
        placed: Tensor = self.dropout(tokens)
        return placed

    def set_normalisation(self, mean: Tensor, std: Tensor) -> None:
        """Normalise vector observations by these statistics; other encoders have no use for it."""
        if isinstance(self.observation, VectorEncoder):
            self.observation.set_normalisation(mean, std)
