"""The short flags of the field's train scripts, translated into this project's options.

The commands of the public RATE README run here with only the script's path changed. What a flag
became is said once, on the way in.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from datamodules.mujoco_names import read_name
from datamodules.readers.roles import read_map
from rate.errors import ConfigError

PUBLIC_CONTEXT_LENGTH = 30  # K of the public scripts wherever they are given N alone

# What the public scripts call a preset; any other preset goes by its own name.
MODEL_MODES = {"ratem": "rmt", "rate_wo_nmt": "trxl"}
_WHAT = {"ratem": "RATE without cached states", "rate_wo_nmt": "RATE without memory tokens"}
# Flags that the public code sets to 0 in a mode, whatever the command line says, and the options
# that do what they say here.
_TOKENS = dict.fromkeys(("nmt", "num_mem_tokens"), "model.num_memory_tokens")
_CACHE, _VALVE = {"mem_len": "model.cache_length"}, {"n_head_ca": "model.valve"}
_WINDOW = _TOKENS | _CACHE | _VALVE | {"mrv_act": "model.valve_activation"}
WITHOUT = {
    "ratem": _CACHE,
    "rmt": _CACHE | _VALVE,
    "rate_wo_nmt": _TOKENS | _VALVE,
    "trxl": _TOKENS | _VALVE,
    "dtxl": _TOKENS | _VALVE,
    "dt": _WINDOW,
    "dt_relative": _WINDOW,
}
# Flags that anybody writes, and not only who comes from the public code.
_COMMON = {
    *("model", "model_mode", "seed", "env", "game", "dataset", "init", "init_missing", "data"),
    *("map", "time_limit", "unfinished", "zero_rewards", "action_range", "keep_actions"),
    *("skip_bad", "format"),
}
ARCH_MODES = {
    "trxl": "trxl",
    "trxl-i": "trxl_i",
    "gtrxl": "gtrxl",
    "pre_norm": "pre_norm",
    "gpt": "gpt",
}
ONE_SEGMENT = "dt"  # how presets of models begin that see K * N steps as one segment


@dataclass
class Translation:
    """What a command line says, in this project's terms.

    Attributes:
        preset: Name of the model preset, or None where the command line names none.
        options: Arguments for the parser, the short flags replaced.
        notes: What was replaced in a way worth telling.
        is_public: Whether it has flags that the scripts of the public RATE code alone have.
    """

    preset: str | None = None
    options: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    is_public: bool = False
    seen: dict[str, str] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def set(self, option: str, value: object) -> None:
        self.options.append(f"--{option}={value}")


def _rename(option: str) -> Callable[[Translation, str], None]:
    return lambda translation, value: translation.set(option, value)


def _remember(name: str) -> Callable[[Translation, str], None]:
    """Leave a flag for `_finish`, which needs to see several at once."""
    return lambda translation, value: translation.seen.__setitem__(name, value)


def _valve_heads(translation: Translation, value: str) -> None:
    if value == "0":
        translation.set("model.valve", "none")
        return
    translation.set("model.valve", "cross_attention")
    translation.set("model.valve_heads", value)


def _dataset(translation: Translation, value: str) -> None:
    for option, setting in read_name(value).settings.items():
        translation.set(option, setting)


def _map(translation: Translation, value: str) -> None:
    try:
        theirs, ours = read_map(value)
    except ValueError as error:
        raise ConfigError(f"--map: {error}") from None
    translation.columns[theirs] = ours


def _skip_dec_attn(translation: Translation, value: str) -> None:
    translation.set("model.skip_ffn", value)
    translation.notes.append(
        "--skip_dec_attn was never implemented by the public code; read as --skip_dec_ffn, "
        "which its scripts use (--model.skip_ffn true)."
    )


@dataclass(frozen=True)
class Flag:
    """A short flag: what it does to the translation, and its line in `--help`."""

    apply: Callable[[Translation, str], None]
    help: str
    is_switch: bool = False
    words: int = 1


FLAGS: dict[str, Flag] = {
    "model": Flag(_remember("model_mode"), "preset: rate, rmt, trxl, dtxl, dt, dt_relative, ..."),
    "model_mode": Flag(_remember("model_mode"), "the same, as the public scripts have it"),
    "data": Flag(_rename("data.store"), "data.store: a file or folder, or a public data set"),
    "map": Flag(_map, "data.reading.columns: THEIRS=OURS, which column is what; may be repeated"),
    "time_limit": Flag(_rename("data.reading.time_limit"), "data.reading.time_limit, in steps"),
    "unfinished": Flag(_rename("data.reading.unfinished"), "data.reading.unfinished: keep, drop"),
    "zero_rewards": Flag(
        _rename("data.reading.zero_rewards"), "data.reading.zero_rewards true", is_switch=True
    ),
    "action_range": Flag(
        _rename("data.reading.action_range"), "data.reading.action_range: LOW HIGH", words=2
    ),
    "keep_actions": Flag(
        _rename("data.reading.keep_actions"), "data.reading.keep_actions true", is_switch=True
    ),
    "skip_bad": Flag(
        _rename("data.reading.skip_bad"), "data.reading.skip_bad true", is_switch=True
    ),
    "format": Flag(
        _rename("data.reading.format"), "data.reading.format: where it is not to be recognised"
    ),
    "arch_mode": Flag(_remember("arch_mode"), "model.block: TrXL, TrXL-I, GTrXL, pre_norm"),
    "nmt": Flag(_rename("model.num_memory_tokens"), "model.num_memory_tokens"),
    "num_mem_tokens": Flag(_rename("model.num_memory_tokens"), "the same, in older scripts"),
    "mem_len": Flag(_rename("model.cache_length"), "model.cache_length"),
    "n_head_ca": Flag(_valve_heads, "model.valve_heads of a cross-attention valve; 0: no valve"),
    "mrv_act": Flag(
        lambda t, v: t.set("model.valve_activation", "none" if v == "no_act" else v),
        "model.valve_activation; no_act: none",
    ),
    "skip_dec_ffn": Flag(_rename("model.skip_ffn"), "model.skip_ffn true", is_switch=True),
    "skip_dec_attn": Flag(_skip_dec_attn, "the same, as older commands have it", is_switch=True),
    "game": Flag(_rename("env.game"), "env.game of atari: Breakout, Qbert, Seaquest, Pong, ..."),
    "env": Flag(_rename("env.task"), "env.task: the task, where an environment has many"),
    "dataset": Flag(_dataset, "data.dataset of mujoco, and its task: hopper-medium-v2"),
    "env_id": Flag(_dataset, "the same, by its number in the public MuJoCo script: 0 to 11"),
    "max_n_final": Flag(_remember("sections"), "training.segments; K is 30 unless given"),
    "number_of_segments": Flag(_remember("sections"), "training.segments; K is 30 unless given"),
    "segment_length": Flag(_remember("context_length"), "model.context_length (K)"),
    "sections": Flag(_remember("sections"), "training.segments; K is 30 unless given"),
    "context_length": Flag(_remember("context_length"), "model.context_length (K)"),
    "curr": Flag(_rename("curriculum.enabled"), "curriculum.enabled"),
    "seed": Flag(_rename("training.seed"), "training.seed"),
    "init": Flag(_rename("training.init"), "training.init: a run or weights to begin with"),
    "init_missing": Flag(_rename("training.init_missing"), "training.init_missing: refuse, fresh"),
    "ckpt_folder": Flag(_rename("logging.name"), "logging.name: the run's folder is ENV-NAME-SEED"),
    "text": Flag(_rename("logging.comment"), "logging.comment"),
    "n_layer": Flag(_rename("model.num_layers"), "model.num_layers"),
    "n_head": Flag(_rename("model.num_heads"), "model.num_heads"),
    "d_model": Flag(_rename("model.d_model"), "model.d_model"),
    "d_head": Flag(_rename("model.d_head"), "model.d_head"),
    "d_inner": Flag(_rename("model.d_ff"), "model.d_ff"),
}


def translate(argv: list[str]) -> Translation:
    """Replace the short flags of a command line.

    Raises:
        ConfigError: If a flag has no value, or one it does not know.
    """
    translation, rest, given = Translation(), list(argv), []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name if name in FLAGS else name.replace("-", "_")  # of dashes, as `rate convert` has
        if not word.startswith("--") or name not in FLAGS:
            translation.options.append(word)
            continue
        flag = FLAGS[name]
        if not equals:
            value = _take_value(name, flag, rest)
        translation.is_public |= name not in _COMMON
        if name in _NOT_IN_ALL_MODES:  # the mode, which may come later, has to be known
            translation.options.append("")
            given.append((len(translation.options) - 1, name, value))
        else:
            flag.apply(translation, value)
    _apply_by_mode(translation, given)
    _finish(translation)
    return translation


_NOT_IN_ALL_MODES = {name for flags in WITHOUT.values() for name in flags}


def _apply_by_mode(translation: Translation, given: list[tuple[int, str, str]]) -> None:
    """Read flags that do nothing in some modes, each in its place among the options."""
    mode = translation.seen.get("model_mode", "rate")
    without = WITHOUT.get(mode.lower().removesuffix("_published"), {})
    for place, name, value in reversed(given):
        one = Translation()
        if name not in without or (value == "0" and without is not _WINDOW):
            FLAGS[name].apply(one, value)
        elif without is _WINDOW:
            if value != "0":
                translation.notes.append(
                    f"--{name} {value} is left out: a model of mode {mode} has no memory."
                )
        else:
            translation.notes.append(
                f"--{name} {value} is left out: in mode {mode} the public code has none, whatever "
                f"is given. To have it here: --{without[name]}."
            )
        translation.options[place : place + 1] = one.options


def without_parts(preset: str) -> list[str]:
    """The words of a command line that leave out of RATE what a model of another mode has not."""
    names = [name for name in WITHOUT.get(preset, {}) if name != "num_mem_tokens"]
    return [word for name in names for word in (f"--{name}", "0")]


def _take_value(name: str, flag: Flag, rest: list[str]) -> str:
    has_value = bool(rest) and not rest[0].startswith("--")
    if flag.is_switch and not (has_value and rest[0].lower() in ("true", "false")):
        return "true"
    if not has_value:
        raise ConfigError(f"--{name} needs a value ({flag.help}).")
    given = [rest.pop(0) for _ in range(flag.words) if rest and not rest[0].startswith("--")]
    return " ".join(given)


def _finish(translation: Translation) -> None:
    """Settle what depends on several flags: preset, block and the shape of a window."""
    seen = translation.seen
    if "model_mode" in seen:
        mode = seen["model_mode"].lower()
        translation.preset = MODEL_MODES.get(mode, mode)
        if mode in MODEL_MODES:
            translation.notes.append(
                f"--model_mode {seen['model_mode']} is {_WHAT[mode]}: here the preset "
                f"{translation.preset}."
            )
    if "arch_mode" in seen:
        block = _known("arch_mode", seen["arch_mode"], ARCH_MODES)
        translation.set("model.block", block)
        if translation.preset == "dt" and block != "gpt":
            translation.preset = "dt_relative"
            translation.notes.append(
                f"--model_mode DT with --arch_mode {seen['arch_mode']} is the public code's DT, "
                "here the preset dt_relative; without --arch_mode it is Chen et al.'s (dt)."
            )
    if translation.columns:
        translation.set("data.reading.columns", json.dumps(translation.columns))
    _set_window(translation)


def _set_window(translation: Translation) -> None:
    """Turn `--sections` and `--context_length` into K and N. Dotted options go before them."""
    sections = _whole_number(translation.seen, "sections")
    context = _whole_number(translation.seen, "context_length")
    if sections is None and context is None:
        return
    given = {option.partition("=")[0] for option in translation.options}
    if context is None and "--model.context_length" not in given:
        context = PUBLIC_CONTEXT_LENGTH
        translation.notes.append(f"K is {context}, as in the public scripts (--context_length).")
    window: list[str] = []
    if (translation.preset or "").startswith(ONE_SEGMENT):
        if context is not None:
            window.append(f"--model.context_length={context * (sections or 1)}")
    else:
        if context is not None:
            window.append(f"--model.context_length={context}")
        if sections is not None:
            window.append(f"--training.segments={sections}")
    translation.options = window + translation.options


def _whole_number(seen: dict[str, str], name: str) -> int | None:
    if name not in seen:
        return None
    if not seen[name].isdecimal() or int(seen[name]) < 1:
        flag = "--sections (--max_n_final)" if name == "sections" else f"--{name}"
        raise ConfigError(f"{flag} is '{seen[name]}'; it must be a whole number of at least 1.")
    return int(seen[name])


def _known(flag: str, value: str, names: dict[str, str]) -> str:
    """The name that a value stands for, in whatever case it is written."""
    if value.lower() not in names:
        close = difflib.get_close_matches(value.lower(), names, n=1)
        hint = f" Did you mean {close[0]}?" if close else ""
        raise ConfigError(f"There is no --{flag} {value}.{hint} There are: {', '.join(names)}.")
    return names[value.lower()]


def describe() -> str:
    """The flags as a table for `--help`."""
    width = max(map(len, FLAGS)) + 4
    lines = [f"  {'--' + name:<{width}}{flag.help}" for name, flag in FLAGS.items()]
    return "The field's short flags:\n" + "\n".join(lines)
