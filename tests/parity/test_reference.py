"""Public RATE weights have the same outputs here as in the public code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from rate.reference import ReferenceModel, load_reference, run_segments
from tests.parity.reference_by_hand import (
    BASE,
    IMAGES,
    LOCOMOTION,
    ByHand,
    build_ends,
    build_weights,
    inputs_for,
    triple,
)

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = (
    "dt_tmaze", "rate_cache_tmaze", "rate_gated_tmaze", "rate_stable_tmaze", "rate_tmaze",
    "rate_vizdoom", "rmt_tmaze", "trxl_tmaze",
)  # fmt: skip

torch.set_num_threads(1)


def read(name: str) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], int]:
    """Constructor arguments, state dict, inputs and answers, context length."""
    with safe_open(FIXTURES / f"{name}.safetensors", "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        metadata = file.metadata()
    weights = {k[len("weights.") :]: v for k, v in tensors.items() if k.startswith("weights.")}
    config: dict[str, Any] = json.loads(metadata["config"])
    return config, weights, tensors, int(metadata["context_length"])


def answer(
    model: ReferenceModel, tensors: dict[str, Tensor], context_length: int
) -> dict[str, Tensor]:
    """All outputs of the model, under the keys of the fixture files."""
    answers = {}
    for n, result in enumerate(run_segments(model, *triple(tensors), context_length)):
        answers[f"logits.{n}"] = result.logits
        if result.memory_tokens is not None:
            answers[f"memory_tokens.{n}"] = result.memory_tokens
        for level, cached in enumerate(result.cache or ()):
            answers[f"cache.{n}.{level}"] = cached
    return answers


def assert_within_1e5(key: str, ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0.0, atol=1e-5, msg=lambda text: f"{key}: {text}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", NAMES)
def test_outputs_equal_those_of_the_public_code(name: str, dtype: torch.dtype) -> None:
    config, weights, tensors, context_length = read(name)
    model = load_reference(config, {key: value.to(dtype) for key, value in weights.items()})
    answers = answer(model, tensors, context_length)
    expected = {k for k in tensors if k.split(".")[0] in ("logits", "memory_tokens", "cache")}
    assert answers.keys() == expected
    for key, value in answers.items():
        assert value.dtype == dtype
        assert_within_1e5(key, value.float(), tensors[key])


def synthetic(seed: int = 0, **changes: Any) -> tuple[dict[str, Any], ByHand, dict[str, Tensor]]:
    torch.manual_seed(seed)
    config = BASE | changes
    ends = build_ends(config)
    weights = build_weights(config, ends)
    return config, ByHand(config, ends, weights), weights


def assert_by_hand(
    config: dict[str, Any],
    by_hand: ByHand,
    weights: dict[str, Tensor],
    model: ReferenceModel | None = None,
) -> None:
    """The model (of the same config and weights, if None) answers as the one by hand does."""
    images = config["env_name"] in IMAGES
    context_length, steps, batch = (2, 3, 1) if images else (3, 8, 2)
    inputs = inputs_for(config, steps, batch)
    model = (model or load_reference(config, weights)).to(dtype=torch.float64)
    results = run_segments(model, *triple(inputs), context_length)
    with torch.no_grad():
        doubled = triple({key: value.double() for key, value in inputs.items()})
        expected = by_hand.run(*doubled, context_length)
    assert len(results) == len(expected)
    for result, (logits, memory, cache) in zip(results, expected, strict=True):
        torch.testing.assert_close(result.logits, logits)
        assert (result.memory_tokens is None) == (memory is None)
        if memory is not None:
            torch.testing.assert_close(result.memory_tokens, memory)
        assert (result.cache is None) == (cache is None)
        for ours, theirs in zip(result.cache or (), cache or (), strict=True):
            torch.testing.assert_close(ours, theirs)


ENVIRONMENTS: dict[str, dict[str, Any]] = {
    "tmaze": {}, "aar": {"state_dim": 3, "act_dim": 3}, "CartPole-v1": {"act_dim": 2},
    "vizdoom": {"act_dim": 5, "padding_idx": None}, "atari": {"state_dim": 4},
    "memory_maze": {"act_dim": 6, "padding_idx": None}, "minigrid_memory": {"act_dim": 4},
    "mikasa_robo": {"act_dim": 8, "padding_idx": None}, "arshot": {"state_dim": 20},
    "mujoco": {"state_dim": 11, "act_dim": 3}, "popgym-RepeatFirstEasy-v0": {"state_dim": 2},
    "popgym-AutoencodeHard-v0": {}, "popgym-PositionOnlyPendulumEasy-v0": {"act_dim": 1},
    **{task: {"state_dim": 17, "act_dim": 6} for task in LOCOMOTION},
    "MountainCar-v0": {"state_dim": 2, "act_dim": 3}, "Acrobot-v1": {"state_dim": 6, "act_dim": 3},
    "MountainCarContinuous-v0": {"state_dim": 2, "act_dim": 1},
    "Pendulum-v1": {"state_dim": 3, "act_dim": 1},
}  # fmt: skip


@pytest.mark.parametrize("env", ENVIRONMENTS)
def test_encoders_and_heads_of_each_environment(env: str) -> None:
    assert_by_hand(*synthetic(env_name=env, **ENVIRONMENTS[env]))


NO_MEMORY = {"num_mem_tokens": 0, "mem_at_end": False, "n_head_ca": 0}
STACKS: dict[str, dict[str, Any]] = {
    "leaky valve": {"mrv_act": "leaky_relu", "n_head_ca": 4},
    "bare valve": {"mrv_act": "no_act", "n_head_ca": 1},
    "tanh valve, no feed-forward": {"mrv_act": "tanh", "skip_dec_ffn": True, "d_inner": None},
    "no valve, no cache": {"n_head_ca": 0, "mrv_act": None, "mem_len": 0},
    "no memory, cache": {**NO_MEMORY, "mem_len": 20},
    "memory in front only": {"mem_at_end": False},
    "memory in front only, no valve": {"mem_at_end": False, "n_head_ca": 0},
    "memory in front only, more of it than tokens": {"mem_at_end": False, "num_mem_tokens": 11},
    "memory in front only, GTrXL": {
        "mem_at_end": False, "use_stable_version": True, "use_gate": True, "mrv_act": "tanh",
    },
    "memory reads the cache": {"read_mem_from_cache": True, "num_mem_tokens": 3},
    "TrXL-I": {"use_stable_version": True, "n_layer": 3},
    "GTrXL": {"use_stable_version": True, "use_gate": True},
    "clamped distances": {"clamp_len": 4},
    "long cache, many memory tokens": {"mem_len": 40, "num_mem_tokens": 5},
    "same length": {**NO_MEMORY, "same_length": True, "mem_len": 12},
    "same short length": {**NO_MEMORY, "same_length": True, "mem_len": 4},
    "nothing but tokens": {**NO_MEMORY, "mem_len": 0, "n_layer": 1},
    "a valve without memory": {**NO_MEMORY, "n_head_ca": 2},
}  # fmt: skip


@pytest.mark.parametrize("stack", STACKS)
def test_stack_equals_attention_by_explicit_loops(stack: str) -> None:
    assert_by_hand(*synthetic(seed=1, **STACKS[stack]))


def test_float32_is_close_enough_in_a_deep_model() -> None:
    config, _, weights = synthetic(
        n_layer=10, d_model=64, n_head=8, d_head=32, d_inner=64, mem_len=60, num_mem_tokens=10
    )
    scaled = {k: v / 4 if v.dim() == 2 else v for k, v in weights.items()}
    model, inputs = load_reference(config, scaled), inputs_for(config, 30, 2)
    single, double = (answer(m, inputs, 10) for m in (model, model.to(dtype=torch.float64)))
    for key, value in single.items():
        assert_within_1e5(key, value.double(), double[key])


def test_mask_around_memory_rows_and_cache() -> None:
    from rate.reference.blocks import blocked_keys
    from rate.reference.config import ReferenceConfig

    config = ReferenceConfig.parse(BASE | {"num_mem_tokens": 2})
    blocked = blocked_keys(config, rows=7, cached=2)
    picture = ["".join(".x"[int(cell)] for cell in row) for row in blocked]
    assert picture == [
        "xx..xxxxx", "xx..xxxxx", ".....xxxx", "......xxx", ".......xx", "xx.......", "xx.......",
    ]  # fmt: skip


def test_relative_shift_takes_the_next_row_right_of_the_diagonal() -> None:
    from rate.reference.blocks import relative_shift

    shifted = relative_shift(torch.arange(1.0, 10.0).view(1, 3, 3))[0]
    assert shifted.tolist() == [[3.0, 0.0, 4.0], [5.0, 6.0, 0.0], [7.0, 8.0, 9.0]]


def test_rows_are_independent_and_nothing_is_kept_between_calls() -> None:
    config, weights, tensors, context_length = read("rate_cache_tmaze")
    model = load_reference(config, weights)
    both = answer(model, tensors, context_length)
    second = {key: tensors[key][1:] for key in ("observations", "actions", "returns_to_go")}
    alone = answer(model, second, context_length)
    for key, value in alone.items():
        assert_within_1e5(key, value, both[key][1:])
        assert not value.requires_grad


def test_integer_inputs_and_pixels() -> None:
    config, weights, tensors, context_length = read("rate_vizdoom")
    model = load_reference(config, {f"weights.{key}": value for key, value in weights.items()})
    pixels = (tensors["observations"] * 255).round()
    floats = answer(model, tensors | {"observations": pixels / 255}, context_length)
    integers = tensors | {
        "observations": pixels.to(torch.uint8), "actions": tensors["actions"][..., 0].long(),
    }  # fmt: skip
    for key, value in answer(model, integers, context_length).items():
        assert torch.equal(value, floats[key])


@pytest.mark.parametrize("name", NAMES)
def test_every_mutated_weight_is_refused_by_name(name: str) -> None:
    config, weights, _, _ = read(name)
    for key, value in weights.items():
        changed = [torch.cat([value, value[..., :1]], dim=-1), value[None], value[..., :-1]]
        if key != "embed_timestep.weight":
            changed += [value[:-1], torch.cat([value, value[:1]])]
        for wrong in changed:
            with pytest.raises(ValueError, match=f"wrong shape: {key} is "):
                load_reference(config, weights | {key: wrong})


def test_missing_and_unexpected_weights_are_named() -> None:
    config, weights, _, _ = read("rate_vizdoom")
    ignored = ("embed_", "layers.0.dec_attn.layer_norm", "layers.0.pos_ff.layer_norm")
    for key in weights:
        rest = {k: v for k, v in weights.items() if k != key}
        if key.startswith(ignored):
            load_reference(config, rest)
            continue
        with pytest.raises(ValueError, match=rf"missing: .*{key}"):
            load_reference(config, rest)
    with pytest.raises(ValueError, match=r"unexpected: layers\.0\.gate\.bg"):
        load_reference(config, weights | {"layers.0.gate.bg": torch.zeros(8)})
    with pytest.raises(ValueError, match=r"unexpected: mha_mem_to_mem\.dense\.bias"):
        load_reference(config | {"n_head_ca": 0}, weights)
    with pytest.raises(ValueError, match=r"wrong shape: .*\. missing: layers\.1"):
        load_reference(config | {"n_layer": 2, "d_inner": 9}, weights)


def test_a_continuous_encoder_without_its_bias_is_recognised() -> None:
    config, _, weights = synthetic(env_name="popgym-PositionOnlyPendulumEasy-v0", act_dim=1)
    del weights["action_embeddings.0.bias"]
    with pytest.raises(ValueError, match=r"missing: action_embeddings\.0\.bias"):
        load_reference(config, weights)


class Trap:
    def __getattr__(self, name: str) -> Any:
        raise AssertionError("loading touched an object that is not a tensor")


def test_loading_takes_tensors_only() -> None:
    config, weights, _, _ = read("dt_tmaze")
    with pytest.raises(ValueError, match=r"'head\.weight' is a Trap, not a tensor"):
        load_reference(config, {**weights, "head.weight": Trap()})  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"'head\.weight' is torch\.int64"):
        load_reference(config, weights | {"head.weight": weights["head.weight"].long()})


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"mrv_act": "elu"}, "mrv_act='elu'.*AttributeError.*leaky_relu"),
    ({"mrv_act": "gelu"}, "mrv_act='gelu'.*Supported: relu"),
    ({"mrv_act": None}, "mrv_act=None"),
    ({"env_name": "nethack"}, "env_name='nethack'.*tmaze"),
    ({"n_heads": 2}, r"n_heads=2 \(did you mean n_head\?\)"),
    ({"rope": 1, "swiglu": True}, "rope=1; swiglu=True"),
    ({"pre_lnorm": True}, "pre_lnorm=True"),
    ({"ext_len": 3}, "ext_len=3"),
    ({"use_gate": True}, "use_gate=True.*use_stable_version"),
    ({"use_stable_version": True, "skip_dec_ffn": True}, "skip_dec_ffn=True.*layer_norm2"),
    ({"same_length": True}, "same_length=True.*num_mem_tokens=2"),
    ({**NO_MEMORY, "same_length": True, "mem_len": 0}, "same_length=True.*mem_len=0"),
    ({"num_mem_tokens": 0, "n_head_ca": 0}, "mem_at_end=True.*num_mem_tokens=0.*mem_at_end=False"),
    ({"padding_idx": 3}, "padding_idx=3.*act_dim=4"),
    ({"env_name": "InvertedPendulum-v4"}, "env_name='InvertedPendulum-v4'.*Pendulum"),
    ({"env_name": "walker-walk"}, "env_name='walker-walk'.*walker2d"),
    ({"d_inner": None}, "d_inner=None"),
    ({"n_head_ca": 3}, "n_head_ca=3.*divide d_model=8"),
    ({"d_model": 7}, "d_model=7.*even"),
    ({"d_embed": 4}, "d_embed=4"),
    ({"div_val": 2}, "div_val=2.*only 1"),
    ({"n_layer": 0}, "n_layer=0.*at least 1"),
    ({"mem_len": -1}, "mem_len=-1"),
    ({"mode": "mujoco"}, "env_name, state_dim, act_dim: not together with mode"),
    ({"n_layer": "2"}, "n_layer='2'.*type int"),
    ({"skip_dec_ffn": 1}, "skip_dec_ffn=1.*type bool"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_config_is_refused_by_name_before_the_weights(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_reference(BASE | changes, Trap())  # type: ignore[arg-type]


def test_config_lacks_arguments() -> None:
    config = {key: value for key, value in BASE.items() if key not in ("d_head", "mem_len")}
    with pytest.raises(ValueError, match="lacks d_head, mem_len"):
        load_reference(config, Trap())  # type: ignore[arg-type]


BAD_INPUTS: list[tuple[str, Tensor, str]] = [
    ("observations", torch.rand(2, 12, 5), r"observations is of shape .* expected \(B, T, 4\)"),
    ("observations", torch.rand(2, 11, 4), "observations is of shape"),
    ("actions", torch.full((2, 12, 1), 7.0), "actions hold 7, outside 0 to 4"),
    ("actions", torch.zeros(2, 12, 2), r"actions is of shape .* expected \(B, T, 1\)"),
    ("returns_to_go", torch.zeros(2, 12, 3), r"returns_to_go is .* expected \(B, T, 1\)"),
]


@pytest.mark.parametrize(("key", "value", "message"), BAD_INPUTS)
def test_inputs_are_refused_by_name(key: str, value: Tensor, message: str) -> None:
    config, weights, tensors, context_length = read("dt_tmaze")
    model = load_reference(config, weights)
    with pytest.raises(ValueError, match=message):
        answer(model, tensors | {key: value}, context_length)
    with pytest.raises(ValueError, match="context_length=0"):
        answer(model, tensors, 0)
