"""The settings of a model and of action decoding: frozen dataclasses, validated."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal, get_args

from rate.errors import ConfigError

Position = Literal["relative", "timestep", "sinusoidal"]
ReturnToGo = Literal["decrease", "hold", "clamp", "per_segment"]


@dataclass(frozen=True)
class ModelConfig:
    """The settings that every model has. The `Config` of a backbone derives from it.

    The models of the papers are presets, in `trainers/presets`.

    Attributes:
        backbone: The sequence model: `segment_transformer` (RATE, RMT, TrXL, DTXL),
            `window_transformer` (Decision Transformer), `elmur`, the recurrent `lstm`, `gru`,
            `min_gru`, `gated_deltanet`, `mlstm`, `slstm`, `nbrc`, `ffm`, `mamba2` and `shm`, `mlp`
            (no memory), `gpt2` and `lsdt` (sliding windows), `public_rate` (the architecture of the
            public RATE code), or the import path of your own, `module:Class`.
        tokenizer: The tokens of a step: `triples` of return-to-go, observation and action, `pairs`
            of observation and action (features are conditioned on the newest return-to-go alone),
            `observations` alone (as ELMUR was published; without conditions), or the import path
            of your own.
        context_length: K, the steps of a segment (or of the sliding window).
        d_model: Width of tokens and features.
        dropout: Dropout of embeddings and of the outputs of a backbone's layers.
        position: Position embedding of tokens: none (`relative`: the backbone has relative
            positions), a learned embedding of the timestep (`timestep`, Chen et al. 2021), or a
            learned one that is initialised with sinusoids (`sinusoidal`), in which to reflect a
            timestep about another is a linear map: mirrored sequences are learnt twice as fast.
        max_timestep: Rows of the learned timestep embedding; later steps use the last row.
        image_channels: Channels of the first convolution over images; the others have twice as
            many. 32 is DQN's. 0 is a linear layer over the pixels, for images of a few cells: there
            the embeddings of two images by convolutions differ by a few percent before training.
        image_norm: Whether the embedding of an image is normalised (LayerNorm), so that at the
            start of training observations and memory have the same scale.
        image_contrast: Whether each image is standardised first (minus its mean, divided by its
            standard deviation). Without it, nothing is learnt for hundreds of updates from images
            in which little moves on a uniform background.
        condition_on_action: Whether past actions are inputs. A smooth expert mostly repeats its
            last action, and a model may learn to copy that instead of using the observation.
        condition_on_return: Whether returns-to-go are inputs. Where the return reveals the length
            of the episode, it reveals the expert's next actions.
        return_scale: Returns-to-go are divided by it before they are embedded; about the largest
            return of the data.
    """

    carries_state: ClassVar[bool] = True
    """Whether the backbone carries a state from segment to segment. One with a sliding window of K
    steps does not, and has all steps of a batch in one pass."""

    backbone: str = "segment_transformer"
    tokenizer: str = "triples"
    context_length: int = 30
    d_model: int = 64
    dropout: float = 0.0
    position: Position = "relative"
    max_timestep: int = 4096
    image_channels: int = 32
    image_norm: bool = False
    image_contrast: bool = False
    condition_on_action: bool = True
    condition_on_return: bool = True
    return_scale: float = 1.0

    def __post_init__(self) -> None:
        self.check_choice("position", Position)
        for name in ("context_length", "d_model", "max_timestep"):
            self.check_count(name, 1)
        self.check_count("image_channels", 0)
        self.check_share("dropout")
        if not LEAST_SCALE <= self.return_scale < inf:
            raise ConfigError(
                f"model.return_scale is {self.return_scale}; it must be a finite number "
                f"above 0 (at least {LEAST_SCALE:g}), about the largest return of the data."
            )
        conditions = self.condition_on_action or self.condition_on_return
        if self.tokenizer == "observations" and conditions:
            raise ConfigError(
                "model.tokenizer=observations shows a model observations alone; set "
                "model.condition_on_action=false and model.condition_on_return=false with it."
            )
        if self.position == "sinusoidal" and self.d_model % 2:
            raise ConfigError(
                f"model.d_model={self.d_model} must be even for {self.position} positions."
            )

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """The most steps that a prediction can depend on, its own included; None has no limit.

        A backbone whose state has a bounded reach overrides it.

        Args:
            tokens_per_step: n, the tokens of a step.
            exact: See `Backbone.make_decoder`.
        """
        return None if self.carries_state else self.context_length

    def check_choice(self, name: str, choices: Any) -> None:
        """Raise a `ConfigError` if a setting is none of the choices of a `Literal`."""
        value = getattr(self, name)
        if value not in get_args(choices):
            known = ", ".join(get_args(choices))
            raise ConfigError(f"model.{name} is '{value}'; choose one of: {known}.")

    def check_count(self, name: str, minimum: int) -> None:
        """Raise a `ConfigError` if a setting is no whole number of at least `minimum`."""
        value = getattr(self, name)
        if not isinstance(value, int) or value < minimum:
            raise ConfigError(
                f"model.{name} is {value!r}; it must be a whole number of at least {minimum}."
            )

    def check_divides(self, name: str) -> None:
        """Raise a `ConfigError` if a setting is no whole number that divides `d_model`."""
        self.check_count(name, 1)
        if self.d_model % (value := getattr(self, name)):
            raise ConfigError(
                f"model.{name}={value} does not divide model.d_model={self.d_model}; "
                "change one of them."
            )

    def check_share(self, name: str, limit: float = 1.0) -> None:
        """Raise a `ConfigError` if a setting is no number in [0, `limit`)."""
        value = getattr(self, name)
        if not isinstance(value, int | float) or not 0 <= value < limit:
            raise ConfigError(f"model.{name} is {value!r}; it must be in [0, {limit:g}).")


@dataclass(frozen=True)
class Decoding:
    """How predictions become actions.

    Attributes:
        method: `argmax`, or `sample` from the softmax. Continuous actions have the former only.
        temperature: Divides the logits before sampling.
        top_k: Sample among the k most likely actions alone; None is all of them.
    """

    method: Literal["argmax", "sample"] = "argmax"
    temperature: float = 1.0
    top_k: int | None = None

    def __post_init__(self) -> None:
        if self.method not in ("argmax", "sample"):
            raise ConfigError(f"decoding.method is '{self.method}'; choose argmax or sample.")
        if not LEAST_SCALE <= self.temperature < inf:
            raise ConfigError(
                f"decoding.temperature is {self.temperature}; it must be a finite number "
                f"above 0 (at least {LEAST_SCALE:g}). For the likeliest action, use argmax."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"decoding.top_k is {self.top_k}; it must be at least 1.")


LEAST_SCALE = 1e-6  # of divisors: less would make float32 overflow
