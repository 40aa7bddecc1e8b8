"""Tiny models and batches of every kind, under readable names.

`MODELS` is the list that the invariants run over: every memory, valve, block and position. `SPACES`
is the list of observation and action spaces; each stands in for an environment.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from torch import Tensor

from rate.architecture import make_config
from rate.backbones.settings import SegmentTransformerConfig, WindowTransformerConfig
from rate.batch import Batch, Observations
from rate.config import ModelConfig
from rate.envs.spec import EnvironmentSpec
from rate.model import SequenceModel

K = 4  # context length
SEGMENTS = 3
STEPS = K * SEGMENTS

TINY: dict[str, Any] = {"context_length": K, "d_model": 16, "num_heads": 2, "num_layers": 2}
MEMORY: dict[str, Any] = {**TINY, "num_memory_tokens": 3}
RATE: dict[str, Any] = {**MEMORY, "valve": "cross_attention"}
DEPTH: dict[str, Any] = {"tie_layers": True, "adaptive_depth": True}
ELMUR: dict[str, Any] = {"context_length": K, "d_model": 16, "backbone": "elmur"}
OBSERVATIONS: dict[str, Any] = {
    "tokenizer": "observations",
    "condition_on_action": False,
    "condition_on_return": False,
}
RECURRENT: dict[str, Any] = {"context_length": K, "d_model": 16}
HEADS: dict[str, Any] = {**RECURRENT, "num_heads": 2}

MODELS: dict[str, ModelConfig] = {
    "rate": make_config(**RATE),
    "rate_relu": make_config(**RATE, valve_activation="relu"),
    "rate_leaky_relu": make_config(**RATE, valve_activation="leaky_relu"),
    "rate_elu": make_config(**RATE, valve_activation="elu"),
    "rate_tanh": make_config(**RATE, valve_activation="tanh"),
    "rate_reverse": make_config(**MEMORY, valve="cross_attention_reverse"),
    "rate_gru": make_config(**MEMORY, valve="gru"),
    "rate_lstm": make_config(**MEMORY, valve="lstm"),
    "rate_gated": make_config(**MEMORY, valve="gated"),
    "rate_bistable": make_config(**MEMORY, valve="bistable"),
    "rate_binary": make_config(**MEMORY, valve="binary"),
    "rmt": make_config(**MEMORY),
    "rmt_average": make_config(**MEMORY, memory_decay=0.7),
    "armt": make_config(**MEMORY, associative_size=16),
    "armt_cache": make_config(**MEMORY, associative_size=16, cache_length=7, block="gtrxl"),
    "cached_memories": make_config(**RATE, cached_memories=2),
    "rmt_of_cached_memories": make_config(**MEMORY, cached_memories=1, cache_length=7),
    "trxl": make_config(**TINY, cache_length=3 * STEPS),
    "trxl_short_cache": make_config(**TINY, cache_length=5),
    "dtxl": make_config(**TINY, cache_length=3 * K),
    "rate_cache": make_config(**RATE, cache_length=17),
    "rate_lstm_cache": make_config(**MEMORY, valve="lstm", cache_length=7),
    "dt": make_config(**TINY, backbone="window_transformer", block="gpt", position="timestep"),
    "dt_relative": make_config(**TINY, backbone="window_transformer"),
    "post_norm": make_config(**RATE, block="trxl", cache_length=7),
    "trxl_i": make_config(**RATE, block="trxl_i", cache_length=7),
    "gtrxl": make_config(**RATE, block="gtrxl", cache_length=7),
    "gtrxl_highway": make_config(**RATE, block="gtrxl_highway", cache_length=7),
    "rezero": make_config(**RATE, block="rezero", cache_length=7),
    "rezero_gtrxl": make_config(**TINY, block="rezero_gtrxl", cache_length=7),
    "universal": make_config(**RATE, block="trxl", **DEPTH, cache_length=7),
    "integrated": make_config(**TINY, block="rezero_gtrxl", **DEPTH, cache_length=7),
    "tied_layers": make_config(**TINY, backbone="window_transformer", tie_layers=True),
    "adaptive_depth": make_config(**TINY, backbone="window_transformer", adaptive_depth=True),
    "adaptive_span": make_config(**RATE, span=12, span_ramp=9, cache_length=14),
    "gpt_with_memory": make_config(**RATE, block="gpt", cache_length=7),
    "timestep_with_memory": make_config(**RATE, position="timestep", cache_length=7),
    "skip_ffn": make_config(**RATE, skip_ffn=True, cache_length=7),
    "swiglu": make_config(**RATE, feed_forward="swiglu", cache_length=7),
    "free_d_head": make_config(**RATE, d_head=5, d_ff=11, cache_length=7),
    "lstm": make_config(**RECURRENT, backbone="lstm"),
    "lstm_of_two_layers": make_config(**RECURRENT, backbone="lstm", num_layers=2),
    "gru": make_config(**RECURRENT, backbone="gru"),
    "gru_with_timesteps": make_config(**RECURRENT, backbone="gru", position="timestep"),
    "elmur": make_config(**ELMUR),
    "elmur_pre_norm": make_config(**ELMUR, pre_norm=True, memory_slots=3, max_distance=7),
    "elmur_without_lru": make_config(**ELMUR, use_lru=False),
    "elmur_of_observations": make_config(**ELMUR, **OBSERVATIONS),
    "lstm_of_observations": make_config(**RECURRENT, backbone="lstm", **OBSERVATIONS),
    "rate_of_observations": make_config(**RATE, cache_length=5, **OBSERVATIONS),
    "rate_of_pairs": make_config(**RATE, cache_length=5, tokenizer="pairs"),
    "dt_of_pairs": make_config(
        **TINY, backbone="window_transformer", position="timestep", tokenizer="pairs"
    ),
    "gru_of_pairs": make_config(**RECURRENT, backbone="gru", tokenizer="pairs"),
    "dt_of_observations": make_config(**TINY, backbone="window_transformer", **OBSERVATIONS),
    "min_gru": make_config(**RECURRENT, backbone="min_gru"),
    "min_gru_of_observations": make_config(**RECURRENT, backbone="min_gru", **OBSERVATIONS),
    "gated_deltanet": make_config(**HEADS, backbone="gated_deltanet"),
    "mlstm": make_config(**HEADS, backbone="mlstm"),
    "slstm": make_config(**HEADS, backbone="slstm"),
    "nbrc": make_config(**RECURRENT, backbone="nbrc"),
    "ffm": make_config(**RECURRENT, backbone="ffm", memory_size=5, context_size=3),
    "mamba2": make_config(**HEADS, backbone="mamba2", state_size=6),
    "shm": make_config(**RECURRENT, backbone="shm", memory_size=5, calibrations=7),
    "dlstm": make_config(**RECURRENT, backbone="lstm", interleaved=True),
    "dmamba": make_config(**HEADS, backbone="mamba2", state_size=6, interleaved=True),
    "all_attention": make_config(
        **TINY, block="trxl_i", span=12, cache_length=7, persistent_vectors=6, skip_ffn=True
    ),
    "gpt2": make_config(**TINY, backbone="gpt2", position="sinusoidal"),
    "gpt2_of_pairs": make_config(**TINY, backbone="gpt2", tokenizer="pairs"),
    "lsdt": make_config(**TINY, backbone="lsdt", position="timestep", conv_width=8, conv_kernel=5),
    "lsdt_relative": make_config(**TINY, backbone="lsdt", conv_width=8, conv_kernel=5),
    "public_rate": make_config(**MEMORY, backbone="public_rate"),
    "public_gtrxl": make_config(
        **MEMORY, backbone="public_rate", block="gtrxl", valve_heads=0, **OBSERVATIONS
    ),
    "mlp": make_config(**RECURRENT, backbone="mlp"),
    "own": make_config(**RECURRENT, backbone="tests.own_cells:Traces"),
    "window_of_one": make_config(**{**TINY, "backbone": "window_transformer", "context_length": 1}),
}
CARRYING = [name for name, config in MODELS.items() if config.carries_state]
REMEMBERING = [  # that carry memory tokens
    name
    for name, config in MODELS.items()
    if isinstance(config, SegmentTransformerConfig)
    and config.num_memory_tokens
    and not config.associative_size
]
# With a cheaper decoder that is not exact.
WINDOWS = [name for name, config in MODELS.items() if isinstance(config, WindowTransformerConfig)]

VECTOR, FOUR = Box(-np.inf, np.inf, (3,)), Discrete(4)
SPACES: dict[str, tuple[gym.Space[Any], gym.Space[Any]]] = {
    "vector_to_discrete": (VECTOR, FOUR),
    "scalar_to_multi_discrete": (Box(-1, 1, ()), MultiDiscrete([3, 2, 4])),
    "matrix_to_bounded": (Box(-1, 1, (2, 3)), Box(np.float32([-2, 0]), np.float32([1, 0.5]))),
    "discrete_to_unbounded": (Discrete(5, start=2), Box(-np.inf, np.inf, (2,))),
    "multi_discrete_to_discrete": (MultiDiscrete([3, 4], start=[1, -2]), FOUR),
    "grid_to_discrete": (MultiDiscrete([[3, 4], [2, 5]]), FOUR),
    "image_chw_to_discrete": (Box(0, 255, (3, 12, 10), np.uint8), FOUR),
    "image_hwc_to_discrete": (Box(0, 255, (12, 10, 3), np.uint8), FOUR),
    "small_image_hwc_to_discrete": (Box(0, 255, (7, 7, 3), np.uint8), FOUR),
    "dictionary_to_bounded": (
        Dict(image=Box(0, 255, (3, 8, 8), np.uint8), speed=Box(-1, 1, (2,)), task=Discrete(3)),
        Box(-1, 1, (3,)),
    ),
    "bits_to_started": (MultiBinary(4), Discrete(5, start=-2)),
    "whole_number_to_bits": (Box(-3, 9, (), np.int64), MultiBinary([2, 2])),
    "matrix_to_matrix": (Box(-1, 1, (2, 3)), Box(np.float32([[-2], [0]]), np.float32([[1], [5]]))),
    "scalar_to_scalar": (Box(-1, 1, ()), Box(-2, 1, ())),
    "dictionary_to_whole_numbers": (
        Dict(
            bits=MultiBinary([2, 2]),
            counts=Box(0, 9, (2, 2), np.int64),
            alone=Box(-1, 1, ()),
            task=Discrete(4, start=-2),
        ),
        Box(-2, 3, (2, 3), np.int64),
    ),
}


def make_model(
    config: ModelConfig | str = "rate", spaces: str = "vector_to_discrete", **changes: Any
) -> SequenceModel:
    """A model in evaluation mode whose every parameter has been moved away from its start.

    Biases and gates that start at zero or one would hide mistakes in how they are used.
    """
    config = MODELS[config] if isinstance(config, str) else config
    torch.manual_seed(1)
    model = SequenceModel(replace(config, **changes), *SPACES[spaces])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # ReZero's parameter is a tenth of alpha; larger ones would enlarge rounding.
            size = 0.02 if name.endswith("alpha_tenth") else 0.2
            parameter.add_(size * torch.randn_like(parameter))
    return model.eval()


def twin(model: SequenceModel, **changes: Any) -> SequenceModel:
    """A model with the same weights under a changed configuration."""
    config = replace(model.config, **changes)
    other = SequenceModel(config, model.observation_space, model.action_space)
    other.load_state_dict(model.state_dict())
    return other.eval()


def noisy(model: SequenceModel, dropout: float = 0.5) -> SequenceModel:
    """A model with the same weights that draws all the noise its backbone knows."""
    remembers = bool(getattr(model.config, "num_memory_tokens", 0))
    noise = {
        "dropout": dropout,
        "attention_dropout": 0.5,
        "memory_noise": 1.0 if remembers else 0.0,
    }
    known = {field.name for field in fields(model.config)}
    return twin(model, **{name: value for name, value in noise.items() if name in known})


def make_spec(spaces: str = "vector_to_discrete") -> EnvironmentSpec:
    return EnvironmentSpec("test", *SPACES[spaces], target_return=2.0)


def draw(space: gym.Space[Any], *shape: int, seed: int = 0) -> Observations:
    """Random elements of a space: tensors `(*shape, *space)`, or a dictionary of them."""
    rng = np.random.default_rng(seed)
    if isinstance(space, Dict):
        return {key: draw(part, *shape, seed=seed) for key, part in space.spaces.items()}
    if isinstance(space, Discrete):
        return torch.as_tensor(rng.integers(space.start, space.start + space.n, shape))
    if isinstance(space, MultiDiscrete):
        high = space.start + space.nvec
        return torch.as_tensor(rng.integers(space.start, high, (*shape, *space.shape)))
    if isinstance(space, MultiBinary):
        return torch.as_tensor(rng.integers(0, 2, (*shape, *space.shape), dtype=np.int8))
    assert isinstance(space, Box)
    if space.dtype == np.int64:
        return torch.as_tensor(rng.integers(space.low, space.high + 1, (*shape, *space.shape)))
    if space.dtype == np.uint8:
        return torch.as_tensor(rng.integers(0, 256, (*shape, *space.shape), dtype=np.uint8))
    low, high = np.maximum(space.low, -3), np.minimum(space.high, 3)
    return torch.as_tensor(rng.uniform(low, high, (*shape, *space.shape)).astype(np.float32))


def make_batch(
    model: SequenceModel, lengths: list[int] | int = STEPS, steps: int | None = None, seed: int = 0
) -> Batch:
    """Random steps: rows of `lengths` real steps, three full rows if it is a number.

    Odd rows are terminated at their end, the others are truncated.

    The padding is random too, within the spaces: what it holds must never matter.
    """
    lengths = [lengths] * 3 if isinstance(lengths, int) else lengths
    rows, steps = len(lengths), steps or max(lengths)
    rng = torch.Generator().manual_seed(seed)
    actions = draw(model.action_space, rows, steps, seed=seed + 1)
    assert isinstance(actions, Tensor)
    mask = torch.arange(steps) < torch.tensor(lengths)[:, None]
    is_end = torch.arange(1, steps + 1) == torch.tensor(lengths)[:, None]
    is_odd = (torch.arange(rows) % 2 == 1)[:, None]
    return Batch(
        observations=draw(model.observation_space, rows, steps, seed=seed + 2),
        actions=actions,
        returns_to_go=torch.randn(rows, steps, 1, generator=rng),
        timesteps=torch.arange(steps).expand(rows, -1).masked_fill(~mask, 7),
        mask=mask,
        rewards=torch.randn(rows, steps, generator=rng),
        terminated=is_end & is_odd,
        truncated=is_end & ~is_odd,
    )


def rows_of(batch: Batch, rows: slice | Tensor) -> Batch:
    """The chosen rows of a batch."""
    return batch.take(rows)


def with_padding(batch: Batch, other: Batch) -> Batch:
    """`batch` where it is real, `other` in its padding (and beyond its last step)."""
    steps = batch.num_steps

    def mixed(real: Tensor, junk: Tensor) -> Tensor:
        mask = batch.mask.view(*batch.mask.shape, *[1] * (real.ndim - 2))
        return torch.cat((torch.where(mask, real, junk[:, :steps]), junk[:, steps:]), dim=1)

    def mix(name: str) -> Observations:
        real, junk = getattr(batch, name), getattr(other, name)
        if isinstance(real, dict):
            return {key: mixed(real[key], junk[key]) for key in real}
        return mixed(real, junk)

    left_out = ("mask", "privileged", "following", "initial", "behaviour", "importance")
    names = [field.name for field in fields(Batch) if field.name not in left_out]
    mask = torch.zeros_like(other.mask)
    mask[:, :steps] = batch.mask
    return Batch(**{name: mix(name) for name in names}, mask=mask)
