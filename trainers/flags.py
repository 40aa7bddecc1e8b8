"""Translates the short flags of published training scripts to this project's options.

The commands of the public RATE README run here with only the script's path changed. Each
translated flag is reported once.
"""

from __future__ import annotations

import json

from rate.errors import ConfigError
from rate.messages import did_you_mean
from trainers.flag_table import FLAGS, Flag, Translation

PUBLIC_CONTEXT_LENGTH = 30  # K of the public scripts if only N is given

# The public scripts' names of presets that have another name here.
MODEL_MODES = {"ratem": "rmt", "rate_wo_nmt": "trxl"}
_WHAT = {"ratem": "RATE without cached states", "rate_wo_nmt": "RATE without memory tokens"}
# Per mode, the flags that the public code overrides with 0, and the options that set them here.
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
# Flags that do not indicate a command of the public code.
_COMMON = {
    *("model", "model_mode", "seed", "env", "game", "dataset", "init", "init_missing", "data"),
    *("map", "time_limit", "unfinished", "zero_rewards", "action_range", "keep_actions"),
    *("skip_bad", "format", "source"),
}
ARCH_MODES = {
    "trxl": "trxl",
    "trxl-i": "trxl_i",
    "gtrxl": "gtrxl",
    "pre_norm": "pre_norm",
    "gpt": "gpt",
}
ONE_SEGMENT = "dt"  # prefix of the presets of models that process K * N steps as one segment


def translate(argv: list[str]) -> Translation:
    """Returns a command line with its short flags translated.

    Raises:
        ConfigError: If a flag has no value or an unknown one.
    """
    translation, rest, given = Translation(), list(argv), []
    while rest:
        word = rest.pop(0)
        name, equals, value = word.removeprefix("--").partition("=")
        name = name if name in FLAGS else name.replace("-", "_")  # as in `rate convert`
        if not word.startswith("--") or name not in FLAGS:
            translation.options.append(word)
            continue
        flag = FLAGS[name]
        if not equals:
            value = _take_value(name, flag, rest)
        translation.is_public |= name not in _COMMON
        if name in _NOT_IN_ALL_MODES:  # depends on the mode, which may come later
            translation.options.append("")
            given.append((len(translation.options) - 1, name, value))
        else:
            flag.apply(translation, value)
    _apply_by_mode(translation, given)
    _finish(translation)
    return translation


_NOT_IN_ALL_MODES = {name for flags in WITHOUT.values() for name in flags}


def _apply_by_mode(translation: Translation, given: list[tuple[int, str, str]]) -> None:
    """Translate the flags that some modes ignore, at their positions among the options."""
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
    """Returns the flags that disable the parts of RATE that the model of a preset lacks."""
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
    """Set what depends on several flags: preset, block and window."""
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
    """Translate `--sections` and `--context_length` to K and N; dotted options override them."""
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
    """Returns the name of a value, ignoring case.

    Raises:
        ConfigError: If the value is unknown; the message names the closest match.
    """
    if value.lower() not in names:
        hint = did_you_mean(value.lower(), names, cutoff=0.6)
        raise ConfigError(f"There is no --{flag} {value}.{hint} There are: {', '.join(names)}.")
    return names[value.lower()]


def describe() -> str:
    """Returns the flags as a table for `--help`."""
    width = max(map(len, FLAGS)) + 4
    lines = [f"  {'--' + name:<{width}}{flag.help}" for name, flag in FLAGS.items()]
    return "The field's short flags:\n" + "\n".join(lines)
