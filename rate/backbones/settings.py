"""The settings of our backbones.

Nothing here imports PyTorch, so that a wrong setting is reported at once. The settings of a user's
backbone are its `Config`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import ClassVar, Literal

from rate.config import ModelConfig
from rate.errors import ConfigError

Block = Literal[
    "pre_norm",
    "trxl",
    "trxl_i",
    "gtrxl",
    "gtrxl_input",
    "gtrxl_output",
    "gtrxl_highway",
    "gtrxl_sigtanh",
    "rezero",
    "rezero_gtrxl",
    "gpt",
]
Valve = Literal[
    "none",
    "cross_attention",
    "cross_attention_reverse",
    "gru",
    "lstm",
    "gated",
    "latch",
    "bistable",
    "binary",
]
Activation = Literal["none", "relu", "leaky_relu", "elu", "tanh"]
FeedForward = Literal["mlp", "swiglu"]
_ATTENDING = ("cross_attention", "cross_attention_reverse", "latch")  # valves that have heads


@dataclass(frozen=True)
class TransformerConfig(ModelConfig):
    """The settings that all transformers have.

    With `position=relative` attention has relative positions (Transformer-XL); otherwise positions
    are added to the tokens.

    Attributes:
        block: `pre_norm` (default: one residual, norm first), `trxl` (post-norm, Transformer-XL),
            `trxl_i` (identity map reordering) and `gtrxl` (with GRU gates; `gtrxl_input`,
            `gtrxl_output`, `gtrxl_highway` and `gtrxl_sigtanh` have the paper's other gates), both
            Parisotto et al. 2020, `rezero` (Bachlechner et al. 2021) and `rezero_gtrxl` (with GRU
            gates), or `gpt` (Decision Transformer's GPT-2 block).
        num_layers: Number of blocks.
        num_heads: Attention heads.
        d_head: Width of a head; None is `d_model / num_heads`.
        d_ff: Inner width of the feed-forward layer; None is `4 * d_model`.
        feed_forward: `mlp` (one activation), or `swiglu` (gated; Shazeer 2020), which learns
            sooner how memory and observation combine.
        skip_ffn: Leave out the feed-forward layers (the field's `--skip_dec_ffn`).
        attention_dropout: Dropout of attention probabilities (and of a memory retention valve's).
        tie_layers: All layers are one block, which is told its depth (Universal Transformer,
            Dehghani et al. 2019).
        adaptive_depth: Adaptive computation time (Graves 2016): every token halts after some of the
            `num_layers` layers, and its output is a weighted mean of theirs.
        halting_threshold: A token halts when its halting probabilities sum to more.
        ponder_weight: Weight of the ponder cost (layers and remainder of a token) in the loss.
        span: The longest adaptive attention span, in tokens (Sukhbaatar et al. 2019): every head
            learns how far back it looks. 0 is no limit.
        span_ramp: Tokens over which the mask of a span falls from 1 to 0.
        span_weight: Weight of the mean span of a layer's heads, in tokens, in the loss.
        persistent_vectors: Learned keys and values of every head, which all tokens attend to
            (Sukhbaatar et al. 2019, arXiv 1907.01470). With `skip_ffn` they take the place of the
            feed-forward layers (the all-attention layer).
    """

    block: Block = "pre_norm"
    num_layers: int = 2
    num_heads: int = 4
    d_head: int | None = None
    d_ff: int | None = None
    feed_forward: FeedForward = "mlp"
    skip_ffn: bool = False
    attention_dropout: float = 0.0
    tie_layers: bool = False
    adaptive_depth: bool = False
    halting_threshold: float = 0.9
    ponder_weight: float = 0.01
    span: int = 0
    span_ramp: int = 32
    span_weight: float = 2e-6
    persistent_vectors: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("block", Block)
        self.check_choice("feed_forward", FeedForward)
        for name in ("num_layers", "num_heads", "d_head", "d_ff"):
            if getattr(self, name) is not None:
                self.check_count(name, 1)
        self.check_share("attention_dropout")
        self.check_share("halting_threshold")
        for name in ("ponder_weight", "span_weight"):
            self.check_share(name, inf)
        self.check_count("span", 0)
        self.check_count("persistent_vectors", 0)
        self.check_count("span_ramp", 1)
        if self.span and self.position != "relative":
            raise ConfigError(
                f"model.span={self.span} is a number of distances, which attention has with "
                "model.position=relative alone; set that, or model.span=0."
            )
        if self.d_head is None and self.d_model % self.num_heads:
            raise ConfigError(
                f"model.num_heads={self.num_heads} does not divide model.d_model={self.d_model}; "
                "change one of them, or set model.d_head."
            )
        if (self.position == "relative" or self.tie_layers) and self.d_model % 2:
            what = f"{self.position} positions" if not self.tie_layers else "model.tie_layers"
            raise ConfigError(f"model.d_model={self.d_model} must be even for {what}.")

    @property
    def head_width(self) -> int:
        return self.d_head if self.d_head is not None else self.d_model // self.num_heads

    @property
    def ff_width(self) -> int:
        return self.d_ff if self.d_ff is not None else 4 * self.d_model


@dataclass(frozen=True)
class SegmentTransformerConfig(TransformerConfig):
    """The settings of a transformer that carries memory from segment to segment.

    Attributes:
        num_memory_tokens: m, memory tokens read and written by each segment (`--nmt`).
        cache_length: Cached hidden states per layer, in tokens (`--mem_len`); a step is 3 tokens.
        valve: Memory retention valve, which updates the memory tokens between two segments:
            `none`, `cross_attention` (RATE), `cross_attention_reverse`, `gru`, `lstm`, `gated`,
            `latch` (ours: saturating), `bistable` (ours: units with two stable values) or
            `binary` (ours: their signs alone).
        valve_heads: Attention heads of the valve (`--n_head_ca`).
        valve_activation: Activation of the write tokens' outputs, before the valve (`--mrv_act`).
        memory_noise: Standard deviation of Gaussian noise on carried memory, in training only.
        memory_decay: a in [0, 1): memory is an exponential moving average over segments, a times
            the memory before plus 1 - a times what the valve returns. With
            `training.bptt_segments=1` it is detached, as in muVLA's ablation (arXiv 2606.12497).
        cached_memories: S, memories of the segments before that are read beside the current one
            (memory caching, arXiv 2602.24281).
        associative_size: Width of the keys of an associative memory in every layer, written by the
            write tokens (ARMT, arXiv 2407.04841): it is carried instead of the memory tokens. 0 is
            none.
    """

    num_memory_tokens: int = 0
    cache_length: int = 0
    valve: Valve = "none"
    valve_heads: int = 2
    valve_activation: Activation = "none"
    memory_noise: float = 0.0
    memory_decay: float = 0.0
    cached_memories: int = 0
    associative_size: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_choice("valve", Valve)
        self.check_choice("valve_activation", Activation)
        counts = ("num_memory_tokens", "cache_length", "cached_memories", "associative_size")
        for name in counts:
            self.check_count(name, 0)
        self.check_share("memory_noise", inf)
        self.check_share("memory_decay")
        if self.valve != "none" and self.num_memory_tokens == 0:
            raise ConfigError(
                f"model.valve={self.valve} has no memory tokens to work on; set "
                "model.num_memory_tokens above 0, or model.valve=none."
            )
        if self.valve in _ATTENDING:
            self.check_divides("valve_heads")
        for name in ("cached_memories", "associative_size", "memory_decay"):
            if getattr(self, name) and not self.num_memory_tokens:
                raise ConfigError(
                    f"model.{name}={getattr(self, name)} is of memory tokens; set "
                    f"model.num_memory_tokens above 0, or model.{name}=0."
                )
        of_tokens = self.valve != "none" or self.cached_memories or self.memory_decay
        if self.associative_size and of_tokens:
            raise ConfigError(
                f"model.associative_size={self.associative_size} carries a matrix instead of "
                "memory tokens; set model.valve=none, model.cached_memories=0 and "
                "model.memory_decay=0 with it."
            )

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """Without memory tokens, what the cache reaches: at each layer C tokens further back.

        A token sees its own segment and the C tokens before it (Dai et al. 2019, section 3.2).
        """
        if self.num_memory_tokens:
            return None
        segment, oldest = tokens_per_step * self.context_length, 0
        for _ in range(self.num_layers):
            oldest = oldest // segment * segment - self.cache_length
        return self.context_length - oldest // tokens_per_step


@dataclass(frozen=True)
class WindowTransformerConfig(TransformerConfig):
    """The settings of a transformer with a sliding window of K steps (`context_length`)."""

    carries_state: ClassVar[bool] = False

    backbone: str = "window_transformer"

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """The window of K steps, or K - 1 further steps at each layer if it is not exact."""
        return self.context_length if exact else self.num_layers * (self.context_length - 1) + 1


@dataclass(frozen=True)
class ELMURConfig(ModelConfig):
    """The settings of ELMUR.

    Attributes:
        num_layers: Number of layers.
        num_heads: Heads of every attention.
        d_ff: Inner width of the feed-forward layers; None is `4 * d_model`.
        pre_norm: Whether sub-layers read a normalised stream, or the sum is normalised.
        memory_slots: M, slots of every layer.
        memory_init: Standard deviation of the noise that memory starts from: sampled for each
            window in training, fixed for acting.
        use_lru: Rewrite the least recently used slot; else every slot, at every segment.
        lru_blend: a, the weight of the written value in the new value of a slot.
        max_distance: Distances in tokens that have a bias of their own in reading and writing.
    """

    backbone: str = "elmur"
    num_layers: int = 2
    num_heads: int = 2
    d_ff: int | None = None
    pre_norm: bool = False
    memory_slots: int = 2
    memory_init: float = 0.1
    use_lru: bool = True
    lru_blend: float = 0.9
    max_distance: int = 4096

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_layers", "num_heads", "memory_slots", "max_distance", "d_ff"):
            if getattr(self, name) is not None:
                self.check_count(name, 1)
        self.check_share("memory_init", inf)
        if not 0 < self.lru_blend <= 1:
            raise ConfigError(f"model.lru_blend is {self.lru_blend!r}; it must be in (0, 1].")
        if self.d_model % self.num_heads or self.d_model % 2:
            raise ConfigError(
                f"model.d_model={self.d_model} must be even, and a multiple of "
                f"model.num_heads={self.num_heads}."
            )
