"""The interface of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rate.config import ModelConfig
from rate.decoders.base import Decoder
from rate.decoders.recompute import RecomputeDecoder
from rate.decoders.step import empty_segment, step_in_segment
from rate.state import State
from rate.tokenizers import StepTokens

S = TypeVar("S", bound=State)
Losses = Mapping[str, Tensor]  # auxiliary losses by name, (B, K) each: one number a step
RunSegment = Callable[[Tensor, Tensor, S], tuple[Tensor, S, Losses]]


class Backbone(nn.Module, Generic[S]):
    """A sequence model over segments: maps a segment's tokens and a state to features and a state.

    Args:
        config: Its settings, a `Config`.
        tokens: The tokens of a step.

    Attributes:
        Config: The dataclass of its settings, derived from `ModelConfig`.
        whole_segments: Whether a segment must have all K steps. A shorter one is then padded.
    """

    Config: ClassVar[type[ModelConfig]] = ModelConfig
    whole_segments: bool = False

    def __init__(self, config: ModelConfig, tokens: StepTokens) -> None:
        super().__init__()
        self.config, self.tokens = config, tokens

    def initial_state(self, batch_size: int) -> S:
        """The state before the first segment of an episode."""
        raise NotImplementedError

    def forward(self, tokens: Tensor, mask: Tensor, state: S) -> tuple[Tensor, S]:
        """One segment, all steps at once (teacher forcing).

        Args:
            tokens: `(B, K, n, d)`; the last segment of a batch may have fewer steps, unless
                `whole_segments`.
            mask: `(B, K)` bool padding mask, real steps first. A row without real steps keeps its
                state.
            state: The state after the previous segment.

        Returns:
            Features `(B, K, d)` at the tokens that the head reads, and the state after the last
            real step. The features of a step are causal: they depend on the state, on earlier
            steps, and on the step's own tokens up to the one that is read.
        """
        raise NotImplementedError

    def forward_with_losses(
        self, tokens: Tensor, mask: Tensor, state: S
    ) -> tuple[Tensor, S, Losses]:
        """`forward`, and the backbone's own losses, which are added to the objective's in training.

        A backbone with losses of its own overrides it.

        Returns:
            Features, state, and weighted losses by name, `(B, K)` each. Their means over real steps
            are added to the loss and logged as `NAME_loss`. The names depend on the settings alone.
        """
        return *self(tokens, mask, state), {}

    @property
    def separate_layers(self) -> list[nn.Module]:
        """Layers whose parameters are used in their own `forward` alone.

        Where the model is sharded, each is gathered when it computes (`trainers.sharding`).
        """
        return []

    def after_step(self) -> None:
        """Called after every optimiser step, for example to keep a parameter within bounds."""

    def padded(self, tokens: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens `(B, k, n, d)` and mask `(B, k)` of k <= K steps, as `forward` takes them."""
        if not self.whole_segments:
            return tokens, mask
        missing = self.config.context_length - mask.shape[1]
        return F.pad(tokens, (0, 0, 0, 0, 0, missing)), F.pad(mask, (0, missing))

    def make_decoder(self, batch_size: int, *, exact: bool = True) -> Decoder:
        """The decoder for autoregressive rollouts; the default recomputes the open segment.

        Args:
            batch_size: Rows decoded side by side.
            exact: Whether it must equal `forward` to rounding where a cheaper approximation exists.
        """
        return RecomputeDecoder(self, batch_size)

    def acting_state(self, batch_size: int) -> Any:
        """The state of `step` before the first step of an episode."""
        return empty_segment(self, batch_size)

    def step(self, tokens: Tensor, timesteps: Tensor, state: Any) -> tuple[Tensor, Any]:
        """One step of acting as a function of tensors alone, which can be exported.

        Args:
            tokens: `(B, n, d)` of `Tokenizer.step`.
            timesteps: `(B,)` int64, the step within its episode.
            state: The state before the step, as of `acting_state`.

        Returns:
            Features `(B, d)`, and the state after the step.
        """
        return step_in_segment(self, tokens, timesteps, state)

    def compiled(self, backend: str | Callable[..., Any]) -> RunSegment[S]:
        """`forward_with_losses` compiled by `torch.compile`, once for each shape."""
        run = self.forward_with_losses
        program: RunSegment[S] = torch.compile(run, backend=backend, dynamic=False)
        return program
