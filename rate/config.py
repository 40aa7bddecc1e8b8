"""What a model is made of: one frozen, validated description."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import Any, ClassVar, Literal, get_args

from rate.errors import ConfigError

Position = Literal["relative", "timestep", "sinusoidal"]


@dataclass(frozen=True)
class ModelConfig:
    """What every model has: its tokens and their width. Each backbone derives its own from it.

    `trainers/presets` has the settings of the models that are known by a name.

    Attributes:
        backbone: What carries memory through the sequence: `segment_transformer` (RATE, RMT, TrXL,
            DTXL), `window_transformer` (Decision Transformer), `lstm`, `gru`, `elmur`, or the
            import path of your own, `module:Class`.
        tokenizer: What a step becomes: `triples` of return-to-go, observation and action,
            `observations` alone (as ELMUR was published; without conditions), or the import path
            of your own.
        context_length: K, the steps of a segment (or of the sliding window).
        d_model: Width of tokens and of what the head reads.
        dropout: Dropout of embeddings, and of what the layers of a backbone put out.
        position: What tokens carry of their place in an episode: nothing (`relative`: that is left
            to the backbone), a learned embedding of the timestep (`timestep`, Chen et al. 2021), or
            one learned from sinusoids on (`sinusoidal`), in which "as long before a step as another
            is after it" is a linear map. Mirrored sequences are learnt twice as fast.
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

    carries_state: ClassVar[bool] = True
    """Whether the backbone hands anything on from one segment to the next. One that looks back over
    the last K steps and carries nothing sees a batch in one pass."""

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
        for name in ("context_length", "d_model", "max_timestep", "image_channels"):
            self.check_count(name, 1)
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

    def check_share(self, name: str, limit: float = 1.0) -> None:
        """Raise a `ConfigError` if a setting is no number in [0, `limit`)."""
        value = getattr(self, name)
        if not isinstance(value, int | float) or not 0 <= value < limit:
            raise ConfigError(f"model.{name} is {value!r}; it must be in [0, {limit:g}).")


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
        if not LEAST_SCALE <= self.temperature < inf:
            raise ConfigError(
                f"decoding.temperature is {self.temperature}; it must be a finite number "
                f"above 0 (at least {LEAST_SCALE:g}). For the likeliest action, use argmax."
            )
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"decoding.top_k is {self.top_k}; it must be at least 1.")


LEAST_SCALE = 1e-6  # what numbers are divided by: less would make float32 overflow
