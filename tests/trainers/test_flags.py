"""The short flags of public code become options, with a note where the meaning differs."""

from __future__ import annotations

from pathlib import Path

import pytest

from rate.errors import ConfigError
from trainers.flag_table import FLAGS
from trainers.flags import ARCH_MODES, MODEL_MODES, describe, translate

ONE_TO_ONE = [
    ("source", "online", "data.source=online"),
    ("nmt", "7", "model.num_memory_tokens=7"),
    ("num_mem_tokens", "7", "model.num_memory_tokens=7"),
    ("mem_len", "270", "model.cache_length=270"),
    ("mrv_act", "relu", "model.valve_activation=relu"),
    ("mrv_act", "no_act", "model.valve_activation=none"),
    ("skip_dec_ffn", "true", "model.skip_ffn=true"),
    ("skip_dec_attn", "false", "model.skip_ffn=false"),
    ("curr", "false", "curriculum.enabled=false"),
    ("seed", "3", "training.seed=3"),
    ("ckpt_folder", "RATE_max_3", "logging.name=RATE_max_3"),
    ("text", "two words", "logging.comment=two words"),
    ("n_layer", "6", "model.num_layers=6"),
    ("n_head", "8", "model.num_heads=8"),
    ("d_model", "128", "model.d_model=128"),
    ("d_head", "16", "model.d_head=16"),
    ("d_inner", "256", "model.d_ff=256"),
    ("arch_mode", "GTrXL", "model.block=gtrxl"),
    ("context_length", "10", "model.context_length=10"),
    ("segment_length", "10", "model.context_length=10"),
    ("game", "Pong", "env.game=Pong"),
    ("env", "AutoencodeEasy", "env.task=AutoencodeEasy"),
    ("init", "runs/x", "training.init=runs/x"),
    ("init_missing", "fresh", "training.init_missing=fresh"),
    ("data", "my.npz", "data.store=my.npz"),
    ("time_limit", "100", "data.reading.time_limit=100"),
    ("unfinished", "drop", "data.reading.unfinished=drop"),
    ("zero_rewards", "true", "data.reading.zero_rewards=true"),
    ("keep_actions", "true", "data.reading.keep_actions=true"),
    ("skip_bad", "true", "data.reading.skip_bad=true"),
    ("format", "d4rl", "data.reading.format=d4rl"),
    ("map", "a b=obs", 'data.reading.columns={"a b": "observations"}'),
]
# Their translation depends on other flags, or is more than one option.
OTHERS = {"model_mode", "n_head_ca", "sections", "max_n_final", "number_of_segments"}
OTHERS |= {"dataset", "env_id", "model", "action_range"}


def test_flags_of_data_are_those_of_convert() -> None:
    words = ["--map", "a=obs", "--action-range", "-1", "2", "--map=b/c=dones", "--zero-rewards"]
    assert translate([*words, "--time-limit=5"]).options == [
        *("--data.reading.action_range=-1 2", "--data.reading.zero_rewards=true"),
        *("--data.reading.time_limit=5",),
        '--data.reading.columns={"a": "observations", "b/c": "dones"}',
    ]
    with pytest.raises(ConfigError, match="--map: 'a' is not THEIRS=OURS"):
        translate(["--map", "a"])


def test_a_model_is_a_preset() -> None:
    assert translate(["--model", "RMT"]).preset == "rmt"
    assert not translate(["--model", "RMT", "--data=x"]).is_public


@pytest.mark.parametrize(("flag", "value", "option"), ONE_TO_ONE)
def test_a_flag_becomes_an_option_with_and_without_an_equals_sign(
    flag: str, value: str, option: str
) -> None:
    assert translate([f"--{flag}", value]).options == [f"--{option}"]
    assert translate([f"--{flag}={value}"]).options == [f"--{option}"]


def test_every_flag_is_covered_here_and_in_the_help() -> None:
    tested = {flag for flag, _, _ in ONE_TO_ONE}
    assert set(FLAGS) - tested == OTHERS
    assert all(f"--{flag} " in describe() for flag in FLAGS)


@pytest.mark.parametrize(
    ("mode", "preset"), [*MODEL_MODES.items(), ("dt_corl", "dt_corl"), ("rate", "rate")]
)
def test_a_model_mode_chooses_a_preset_in_any_case(mode: str, preset: str) -> None:
    for written in (mode, mode.upper()):
        assert translate(["--model_mode", written]).preset == preset


def test_every_public_mode_is_a_preset() -> None:
    presets = Path(__file__).parents[2] / "trainers/presets"
    assert set(MODEL_MODES.values()) <= {path.stem for path in presets.glob("tmaze/*.yaml")}


@pytest.mark.parametrize("flag", ["dataset", "env_id"])
def test_a_data_set_sets_its_task(flag: str) -> None:
    name = "hopper-medium-v2" if flag == "dataset" else "6"
    assert translate([f"--{flag}", name]).options == [
        "--data.dataset=hopper-medium-v2",
        "--env.task=hopper",
    ]
    with pytest.raises(ConfigError, match="There is no data set"):
        translate([f"--{flag}", "12"])


@pytest.mark.parametrize(("mode", "block"), ARCH_MODES.items())
def test_an_arch_mode_chooses_a_block(mode: str, block: str) -> None:
    assert translate(["--arch_mode", mode.upper()]).options == [f"--model.block={block}"]


def test_zero_heads_remove_the_valve() -> None:
    with_heads = ["--model.valve=cross_attention", "--model.valve_heads=4"]
    assert translate(["--n_head_ca", "4"]).options == with_heads
    assert translate(["--n_head_ca=0"]).options == ["--model.valve=none"]


@pytest.mark.parametrize("switch", ["--skip_dec_ffn", "--skip_dec_attn"])
def test_a_switch_needs_no_value(switch: str) -> None:
    on = "--model.skip_ffn=true"
    assert translate([switch]).options == [on]
    assert translate([switch, "--seed", "2"]).options == [on, "--training.seed=2"]
    assert translate([switch, "False"]).options == ["--model.skip_ffn=False"]
    assert translate([switch, "stray"]).options == [on, "stray"]


def test_a_flag_with_another_meaning_is_noted() -> None:
    assert "never implemented" in translate(["--skip_dec_attn"]).notes[0]
    assert translate(["--skip_dec_ffn"]).notes == []


@pytest.mark.parametrize("flag", ["--sections", "--max_n_final"])
def test_n_without_k_uses_the_public_k(flag: str) -> None:
    translation = translate([flag, "3"])
    assert translation.options == ["--model.context_length=30", "--training.segments=3"]
    assert "K is 30" in translation.notes[0]


def test_k_and_n_together_are_not_changed() -> None:
    translation = translate(["--sections=9", "--context_length=10"])
    assert translation.options == ["--model.context_length=10", "--training.segments=9"]
    assert translation.notes == []


def test_dotted_options_override_short_flags() -> None:
    translation = translate(["--model.context_length", "5", "--sections", "3"])
    assert translation.options == ["--training.segments=3", "--model.context_length", "5"]
    assert translation.notes == []


@pytest.mark.parametrize("mode", ["DT", "DT_relative", "DTXL"])
def test_a_model_of_one_segment_sees_the_product_of_k_and_n(mode: str) -> None:
    both = ["--model_mode", mode, "--sections=3", "--context_length=20"]
    assert translate(both).options == ["--model.context_length=60"]
    assert translate(both[:3]).options == ["--model.context_length=90"]
    assert translate([*both[:2], both[3]]).options == ["--model.context_length=20"]


def test_dt_on_the_public_backbone_is_the_public_dt() -> None:
    translation = translate(["--model_mode", "DT", "--arch_mode", "TrXL"])
    assert translation.preset == "dt_relative"
    assert "dt_relative" in translation.notes[0]
    assert translate(["--model_mode", "DT", "--arch_mode", "gpt"]).preset == "dt"
    assert translate(["--model_mode", "DT"]).preset == "dt"


@pytest.mark.parametrize(
    ("mode", "left_out"),
    [
        ("RATE", []),
        ("RATEM", ["mem_len"]),
        ("RMT", ["mem_len", "n_head_ca"]),
        ("RATE_wo_nmt", ["nmt", "n_head_ca"]),
        ("TrXL_published", ["nmt", "n_head_ca"]),
        ("DTXL", ["nmt", "n_head_ca"]),
        ("DT", ["nmt", "mem_len", "n_head_ca"]),
    ],
)
def test_flags_that_a_public_mode_overrides_are_ignored(mode: str, left_out: list[str]) -> None:
    """This holds for every order of the flags, and is always reported."""
    words = ["--nmt", "7", "--seed=3", "--mem_len=90", "--n_head_ca", "2"]
    for command in (["--model_mode", mode, *words], [*words, "--model_mode", mode]):
        translation = translate(command)
        kept = {
            "nmt": ["--model.num_memory_tokens=7"],
            "seed": ["--training.seed=3"],
            "mem_len": ["--model.cache_length=90"],
            "n_head_ca": ["--model.valve=cross_attention", "--model.valve_heads=2"],
        }
        expected = [o for name, options in kept.items() if name not in left_out for o in options]
        assert translation.options == expected
        notes = [note for note in translation.notes if "is left out" in note]
        assert sorted(note.split()[0] for note in notes) == sorted(f"--{n}" for n in left_out)
    zeros = translate(["--model_mode", mode, "--nmt=0", "--mem_len=0", "--n_head_ca=0"])
    assert not [note for note in zeros.notes if "is left out" in note]


@pytest.mark.parametrize("mode", MODEL_MODES)
def test_a_public_name_of_a_preset_is_noted(mode: str) -> None:
    (note,) = translate(["--model_mode", mode.upper()]).notes
    assert note.endswith(f"here the preset {MODEL_MODES[mode]}.")
    assert translate(["--model_mode", MODEL_MODES[mode]]).notes == []


def test_flags_of_public_commands_are_recognised() -> None:
    assert translate(["--nmt", "3"]).is_public
    assert translate(["--arch_mode", "TrXL"]).is_public
    assert not translate(["--model_mode=RMT", "--seed=3", "--game=Pong"]).is_public


def test_other_arguments_are_not_changed() -> None:
    words = ["--model.block", "gpt", "--unknown", "-x", "stray", "--nmt_like=3"]
    assert translate(words).options == words
    assert translate([]).preset is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--arch_mode GTrXXL", "Did you mean gtrxl?"),
        ("--nmt", "--nmt needs a value"),
        ("--nmt --seed 3", "--nmt needs a value"),
        ("--sections three", "'three'; it must be a whole number"),
        ("--max_n_final 0", "--max_n_final"),
        ("--context_length -4", "--context_length is '-4'"),
    ],
)
def test_an_invalid_flag_is_refused(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match="--") as caught:
        translate(words.split())
    assert message in str(caught.value)
