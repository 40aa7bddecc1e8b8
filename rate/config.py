"""What a model is made of: one frozen, validated description."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Literal, get_args

from rate.errors import ConfigError

BlockKind = Literal["pre_norm", "trxl", "trxl_i", "gtrxl", "gpt"]
ValveKind = Literal[
    "none", "cross_attention", "cross_attention_reverse", "gru", "lstm", "gated", "latch"
]
ValveActivation = Literal["none", "relu", "leaky_relu", "elu", "tanh"]
PositionKind = Literal["relative", "timestep", "sinusoidal"]
FeedForwardKind = Literal["mlp", "swiglu"]
ContextKind = Literal["segments", "window"]


@dataclass(frozen=True)
class ModelConfig:
    """The architecture of a sequence model over (return-to-go, observation, action) tokens.

    RATE, RMT, TrXL, DTXL and both Decision Transformers are settings of this one description;
    `trainers/presets` names them.

    Attributes:
        context_length: K, the steps of a segment (or of the sliding window).
        context: `segments` splits a trajectory into segments of K steps that hand on a
            `MemoryState`; `window` looks back over the last K steps and carries nothing else.
        block: `pre_norm` (default: one residual, norm first), `trxl` (post-norm, Transformer-XL),
            `trxl_i` (identity map reordering) and `gtrxl` (gated), both Parisotto et al. 2020,
            or `gpt` (Decision Transformer's GPT-2 block).
        position: `relative` (Transformer-XL), `timestep` (learned embedding, Chen et al. 2021), or
            `sinusoidal`: learned too, but from sinusoids on, in which "as long before a step as
            another is after it" is a linear map. Mirrored sequences are learnt twice as fast.
        d_model: Width of the residual stream.
        num_layers: Number of blocks.
        num_heads: Attention heads.
        d_head: Width of a head; None is `d_model / num_heads`.
        d_ff: Inner width of the feed-forward layer; None is `4 * d_model`.
        feed_forward: `mlp` (one activation), or `swiglu` (gated; Shazeer 2020), which learns sooner
            what a memory means for what is seen.
        skip_ffn: Leave out the feed-forward layers (the field's `--skip_dec_ffn`).
        dropout: Dropout of embeddings, attention output and feed-forward.
        attention_dropout: Dropout of attention probabilities and of the memory retention valve.
        num_memory_tokens: m, memory tokens read and written by each segment (`--nmt`).
        cache_length: Cached hidden states per layer, in tokens (`--mem_len`); a step is 3 tokens.
        valve: Memory retention valve between what a segment wrote and what the next one reads.
        valve_heads: Heads of the valve's cross-attention (`--n_head_ca`).
        valve_activation: Activation of what a segment wrote, before the valve (`--mrv_act`).
        memory_noise: Standard deviation of Gaussian noise on carried memory, in training only.
        max_timestep: Rows of the learned timestep embedding; later steps use the last row.
        image_channels: Channels of the first convolution over images; the others have twice as
            many. 32 is DQN's.
        image_norm: Whether the embedding of an image is normalised (LayerNorm), so that at the
            start of training what is seen and what is remembered weigh alike.
        image_contrast: Whether each image is standardised first (its mean is taken off, and it is
            divided by its deviation). Where little moves on a flat ground, a
            model that sees it as it is learns nothing for hundreds of updates.
        condition_on_action: Whether the model sees its past actions. A smooth expert mostly does
            what it just did, and a model that sees that may learn to copy itself, not to look.
        condition_on_return: Whether the model sees returns-to-go. Where a return tells how long an
            episode is, and with it what the expert is about to do, to see it is to see the answer.
        return_scale: What returns-to-go are divided by before they are embedded; about the largest
            return of the data.
    """

    context_length: int = 30
    context: ContextKind = "segments"
    block: BlockKind = "pre_norm"
    position: PositionKind = "relative"
    d_model: int = 64
    num_layers: int = 2
    num_heads: int = 4
    d_head: int | None = None
    d_ff: int | None = None
    feed_forward: FeedForwardKind = "mlp"
    skip_ffn: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    num_memory_tokens: int = 0
    cache_length: int = 0
    valve: ValveKind = "none"
    valve_heads: int = 2
    valve_activation: ValveActivation = "none"
    memory_noise: float = 0.0
    max_timestep: int = 4096
    image_channels: int = 32
    image_norm: bool = False
    image_contrast: bool = False
    condition_on_action: bool = True
    condition_on_return: bool = True
    return_scale: float = 1.0

    def __post_init__(self) -> None:
        for name, kind in _CHOICES.items():
            value = getattr(self, name)
            if value not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ConfigError(f"model.{name} is '{value}'; choose one of: {choices}.")
        for name in ("context_length", "d_model", "num_layers", "num_heads", "max_timestep"):
            _count(name, getattr(self, name), 1)
        _count("image_channels", self.image_channels, 1)
        if not _LEAST_SCALE <= self.return_scale < inf:
            raise ConfigError(
                f"model.return_scale is {self.return_scale}; it must be a finite number "
                f"above 0 (at least {_LEAST_SCALE:g}), about the largest return of the data."
            )
        for name in ("d_head", "d_ff"):
            if getattr(self, name) is not None:
                _count(name, getattr(self, name), 1)
        for name in ("num_memory_tokens", "cache_length"):
            _count(name, getattr(self, name), 0)
        for name, limit in (("dropout", 1.0), ("attention_dropout", 1.0), ("memory_noise", inf)):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 <= value < limit:
                raise ConfigError(f"model.{name} is {value!r}; it must be in [0, {limit:g}).")
        self._check_combinations()

    def _check_combinations(self) -> None:
        if self.d_head is None and self.d_model % self.num_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} does not divide model.d_model={self.d_model}; "
                "change one of them, or set model.d_head."
            )
        if self.position != "timestep" and self.d_model % 2:
            raise ConfigError(
                f"model.d_model={self.d_model} must be even for {self.position} positions."
            )
        if self.valve != "none" and self.num_memory_tokens == 0:
            raise ConfigError(
                f"model.valve={self.valve} has no memory tokens to work on; set "
                "model.num_memory_tokens above 0, or model.valve=none."
            )
        if self.valve in ("cross_attention", "cross_attention_reverse", "latch"):
            _count("valve_heads", self.valve_heads, 1)
            if self.d_model % self.valve_heads:
                raise ConfigError(
                    f"model.valve_heads={self.valve_heads} does not divide "
                    f"model.d_model={self.d_model}."
                )
        if self.context == "window" and (self.num_memory_tokens or self.cache_length):
            raise ConfigError(
                "model.context=window carries no memory between segments: set "
                "model.num_memory_tokens=0 and model.cache_length=0, or model.context=segments."
            )

    @property
    def head_width(self) -> int:
        return self.d_head if self.d_head is not None else self.d_model // self.num_heads

    @property
    def ff_width(self) -> int:
        return self.d_ff if self.d_ff is not None else 4 * self.d_model


@dataclass(frozen=True)
class Decoding:
    """How an action is drawn from a prediction.

    Attributes:
        method: `argmax`, or `sample` from the softmax. Continuous actions have only the former.
        temperature: Divides the logits before sampling.
        top_k: Sample among the k most likely actions alone; None is all of them.
    """

    method: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("argmax", "sample"):
            raise ConfigError(f"decoding.method is '{self.method}'; choose argmax or sample.")
        if not _LEAST_SCALE <= self.temperature < inf:
            raise ConfigError(
                f"decoding.temperature is {self.temperature}; it must be a finite number "
                f"above 0 (at least {_LEAST_SCALE:g}). For the likeliest action, use argmax."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"decoding.top_k is {self.top_k}; it must be at least 1.")


_LEAST_SCALE = 1e-6  # what numbers are divided by: less would make float32 overflow

_CHOICES = {
    "context": ContextKind,
    "block": BlockKind,
    "position": PositionKind,
    "feed_forward": FeedForwardKind,
    "valve": ValveKind,
    "valve_activation": ValveActivation,
}


def _count(name: str, value: object, minimum: int) -> None:
    if not isinstance(value, int) or value < minimum:
        raise ConfigError(
            f"model.{name} is {value!r}; it must be a whole number of at least {minimum}."
        )
