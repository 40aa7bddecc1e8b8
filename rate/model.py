"""The sequence model: tokenizer, backbone and action head, folded over segments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rate.architecture import BACKBONES, TOKENIZERS
from rate.backbones.base import Backbone, Losses, RunSegment
from rate.batch import Batch
from rate.config import ModelConfig
from rate.decoders.base import ModelDecoder
from rate.heads import ContinuousHead, make_head
from rate.return_condition import ReturnCondition
from rate.state import State
from rate.tokenizers import set_action_scale

# Shapes and architectures in a process. Beyond it, PyTorch runs eagerly and only writes to a log.
_MOST_PROGRAMS = 64


class SequenceModel(nn.Module):
    """Predicts actions from returns-to-go, observations and actions, segment by segment.

    RATE, RMT, TrXL, DTXL, DT and LSTM are one class with different settings (`ModelConfig`).

    Args:
        config: The architecture.
        observation_space: Chooses the encoder.
        action_space: Chooses the action head.

    Attributes:
        tokenizer: From steps to tokens `(B, T, n, d)`.
        backbone: The memory: from the tokens of a segment and a state to features `(B, K, d)`.
        condition: Conditions features on the return-to-go where no token holds it, or None.
        head: From features to predictions.
    """

    def __init__(
        self, config: ModelConfig, observation_space: gym.Space[Any], action_space: gym.Space[Any]
    ) -> None:
        super().__init__()
        self.config = config
        self.observation_space, self.action_space = observation_space, action_space
        self.tokenizer = TOKENIZERS.get(config.tokenizer)(config, observation_space, action_space)
        self.backbone: Backbone[Any] = BACKBONES.get(config.backbone)(config, self.tokenizer.tokens)
        decoupled = config.condition_on_return and not self.tokenizer.has_returns
        self.condition = ReturnCondition(config) if decoupled else None
        self.head = make_head(action_space, config.d_model)
        self._share_action_scale()
        self._compiled: RunSegment[Any] | None = None

    def set_action_spread(self, mean: Tensor, std: Tensor) -> None:
        """Scales unbounded actions by their mean and deviation in the data, `(A,)` each.

        Raises:
            ValueError: If a mean is not finite, or a deviation is negative or not finite.
        """
        if isinstance(self.head, ContinuousHead):
            self.head.set_spread(mean, std)
        self._share_action_scale()

    def _share_action_scale(self) -> None:
        """Scales past actions to the units in which the head predicts actions."""
        if isinstance(self.head, ContinuousHead):
            set_action_scale(self.tokenizer, self.head.centre, self.head.unit)

    def initial_state(self, batch_size: int) -> State:
        """The state before the first segment."""
        state: State = self.backbone.initial_state(batch_size)
        return state

    def state_before(self, batch: Batch) -> State:
        """The state that the rows of a batch start from: the batch's, if it has one.

        Rows that begin an episode start from the initial state, whose parameters are learnt.
        """
        first = self.initial_state(batch.batch_size)
        if batch.initial is None:
            return first
        kinds = {name: tensor.dtype for name, tensor in first.tensors().items()}
        held = {name: tensor.to(kinds[name]) for name, tensor in batch.initial.items()}
        return first.with_tensors(held).where(batch.timesteps[:, 0] == 0, first)

    def forward(
        self, batch: Batch, state: State | None = None, *, detach_every: int | None = None
    ) -> tuple[Tensor, State]:
        """Predictions for every step of a batch, folded over its segments.

        Takes what `features` takes.

        Returns:
            Predictions `(B, T, ...)` of the action head, and the state after the last segment.
        """
        features, state = self.features(batch, state, detach_every=detach_every)
        return self.head(features), state

    def features(
        self,
        batch: Batch,
        state: State | None = None,
        *,
        detach_every: int | None = None,
        recompute: bool = False,
    ) -> tuple[Tensor, State]:
        """The features of every step of a batch, folded over its segments (teacher forcing).

        Takes what `features_and_losses` takes.

        Returns:
            Features `(B, T, d)`, and the state after the last segment.
        """
        features, state, _ = self.features_and_losses(
            batch, state, detach_every=detach_every, recompute=recompute
        )
        return features, state

    def features_and_losses(
        self,
        batch: Batch,
        state: State | None = None,
        *,
        detach_every: int | None = None,
        recompute: bool = False,
    ) -> tuple[Tensor, State, Losses]:
        """`features`, and the backbone's own losses of every step.

        Args:
            batch: `T` steps; cut into segments of `context_length`, the last may be shorter.
                A backbone that carries no state has all T steps in one pass.
            state: The state before the batch; None is that of the batch, see `state_before`.
            detach_every: Truncated BPTT: segments between two cuts of the gradient through the
                state; None back-propagates through all segments.
            recompute: Activation checkpointing: keep the state of a segment alone and compute its
                activations again in the backward pass (Chen et al. 2016, "Training Deep Nets with
                Sublinear Memory Cost"). Frames are then encoded segment by segment.

        Returns:
            Features `(B, T, d)`, the state after the last segment, and auxiliary losses by name,
            `(B, T)` each; see `Backbone.forward_with_losses`.
        """
        state = self.state_before(batch) if state is None else state
        length = self.config.context_length if self.config.carries_state else batch.num_steps
        tokens = None if recompute else self.tokenizer(batch)  # (B, T, n, d), frames in one call
        features, losses = [], []
        for n, start in enumerate(range(0, batch.num_steps, length)):
            if detach_every and n and n % detach_every == 0:
                state = state.detach()
            part = batch.steps(start, start + length)
            if tokens is None:
                # The mask is passed beside its batch: by a tensor `checkpoint` knows which device's
                # random state to restore.
                out, state, parts = checkpoint(
                    self._embedded, part, state, part.observed, use_reentrant=False
                )
            else:
                steps = tokens[:, start : start + length]
                out, state, parts = self._segment(steps, part.observed, state)
            features.append(out)
            losses.append(parts)
        joined = {name: torch.cat([part[name] for part in losses], dim=1) for name in losses[0]}
        return self.conditioned(torch.cat(features, dim=1), batch.returns_to_go), state, joined

    def conditioned(self, features: Tensor, returns_to_go: Tensor) -> Tensor:
        """Features `(..., d)` as the head reads them, given returns-to-go `(..., 1)`.

        They change only where no token holds the return-to-go; see `ReturnCondition`.
        """
        if self.condition is None:
            return features
        out: Tensor = self.condition(features, returns_to_go)
        return out

    def _embedded(self, batch: Batch, state: State, mask: Tensor) -> tuple[Tensor, State, Losses]:
        return self._segment(self.tokenizer(batch), mask, state)

    def segment(self, tokens: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State]:
        """One segment, which may be a shorter, last one.

        Args:
            tokens: `(B, K, n, d)` of the tokenizer.
            mask: `(B, K)` bool padding mask, real steps first. A row without real steps keeps its
                state.
            state: The state after the previous segment.

        Returns:
            Features `(B, K, d)`, and the new state.
        """
        features, state, _ = self._segment(tokens, mask, state)
        return features, state

    def _segment(self, tokens: Tensor, mask: Tensor, state: State) -> tuple[Tensor, State, Losses]:
        """`segment`, and the auxiliary losses of its steps."""
        run = self.backbone.forward_with_losses if self._compiled is None else self._compiled
        features, state, losses = run(*self.backbone.padded(tokens, mask), state)
        steps = mask.shape[1]
        return features[:, :steps], state, {name: x[:, :steps] for name, x in losses.items()}

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> ModelDecoder:
        """The decoder for rollouts of `batch_size` rows; see `Backbone.make_decoder`."""
        return ModelDecoder(self, batch_size, exact=exact)

    @property
    def is_compiled(self) -> bool:
        """Whether segments run compiled; see `compile_segments`."""
        return self._compiled is not None

    def compile_segments(self, backend: str | Callable[..., Any] | None = "inductor") -> None:
        """Compiles the forward pass of a segment with `torch.compile`; None undoes it.

        Compilation happens at the first segment of each shape.
        """
        self._compiled = None
        if backend is not None:
            # The limit is per method, and all models of a process share the method.
            limits = torch._dynamo.config
            limits.cache_size_limit = max(_MOST_PROGRAMS, limits.cache_size_limit)
            self._compiled = self.backbone.compiled(backend)
