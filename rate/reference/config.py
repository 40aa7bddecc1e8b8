"""The arguments of the public constructors: parsed and checked.

There are two. The main one takes `env_name`, `state_dim` and `act_dim`. That of the Atari and
MuJoCo folders, an older copy of the same model, takes `mode`, `STATE_DIM`, `ACTION_DIM`, `n_token`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from typing import Any

from rate.reference.environments import convention_for

VALVES = ("relu", "leaky_relu", "tanh", "no_act")

# What the constructor of the Atari and MuJoCo folders calls differently.
_FOLDER_NAMES = {"mode": "env_name", "STATE_DIM": "state_dim", "ACTION_DIM": "act_dim"}
_FOLDER_MODES = ("atari", "mujoco")

# Arguments without effect on outputs where dropout is off. `tie_weight` shares weights of a
# criterion (`crit.*`), which is used by the loss alone.
_WITHOUT_EFFECT = frozenset({"dropout", "dropatt", "tgt_len", "max_ep_len", "tie_weight"})

# What the public class keeps from the language model it grew out of. Each is inert at this value.
_INHERITED: dict[str, Any] = {
    "div_val": 1,
    "tie_projs": [False],
    "cutoffs": [],
    "adapt_inp": False,
    "sample_softmax": -1,
    "attn_type": 0,
}


@dataclass(frozen=True)
class ReferenceConfig:
    """The arguments of a public constructor that outputs depend on, under the main one's names.

    Attributes:
        env_name: Decides the encoders and the head, see `environments`.
        act_dim: Number of action classes, or the width of a real action.
        n_layer: Number of blocks.
        n_head: Heads of a block's attention.
        d_model: Hidden width d.
        d_head: Width of one head, independent of `d_model`.
        d_inner: Inner width of the feed-forward part; unused with `skip_dec_ffn`.
        mem_len: Most hidden states kept per level from one segment to the next; 0 is no cache.
        num_mem_tokens: Number m of memory tokens; 0 is none.
        n_head_ca: Heads of the memory retention valve; 0 is no valve.
        mrv_act: Activation before the valve.
        state_dim: Width of a vector observation; not used for images and tokens.
        mem_at_end: Memory tokens also close the segment, where they are written.
        padding_idx: Action that marks a padded step. It selects the embedding's row behind those
            of the classes.
        skip_dec_ffn: Blocks have no feed-forward part.
        use_stable_version: The TrXL-I block.
        use_gate: With `use_stable_version`, the GTrXL block.
        same_length: Every query attends to equally many keys.
        clamp_len: Greatest distance that the position embedding tells apart, if positive.
        read_mem_from_cache: Memory tokens attend to the cache.
        pre_lnorm: Supported is False.
        ext_len: Supported is 0.
        n_token: In the Atari folder, the size of a vocabulary that actions may be counted in
            instead of `act_dim`; None elsewhere.
    """

    env_name: str
    act_dim: int
    n_layer: int
    n_head: int
    d_model: int
    d_head: int
    mem_len: int
    num_mem_tokens: int
    n_head_ca: int
    mrv_act: str | None = None
    d_inner: int | None = None
    state_dim: int | None = None
    mem_at_end: bool = True
    padding_idx: int | None = None
    skip_dec_ffn: bool = False
    use_stable_version: bool = False
    use_gate: bool = False
    same_length: bool = False
    clamp_len: int = -1
    read_mem_from_cache: bool = False
    pre_lnorm: bool = False
    ext_len: int | None = 0
    n_token: int | None = None

    @property
    def has_valve(self) -> bool:
        """Whether a memory retention valve stands between two segments."""
        return self.n_head_ca > 0 and self.num_mem_tokens > 0

    @property
    def has_suffix(self) -> bool:
        """Whether the memory tokens also close the segment."""
        return self.mem_at_end and self.num_mem_tokens > 0

    @property
    def writes_last_rows(self) -> bool:
        """Whether the last m outputs are the write outputs: a valve always takes these."""
        return self.has_suffix or self.has_valve

    @classmethod
    def parse(cls, config: Mapping[str, Any]) -> ReferenceConfig:
        """Read a public constructor's arguments.

        Args:
            config: Argument name to value, as one of the two public constructors takes them.

        Raises:
            ValueError: An argument is unknown, missing, of a wrong type, or has a value whose
                effect in the public code is an error or is not known. The message names it.
        """
        if not config.keys().isdisjoint({*_FOLDER_NAMES, "n_token"}):
            config = _from_folder(config)
        known = {field.name for field in fields(cls)}
        needed = [field.name for field in fields(cls) if field.default is MISSING]
        known |= _WITHOUT_EFFECT | _INHERITED.keys() | {"d_embed"}
        check_names(config, needed, known)
        _refuse_inherited(config)
        given = {field.name: config[field.name] for field in fields(cls) if field.name in config}
        for field in fields(cls):
            if field.name in given:
                _check_type(field.name, given[field.name], str(field.type))
        parsed = cls(**given)
        _check_ranges(parsed)
        _check_combinations(parsed)
        convention_for(parsed.env_name)
        return parsed


def _from_folder(config: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of the Atari and MuJoCo folders' constructor under the main one's names."""
    mixed = [name for name in _FOLDER_NAMES.values() if name in config]
    if mixed:
        raise ValueError(
            f"{', '.join(mixed)}: not together with {', '.join((*_FOLDER_NAMES, 'n_token'))}. Two "
            "public constructors are mixed; give the arguments of the one that made the weights"
        )
    missing = [name for name in _FOLDER_NAMES if name not in config]
    if missing:
        raise ValueError(f"The reference config lacks {', '.join(missing)}")
    if config["mode"] not in _FOLDER_MODES:
        raise ValueError(
            f"mode={config['mode']!r} is not supported. Supported: {', '.join(_FOLDER_MODES)}"
        )
    for name in ("STATE_DIM", "ACTION_DIM"):
        _check_type(name, config[name], "int")
        _check_least(name, config[name], 1)
    if config.get("num_mem_tokens") and not config.get("mem_at_end", True):
        raise ValueError(
            "mem_at_end=False is not supported with memory tokens in a model of the Atari and "
            "MuJoCo folders: where that older copy writes its memory then is not known"
        )
    renamed = {_FOLDER_NAMES.get(name, name): value for name, value in config.items()}
    if config["mode"] == "mujoco":  # its actions are real vectors, so there is no vocabulary
        renamed.pop("n_token", None)
    return renamed


def check_names(config: Mapping[str, Any], needed: Iterable[str], known: Collection[str]) -> None:
    """Raises a `ValueError` for arguments that are not known, or needed and missing."""
    unknown = []
    for name in sorted(config.keys() - set(known)):
        near = get_close_matches(name, sorted(known), n=1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        unknown.append(f"{name}={config[name]!r}{hint}")
    if unknown:
        raise ValueError(
            f"Not arguments of a public constructor: {'; '.join(unknown)}. "
            f"Supported: {', '.join(sorted(known))}"
        )
    if missing := [name for name in needed if name not in config]:
        raise ValueError(f"The reference config lacks {', '.join(missing)}")


def _refuse_inherited(config: Mapping[str, Any]) -> None:
    for name, inert in _INHERITED.items():
        value = config.get(name, inert)
        if (list(value) if isinstance(value, (list, tuple)) else value) != inert:
            raise ValueError(f"{name}={value!r} is not supported: only {inert!r} is")
    width = config.get("d_embed")
    if width is not None and width != config.get("d_model"):
        raise ValueError(f"d_embed={width!r} is not supported: only None or d_model is")


def _check_type(name: str, value: object, annotation: str) -> None:
    expected, _, optional = annotation.partition(" | ")
    if value is None and optional:
        return
    kinds = {"str": str, "int": int, "bool": bool}
    is_wrong_bool = isinstance(value, bool) != (expected == "bool")
    if is_wrong_bool or not isinstance(value, kinds[expected]):
        raise ValueError(f"{name}={value!r} is not supported: it must be of type {annotation}")


def _check_ranges(config: ReferenceConfig) -> None:
    for name in ("act_dim", "n_layer", "n_head", "d_model", "d_head"):
        _check_least(name, getattr(config, name), 1)
    for name in ("mem_len", "num_mem_tokens", "n_head_ca"):
        _check_least(name, getattr(config, name), 0)
    for name in ("d_inner", "state_dim", "n_token"):
        if getattr(config, name) is not None:
            _check_least(name, getattr(config, name), 1)
    if config.d_model % 2:
        raise ValueError(
            f"d_model={config.d_model} is not supported: the position embedding is half sines, "
            "half cosines, so the width must be even"
        )
    if config.has_valve and config.d_model % config.n_head_ca:
        raise ValueError(
            f"n_head_ca={config.n_head_ca} is not supported: it must divide d_model="
            f"{config.d_model}"
        )


def _check_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ValueError(f"{name}={value} is not supported: it must be at least {least}")


def _check_combinations(config: ReferenceConfig) -> None:
    valves = ", ".join(VALVES)
    if config.mrv_act == "elu":
        raise ValueError(
            "mrv_act='elu' is not supported: the public code fails on it with an AttributeError, "
            f"so no model of it exists. Supported: {valves}"
        )
    if config.mrv_act not in VALVES and (config.mrv_act is not None or config.has_valve):
        raise ValueError(f"mrv_act={config.mrv_act!r} is not supported. Supported: {valves}")
    stable, gate = config.use_stable_version, config.use_gate
    bans = {
        "pre_lnorm=True is not supported: no published recipe sets it, and what the public "
        "feed-forward part does with it is not documented. Supported: False": config.pre_lnorm,
        f"ext_len={config.ext_len} is not supported: no published recipe keeps an extended "
        "context. Supported: 0": bool(config.ext_len),
        "use_gate=True is not supported without use_stable_version=True: the gates belong to the "
        "GTrXL block, which sets both": gate and not stable,
        "skip_dec_ffn=True is not supported with use_stable_version=True: the public code fails "
        "there (its block has no layer_norm2)": config.skip_dec_ffn and stable,
        f"same_length=True is not supported with num_mem_tokens={config.num_mem_tokens}: the mask "
        "around memory rows is not known for it. Supported: num_mem_tokens=0": config.same_length
        and config.num_mem_tokens > 0,
        "same_length=True is not supported with mem_len=0: every key would be blocked": (
            config.same_length and config.mem_len == 0
        ),
        "mem_at_end=True is not supported with num_mem_tokens=0: the public trainers set it False "
        "there, and its mask without rows to mark is not known. Supported: mem_at_end=False": (
            config.mem_at_end and config.num_mem_tokens == 0
        ),
        f"padding_idx={config.padding_idx} is not supported: it would hide one of the act_dim="
        f"{config.act_dim} actions. Supported: None or a negative number": (
            config.padding_idx is not None and 0 <= config.padding_idx < config.act_dim
        ),
        "d_inner=None is not supported: a block with a feed-forward part needs its width": (
            config.d_inner is None and not config.skip_dec_ffn
        ),
    }
    for message, banned in bans.items():
        if banned:
            raise ValueError(message)
