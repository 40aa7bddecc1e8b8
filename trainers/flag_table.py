"""The short flags: the options they set, and their lines in `--help`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from datamodules.mujoco_names import read_name
from datamodules.readers.roles import read_map
from rate.errors import ConfigError


@dataclass
class Translation:
    """A command line with its short flags translated to dotted options.

    Attributes:
        preset: Name of the model preset; None if the command line names none.
        options: Arguments for the parser, without short flags.
        notes: Notes for the user on translated flags.
        is_public: Whether there are flags that only the scripts of the public RATE code have.
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
    """Returns a handler that stores the flag for `_finish`, which combines several flags."""
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
    """A short flag: its handler, and its line in `--help`."""

    apply: Callable[[Translation, str], None]
    help: str
    is_switch: bool = False
    words: int = 1


FLAGS: dict[str, Flag] = {
    "model": Flag(_remember("model_mode"), "preset: rate, rmt, trxl, dtxl, dt, dt_relative, ..."),
    "model_mode": Flag(_remember("model_mode"), "the same, as the public scripts have it"),
    "data": Flag(_rename("data.store"), "data.store: a file or folder, or a public data set"),
    "source": Flag(_rename("data.source"), "data.source: offline, online (act while learning)"),
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
