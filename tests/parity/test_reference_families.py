"""Families of environments and the two public constructors: equal outputs, or refused by name."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from rate.reference import load_reference, run_segments
from scripts.benchmarks.eager import RATE
from tests.parity.reference_by_hand import BASE, inputs_for, triple
from tests.parity.test_reference import NO_MEMORY, Trap, answer, assert_by_hand, synthetic

FOLDERS = {"mode": "mujoco", "STATE_DIM": 4, "ACTION_DIM": 4, "n_token": 10, "tie_weight": False}
OF_MAIN = ("env_name", "state_dim", "act_dim", "padding_idx")


def folder_config(**changes: Any) -> dict[str, Any]:
    """Arguments of the Atari and MuJoCo folders' constructor."""
    shared = {key: value for key, value in BASE.items() if key not in OF_MAIN}
    return shared | FOLDERS | changes


@pytest.mark.parametrize(
    ("mode", "stack"),
    [
        ("mujoco", {}),
        ("mujoco", {"skip_dec_ffn": True, "d_inner": None, "n_head_ca": 1}),
        ("mujoco", NO_MEMORY),
        ("mujoco", {"use_stable_version": True, "use_gate": True}),
        ("atari", {"mrv_act": "leaky_relu"}),
        ("atari", {"n_head_ca": 0, "use_stable_version": True}),
    ],
)
def test_the_constructor_of_the_atari_and_mujoco_folders(mode: str, stack: dict[str, Any]) -> None:
    changes = {"env_name": mode, "padding_idx": None, "act_dim": 3} | stack
    main, by_hand, weights = synthetic(seed=3, **changes)
    criterion = {
        "crit.out_layers.0.weight": torch.zeros(10, 8), "crit.out_layers.0.bias": torch.zeros(10),
    }  # fmt: skip
    config = folder_config(mode=mode, ACTION_DIM=3, **stack)
    assert_by_hand(main, by_hand, weights, load_reference(config, weights | criterion))


def test_an_atari_folder_may_count_actions_in_its_vocabulary() -> None:
    main, by_hand, weights = synthetic(env_name="atari", padding_idx=None, act_dim=10)
    model = load_reference(folder_config(mode="atari", ACTION_DIM=1), weights)
    assert_by_hand(main, by_hand, weights, model)
    with pytest.raises(ValueError, match=r"wrong shape: .*head\.weight is \(10, 8\)"):
        load_reference(folder_config(mode="atari", ACTION_DIM=1, n_token=9), weights)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mode": "doom"}, "mode='doom'.*atari, mujoco"),
        ({"mem_at_end": False}, "mem_at_end=False.*Atari and MuJoCo"),
        ({"n_token": "10"}, "n_token='10'.*type int"),
        ({"cutoffs": [5]}, r"cutoffs=\[5\]"),
        ({"ACTION_DIM": 0}, "ACTION_DIM=0.*at least 1"),
    ],
)
def test_arguments_of_the_folders_are_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_reference(folder_config(mode="atari") | changes, Trap())  # type: ignore[arg-type]
    lacking = {key: value for key, value in folder_config().items() if key != "STATE_DIM"}
    with pytest.raises(ValueError, match="lacks STATE_DIM"):
        load_reference(lacking, Trap())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("made_as", "named"),
    [("hopper", "mujoco"), ("mujoco", "hopper"), ("mujoco", "tmaze"), ("tmaze", "mujoco"),
     ("popgym-RepeatFirstEasy-v0", "tmaze"), ("CartPole-v1", "minigrid")],
)  # fmt: skip
def test_weights_of_another_family_are_refused(made_as: str, named: str) -> None:
    config, _, weights = synthetic(env_name=made_as)
    load_reference(config, weights)
    with pytest.raises(ValueError, match=r"missing: .*(action_embeddings|state_encoder)"):
        load_reference(config | {"env_name": named}, weights)


def test_a_table_without_a_row_for_padding_refuses_padding() -> None:
    config, _, weights = synthetic(env_name="vizdoom", act_dim=5)
    model = load_reference(config, weights)
    with pytest.raises(ValueError, match="actions hold -10, outside 0 to 4"):
        answer(model, inputs_for(config, 2, 1), 2)


@pytest.mark.parametrize("changes", [{"env_name": "hopper-medium-v2"}, {"mem_at_end": False}])
def test_the_eager_model_of_the_benchmark_agrees(changes: dict[str, Any]) -> None:
    config = BASE | changes
    model, inputs = RATE(**config).eval(), inputs_for(config, 6, 2)
    first, second = run_segments(load_reference(config, model.state_dict()), *triple(inputs), 3)
    memory, mems = model.mem_tokens.repeat(1, 2, 1), ()
    for start, wanted in ((0, first), (3, second)):
        states, actions, returns = (part[:, start : start + 3] for part in triple(inputs))
        answer = model(states, actions, returns, None, None, *mems, mem_tokens=memory)
        memory, mems = answer["mem_tokens"], answer["new_mems"]
        torch.testing.assert_close(answer["logits"], wanted.logits)
        torch.testing.assert_close(memory.transpose(0, 1), wanted.memory_tokens)
