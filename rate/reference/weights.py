"""The public state dict: the names and shapes of its weights."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from rate.messages import first_of
from rate.reference.config import ReferenceConfig
from rate.reference.encoders import Encoders, Shapes, find_encoders

# Prefixes that a fixture file or a data-parallel wrapper puts before every name.
_WRAPPERS = ("weights.", "module.")
# The criterion of the language model that the public class is derived from: used by a loss alone.
_CRITERION = "crit."
_MOST_NAMED = 12


def _strip_wrapper(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same weights without a prefix that all names share (`weights.` or `module.`)."""
    plain = dict(weights)
    for wrapper in _WRAPPERS:
        if plain and all(str(name).startswith(wrapper) for name in plain):
            plain = {name[len(wrapper) :]: tensor for name, tensor in plain.items()}
    return plain


def checked_weights(
    config: ReferenceConfig,
    weights: Mapping[str, Tensor],
    backbone: Shapes,
    unused: Shapes | None = None,
) -> tuple[dict[str, Tensor], Encoders]:
    """The weights that a forward pass uses, in one floating dtype, and the encoders among them.

    Args:
        config: The parsed constructor arguments.
        weights: The public state dict.
        backbone: Names and shapes of the weights between the encoders and the head.
        unused: Those of weights that may be there and have no effect.

    Returns:
        Name to tensor, copied, float32 or (if any weight is) float64; and the encoders found.

    Raises:
        ValueError: Weights are missing, unexpected, of a wrong shape, or not floating-point
            tensors. The message names each of them.
    """
    plain = _strip_wrapper(weights)
    check_floating(plain)
    encoders = find_encoders(config, plain)
    used = {**encoders.shapes, **backbone}
    check_shapes(plain, used, unused or {})
    dtype = reduce(torch.promote_types, (plain[name].dtype for name in used), torch.float32)
    return {name: plain[name].detach().to(dtype, copy=True) for name in used}, encoders


def check_floating(weights: Mapping[str, Tensor]) -> None:
    """Raise a `ValueError` for a weight that is no floating-point tensor."""
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"Weight {name!r} is a {type(value).__name__}, not a tensor")
        if not value.is_floating_point():
            raise ValueError(f"Weight {name!r} is {value.dtype}, not a floating-point tensor")


def check_shapes(weights: Mapping[str, Tensor], used: Shapes, unused: Shapes) -> None:
    """Raise a `ValueError` unless weights are those that are used, and perhaps some that are not.

    Args:
        weights: By their public names.
        used: The names and shapes of weights that must be there.
        unused: Those of weights that may be.
    """
    expected = {**unused, **used}
    missing = [name for name in used if name not in weights]
    unexpected = sorted(
        name for name in weights if name not in expected and not name.startswith(_CRITERION)
    )
    shapes = {name: tuple(tensor.shape) for name, tensor in weights.items() if name in expected}
    misshaped = [
        f"{name} is {shape}, expected {_spell(expected[name])}"
        for name, shape in shapes.items()
        if not _fits(shape, expected[name])
    ]
    problems = [
        f"{title}: {first_of(names, _MOST_NAMED)}"
        for title, names in (
            ("wrong shape", misshaped),
            ("missing", missing),
            ("unexpected", unexpected),
        )
        if names
    ]
    if problems:
        raise ValueError(
            f"The weights are not those of the model that the config describes. "
            f"{'. '.join(problems)}. Check that config and weights come from the same run"
        )


def _fits(shape: tuple[int, ...], expected: tuple[int | None, ...]) -> bool:
    return len(shape) == len(expected) and all(
        want in (None, size) for size, want in zip(shape, expected, strict=True)
    )


def _spell(shape: tuple[int | None, ...]) -> str:
    return f"({', '.join('any' if size is None else str(size) for size in shape)})"


def backbone_shapes(config: ReferenceConfig) -> Shapes:
    """The weights between the encoders and the head of the public RATE, and their shapes."""
    shapes: Shapes = {"pos_emb.inv_freq": (config.d_model // 2,)}
    shapes["r_w_bias"] = shapes["r_r_bias"] = (config.n_head, config.d_head)
    for index in range(config.n_layer):
        shapes.update(_block_shapes(config, f"layers.{index}"))
    if config.num_mem_tokens:
        shapes["mem_tokens"] = (config.num_mem_tokens, 1, config.d_model)
    if config.has_valve:
        shapes.update(_valve_shapes(config.d_model))
    return shapes


def _block_shapes(config: ReferenceConfig, block: str) -> Shapes:
    width, inner = config.d_model, config.n_head * config.d_head
    shapes: Shapes = {
        f"{block}.dec_attn.qkv_net.weight": (3 * inner, width),
        f"{block}.dec_attn.r_net.weight": (inner, width),
        f"{block}.dec_attn.o_net.weight": (width, inner),
        **_norm_shapes(f"{block}.layer_norm1", width),
    }
    if not config.skip_dec_ffn:
        shapes[f"{block}.pos_ff.CoreNet.0.weight"] = (config.d_inner, width)
        shapes[f"{block}.pos_ff.CoreNet.0.bias"] = (config.d_inner,)
        shapes[f"{block}.pos_ff.CoreNet.3.weight"] = (width, config.d_inner)
        shapes[f"{block}.pos_ff.CoreNet.3.bias"] = (width,)
        shapes.update(_norm_shapes(f"{block}.layer_norm2", width))
    if config.use_gate:
        for gate in ("gate_mha", "gate_mlp"):
            for matrix in ("Wr", "Ur", "Wz", "Uz", "Wg", "Ug"):
                shapes[f"{block}.{gate}.{matrix}.weight"] = (width, width)
            shapes[f"{block}.{gate}.bg"] = (width,)
    return shapes


def _valve_shapes(width: int) -> Shapes:
    shapes: Shapes = {}
    for layer in ("wq", "wk", "wv", "dense"):
        shapes[f"mha_mem_to_mem.{layer}.weight"] = (width, width)
        shapes[f"mha_mem_to_mem.{layer}.bias"] = (width,)
    return shapes


def _norm_shapes(norm: str, width: int) -> Shapes:
    return {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}


def unused_shapes(config: ReferenceConfig) -> Shapes:
    """Parameters of a public state dict that no prediction depends on, and their shapes.

    There is a table of absolute timesteps that is never looked up, a norm of the input that is
    never applied, and in each attention and feed-forward part a norm that its block replaces.
    """
    width = config.d_model
    shapes: Shapes = {"embed_timestep.weight": (None, width), **_norm_shapes("embed_ln", width)}
    for index in range(config.n_layer):
        shapes.update(_norm_shapes(f"layers.{index}.dec_attn.layer_norm", width))
        if not config.skip_dec_ffn:
            shapes.update(_norm_shapes(f"layers.{index}.pos_ff.layer_norm", width))
    if config.n_head_ca and not config.has_valve:
        shapes.update(_valve_shapes(width))
    return shapes
