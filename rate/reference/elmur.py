"""Models of the public ELMUR implementation, loaded into our own backbone.

Encoders and head are those of the public RATE on T-Maze; the layers between them are
`rate.backbones.elmur`, which has the public code's equations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from rate.backbones.elmur import ELMUR
from rate.backbones.settings import ELMURConfig
from rate.errors import ConfigError
from rate.reference import inputs
from rate.reference.config import ReferenceConfig, check_names
from rate.reference.encoders import Interface, Shapes, encode
from rate.reference.model import embed
from rate.reference.weights import checked_weights
from rate.tokenizers import StepTokens

# Of a step's tokens: how many, and at which one the action is read.
FORMATS = {"s": StepTokens(1, 0), "sra": StepTokens(3, 1)}

# Arguments without effect on outputs where dropout is off and the initial memory is given.
_WITHOUT_EFFECT = frozenset({
    *("dropout", "dropatt", "memory_dropout", "memory_init_std", "detach_memory"),
    *("label_smoothing", "train_stride", "expert_dropout", "load_balancing_loss_coef"),
    *("num_experts", "top_k", "n_shared_experts", "shared_d_ff", "routed_d_ff"),
    *("use_shared_expert", "dtype"),
})  # fmt: skip
# Arguments of which one value is known.
_KNOWN: dict[str, tuple[Any, ...]] = {
    "pos_type": ("relative",),
    "use_moe": (False,),
    "use_swiglu": (True,),
    "use_shared_memory": (False,),
    "use_relative_bias": (True,),
    "use_tok2mem": (True,),
    "use_mem2tok": (True,),
    "use_causal_self_attn_mask": (True,),
    "norm_type": ("layer", "layernorm", "layer_norm", "LayerNorm", None),
}
_NEEDED = (
    *("env_name", "act_dim", "d_model", "d_ff", "n_layer", "n_head", "memory_size"),
    *("max_seq_len", "sequence_format"),
)
_OPTIONAL = ("state_dim", "padding_idx", "pre_lnorm", "use_lru", "lru_blend_alpha")


@dataclass(frozen=True)
class ElmurModel:
    """A model of the public ELMUR implementation.

    Attributes:
        interface: Its encoders and its head, with their weights.
        backbone: Its layers, in evaluation mode.
        sequence_format: What a step is: `s`, the observation, or `sra`, the triples.
    """

    interface: Interface
    backbone: ELMUR
    sequence_format: str


@dataclass(frozen=True)
class ElmurSegment:
    """The outputs of a segment and the state after it.

    Attributes:
        logits: `(B, K, A)`.
        memory: `(B, M, d)` of every layer.
        position: `(B, M)` int64 of every layer, when its slots were last written; -1 is never.
    """

    logits: Tensor
    memory: list[Tensor]
    position: list[Tensor]


def load_elmur(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ElmurModel:
    """Loads a model of the public ELMUR implementation.

    Args:
        config: The public constructor's arguments, by their public names.
        weights: The public state dict, by its own names (a common prefix `weights.` or `module.`
            is dropped).

    Returns:
        The model, in float32, or in float64 if a weight is.

    Raises:
        ValueError: An argument is unknown or has a value that is not supported; or weights are
            missing, unexpected or of a wrong shape. The message names each.
    """
    _check_arguments(config)
    interface = ReferenceConfig(
        env_name=config["env_name"],
        act_dim=config["act_dim"],
        n_layer=config["n_layer"],
        n_head=config["n_head"],
        d_model=config["d_model"],
        d_head=config["d_model"] // config["n_head"],
        mem_len=0,
        num_mem_tokens=0,
        n_head_ca=0,
        state_dim=config.get("state_dim"),
        padding_idx=config.get("padding_idx"),
        mem_at_end=False,
    )
    backbone = _backbone(config)
    names = _names(config["n_layer"])
    state = backbone.state_dict()
    shapes: Shapes = {public: tuple(state[own].shape) for public, own in names.items()}
    shapes["pos_emb.inv_freq"] = (config["d_model"] // 2,)
    used, encoders = checked_weights(interface, weights, shapes)
    own = {name: used[public] for public, name in names.items()}
    backbone.to(used["pos_emb.inv_freq"].dtype).load_state_dict(own, strict=False)
    outer = {name: used[name] for name in encoders.shapes}
    return ElmurModel(
        Interface(interface, encoders, outer), backbone.eval(), config["sequence_format"]
    )


@torch.no_grad()
def run_elmur(
    model: ElmurModel,
    observations: Tensor,
    actions: Tensor,
    returns_to_go: Tensor,
    context_length: int,
    initial_memory: Sequence[Tensor],
) -> list[ElmurSegment]:
    """Runs a batch of trajectories segment by segment, carrying memory.

    Args:
        model: From `load_elmur`.
        observations: As `rate.reference.run_segments` takes them.
        actions: The same; a model of observations alone does not look at them.
        returns_to_go: `(B, T, 1)`.
        context_length: Steps K of a segment. If it does not divide T, the last is shorter.
        initial_memory: `(B, M, d)` of every layer; all slots count as never written.

    Returns:
        One result per segment.

    Raises:
        ValueError: A shape or a value does not fit the model; the message says which.
    """
    interface, backbone = model.interface, model.backbone
    steps = inputs.check(interface, observations, actions, returns_to_go, context_length)
    rows = steps.returns_to_go.shape[0]
    state = backbone.initial_state(rows)
    _check_memory(initial_memory, [tuple(memory.shape) for memory in state.memory])
    memory = tuple(each.to(interface.device, interface.dtype) for each in initial_memory)
    state = replace(state, memory=memory)
    results = []
    for start in range(0, steps.returns_to_go.shape[1], context_length):
        tokens = _tokens(model, steps.part(start, start + context_length))  # (B, K, n, d)
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
        features, state = backbone(tokens, mask, state)
        logits = encode(interface.encoders.head, interface.weights, features)
        results.append(ElmurSegment(logits, list(state.memory), list(state.position)))
    return results


def _tokens(model: ElmurModel, steps: inputs.Steps) -> Tensor:
    interface = model.interface
    if model.sequence_format == "sra":
        return embed(interface, steps)
    tokens = encode(interface.encoders.observations, interface.weights, steps.observations)
    return tokens[:, :, None]  # (B, K, 1, d)


def _backbone(config: Mapping[str, Any]) -> ELMUR:
    try:
        settings = ELMURConfig(
            d_model=config["d_model"],
            num_layers=config["n_layer"],
            num_heads=config["n_head"],
            d_ff=config["d_ff"],
            pre_norm=config.get("pre_lnorm", False),
            memory_slots=config["memory_size"],
            use_lru=config.get("use_lru", True),
            lru_blend=config.get("lru_blend_alpha", 0.999),
            max_distance=config["max_seq_len"],
        )
    except ConfigError as error:
        raise ValueError(f"The ELMUR config is not supported: {error}") from error
    return ELMUR(settings, FORMATS[config["sequence_format"]])


def _check_arguments(config: Mapping[str, Any]) -> None:
    check_names(config, _NEEDED, {*_NEEDED, *_OPTIONAL, *_WITHOUT_EFFECT, *_KNOWN})
    for name, values in {**_KNOWN, "sequence_format": tuple(FORMATS)}.items():
        if name in config and config[name] not in values:
            words = ", ".join(map(repr, values))
            raise ValueError(f"{name}={config[name]!r} is not supported. Supported: {words}")


def _names(layers: int) -> dict[str, str]:
    """Our name of every public weight of the layers."""
    names = {"r_w_bias": "content_bias", "r_r_bias": "position_bias"}
    parts = {
        "self_attention.qkv_net.weight": "attention.qkv.weight",
        "self_attention.r_net.weight": "attention.position.weight",
        "self_attention.o_net.weight": "attention.out.weight",
        "cross_rel_bias.bias.weight": "distance.weight",
    }
    for public, own in (("cross_attention1", "read"), ("cross_attention2", "write")):
        for short, long in (("q", "query"), ("k", "key"), ("v", "value"), ("o", "out")):
            parts[f"{public}.w_{short}.weight"] = f"{own}.{long}.weight"
        parts[f"{public}.w_o.bias"] = f"{own}.out.bias"
    for track in ("token", "memory"):
        for part in ("gate", "up", "down"):
            name = f"{track}_feed_forward.{part}.weight"
            parts[f"{track}_ffn.core_net.{part}_proj.weight"] = name
    norms = {
        "self_attention.layer_norm": "attention",
        "token_norm_cross": "read",
        "memory_norm_cross": "write",
        "token_ffn.layer_norm": "token_feed_forward",
        "memory_ffn.layer_norm": "memory_feed_forward",
    }
    for public, own in norms.items():
        for kind in ("weight", "bias"):
            parts[f"{public}.{kind}"] = f"norms.{own}.{kind}"
    for layer in range(layers):
        names |= {f"layers.{layer}.{a}": f"layers.{layer}.{b}" for a, b in parts.items()}
    return names


def _check_memory(given: Sequence[Tensor], expected: list[tuple[int, ...]]) -> None:
    shapes = [tuple(memory.shape) for memory in given]
    if shapes != expected:
        raise ValueError(
            f"initial_memory has the shapes {shapes}, expected one (B, M, d) of every layer: "
            f"{expected}"
        )
