"""Autoregressive decoding equals teacher forcing, step by step."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rate.batch import Batch, Observations, map_tensors
from rate.decoders.base import ModelDecoder
from rate.decoders.recompute import RecomputeDecoder
from rate.model import SequenceModel
from rate.policy import Policy
from rate.tokenizers import StepInputs
from tests.factories import CARRYING, MODELS, SPACES, WINDOWS, K, draw, make_batch, make_model

CLOSE = {"rtol": 0.0, "atol": 1e-5}
# Float32 rounds by 1e-7, which the norm of a small vector enlarges; float64 shows what is exact.
EXACT = {"rtol": 0.0, "atol": 1e-10}
# Lengths of the episodes that three rows play one after another. The rows drift out of phase, and
# are reset in the middle of a segment, at its end and right after its start.
SCHEDULE = torch.tensor([[K + 2, 3 * K, 1], [2 * K, K - 1, 2 * K], [3 * K + 1, 1, K + 1]])
TICKS = int(SCHEDULE[0].sum())  # the same for every row
LENGTHS = SCHEDULE.flatten()
TIMESTEPS = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in SCHEDULE])
CASES = [(name, True) for name in MODELS] + [(name, False) for name in WINDOWS]

every_model = pytest.mark.parametrize(
    ("name", "recompute_window"), CASES, ids=[n if exact else f"{n}-banded" for n, exact in CASES]
)
every_space = pytest.mark.parametrize("spaces", SPACES)


def by_episode(played: Tensor) -> Tensor:
    """What three rows played, `(3, TICKS, ...)`, cut into episodes `(9, longest, ...)`."""
    episodes = played.flatten(0, 1).split(LENGTHS.tolist())
    return torch.nn.utils.rnn.pad_sequence(list(episodes), batch_first=True)


def episodes_of(played: Batch) -> Batch:
    return replace(
        played._map(by_episode), mask=torch.arange(int(LENGTHS.max())) < LENGTHS[:, None]
    )


def teacher_forced(model: SequenceModel, batch: Batch, recompute_window: bool) -> Tensor:
    """Predictions of the real steps; an exact window is recomputed for every step."""
    size = model.config.context_length
    with torch.no_grad():
        if model.config.carries_state or not recompute_window:
            return model(batch)[0][batch.mask]
        ends = range(1, batch.num_steps + 1)
        windows = [model(batch.steps(max(0, end - size), end))[0][:, -1] for end in ends]
    return torch.stack(windows, dim=1)[batch.mask]


def in_dtype_of(model: SequenceModel, batch: Batch) -> Tensor:
    """The returns-to-go of a batch in the data type of a model's weights."""
    return batch.returns_to_go.to(next(model.parameters()).dtype)


def played_by_decoder(
    model: SequenceModel, recompute_window: bool, decoder: ModelDecoder | None = None
) -> tuple[Batch, Tensor]:
    """Random actions and returns, and the predictions of the decoder."""
    batch = make_batch(model, [TICKS] * 3)
    batch = replace(batch, timesteps=TIMESTEPS, returns_to_go=in_dtype_of(model, batch))
    decoder = decoder or model.make_decoder(3, exact=recompute_window)
    predictions = []
    for tick in range(TICKS):
        starting = TIMESTEPS[:, tick] == 0
        if tick and starting.any():
            decoder.reset(starting)
        now = map_tensors(batch.observations, lambda x, tick=tick: x[:, tick])
        previous = batch.actions[:, tick - 1]  # in a row that starts: of another episode
        predictions.append(
            decoder.step(
                StepInputs(previous, batch.returns_to_go[:, tick], now, TIMESTEPS[:, tick])
            )
        )
    return batch, torch.stack(predictions, dim=1)


@pytest.mark.parametrize("name", CARRYING)
def test_a_decoder_goes_on_from_a_state_as_a_batch_does(name: str) -> None:
    """After steps that end within a segment, of which the next begins with the state."""
    model, steps = make_model(name, condition_on_return=False), K + 2
    before, after = (make_batch(model, [steps] * 2, seed=seed) for seed in (1, 2))
    with torch.no_grad():
        state = model.features(before)[1]
        later = torch.arange(steps, 2 * steps).expand(2, -1)
        after = replace(after, timesteps=later, initial=state.tensors())
        expected = model(after)[0]
    decoder = model.make_decoder(2)
    decoder.reset(None, state)
    found = torch.stack([decoder.step(inputs_at(after, t)) for t in range(steps)], dim=1)
    torch.testing.assert_close(found, expected, **CLOSE)


def inputs_at(batch: Batch, t: int) -> StepInputs:
    """The inputs at step t; at the first step, with the action of another episode."""
    return StepInputs(
        batch.actions[:, t - 1],
        batch.returns_to_go[:, t],
        map_tensors(batch.observations, lambda x: x[:, t]),
        batch.timesteps[:, t],
    )


def to_numpy(observations: Observations) -> Any:
    if isinstance(observations, dict):
        return {key: value.numpy() for key, value in observations.items()}
    return observations.numpy()


def played_by_policy(model: SequenceModel, recompute_window: bool) -> tuple[Batch, Tensor]:
    """The policy's actions and returns-to-go, and its predictions."""
    policy = Policy(model, num_envs=3, target_return=2.0, recompute_window=recompute_window)
    batch = make_batch(model, [TICKS] * 3)
    predictions, actions, returns = [], [], []
    for tick in range(TICKS):
        starting = TIMESTEPS[:, tick] == 0
        if tick and starting.any():
            policy.reset(starting.numpy())
        rewards = batch.rewards[:, tick - 1].numpy() if tick else None
        now = draw(model.observation_space, 3, seed=tick)
        chosen = policy.step(to_numpy(now), rewards)
        actions.append(torch.as_tensor(chosen.actions))
        predictions.append(chosen.predictions)
        returns.append(policy.returns_to_go.float().clone())
        for mine, theirs in zip(leaves(batch.observations), leaves(now), strict=True):
            mine[:, tick] = theirs
    played = replace(
        batch,
        actions=torch.stack(actions, dim=1),
        returns_to_go=torch.stack(returns, dim=1),
        timesteps=TIMESTEPS,
    )
    return played, torch.stack(predictions, dim=1)


def leaves(observations: Observations) -> list[Tensor]:
    return list(observations.values()) if isinstance(observations, dict) else [observations]


@every_model
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["f32", "f64"])
def test_decoder_equals_teacher_forcing(
    name: str, recompute_window: bool, dtype: torch.dtype
) -> None:
    model = make_model(name).to(dtype)
    played, predictions = played_by_decoder(model, recompute_window)
    batch = episodes_of(played)
    expected = teacher_forced(model, batch, recompute_window)
    close = CLOSE if dtype is torch.float32 else EXACT
    torch.testing.assert_close(by_episode(predictions)[batch.mask], expected, **close)


@every_model
def test_policy_equals_teacher_forcing(name: str, recompute_window: bool) -> None:
    model = make_model(name).double()
    played, predictions = played_by_policy(model, recompute_window)
    batch = episodes_of(played)
    expected = teacher_forced(model, batch, recompute_window)
    torch.testing.assert_close(by_episode(predictions)[batch.mask], expected, **EXACT)
    assert torch.equal(expected.argmax(-1), batch.actions[batch.mask])


@pytest.mark.parametrize("name", MODELS)
def test_recomputation_equals_teacher_forcing(name: str) -> None:
    """`RecomputeDecoder` works for every backbone."""
    model = make_model(name).double()
    decoder = model.make_decoder(3)
    decoder.backbone = RecomputeDecoder(model.backbone, 3)
    played, predictions = played_by_decoder(model, True, decoder)
    batch = episodes_of(played)
    expected = teacher_forced(model, batch, True)
    torch.testing.assert_close(by_episode(predictions)[batch.mask], expected, **EXACT)


@every_space
def test_policy_equals_teacher_forcing_in_every_space(spaces: str) -> None:
    model = make_model("rate_cache", spaces)
    played, predictions = played_by_policy(model, True)
    batch = episodes_of(played)
    expected = teacher_forced(model, batch, True)
    torch.testing.assert_close(by_episode(predictions)[batch.mask], expected, **CLOSE)


@pytest.mark.parametrize("name", WINDOWS)
def test_banded_and_recomputed_windows_agree_within_the_context_only(name: str) -> None:
    """Past K steps, the receptive field of a banded window is larger."""
    model = make_model(name)
    batch, exact = played_by_decoder(model, True)
    _, banded = played_by_decoder(model, False)
    within = batch.timesteps < model.config.context_length
    torch.testing.assert_close(banded[within], exact[within], **CLOSE)
    if model.config.context_length > 1:
        assert not torch.allclose(banded[~within], exact[~within], atol=1e-3)


@every_model
def test_a_decoder_leaves_the_model_as_it_was(name: str, recompute_window: bool) -> None:
    model = make_model(name)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    played_by_decoder(model, recompute_window)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


@every_model
def test_a_reset_decoder_starts_anew(name: str, recompute_window: bool) -> None:
    """After a reset of all rows, nothing of earlier episodes is left."""
    model = make_model(name)
    batch = make_batch(model, [2 * K + 1] * 3)
    decoder = model.make_decoder(3, exact=recompute_window)

    def play() -> Tensor:
        return torch.stack([
            decoder.step(inputs_at(batch, t))
            for t in range(2 * K + 1)
        ])  # fmt: skip

    first = play()
    decoder.reset()
    torch.testing.assert_close(play(), first, **CLOSE)


def test_a_decoder_works_for_one_row_and_long_episodes() -> None:
    """Timesteps past the table use its last row; thirty segments later all is still equal."""
    model = make_model("timestep_with_memory", max_timestep=7)
    batch = make_batch(model, [30 * K])
    decoder = model.make_decoder(1)
    found = [decoder.step(inputs_at(batch, t)) for t in range(30 * K)]
    with torch.no_grad():
        expected, _ = model(batch)
    torch.testing.assert_close(torch.stack(found, 1), expected, rtol=0, atol=5e-5)
