"""How far back gradients and information reach, against autograd and the decoders."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from rate.model import SequenceModel
from tests.factories import CARRYING, MODELS, K, make_batch, make_model, rows_of
from tests.trainers.conftest import MakeConfig
from trainers.config import EvaluationConfig, RunConfig, TrainingConfig
from trainers.horizon import describe_horizon, gradient_horizon, warn_of_horizon
from trainers.registry import get_environment
from trainers.train import train

LONG = 10 * K


def gradients(model: SequenceModel, steps: int, outputs: list[int], **kwargs: Any) -> list[Tensor]:
    """The gradient's largest component at each step's tokens `(T,)`, for each output step."""
    model = model.double()
    batch = make_batch(model, [steps])
    batch = replace(batch, observations=batch.observations.double())  # type: ignore[union-attr]
    tokens: list[Tensor] = []

    def keep(module: Any, inputs: Any, out: Tensor) -> None:
        out.retain_grad()
        tokens.append(out)

    model.tokenizer.register_forward_hook(keep)
    found = []
    for output in outputs:
        tokens.clear()
        features, _ = model.features(batch, **kwargs)
        features[0, output].square().sum().backward()  # type: ignore[no-untyped-call]
        grad = tokens[0].grad
        assert grad is not None
        found.append(grad[0].abs().amax((1, 2)))
    return found


# LSDT acts on windows of K steps alone, and has no pass that reaches beyond them.
@pytest.mark.parametrize("name", [name for name in MODELS if not name.startswith("lsdt")])
def test_the_gradient_of_a_prediction_ends_at_the_information_horizon(name: str) -> None:
    """At every distance: not zero within the horizon, zero beyond."""
    model = make_model(name)
    (grad,) = gradients(model, LONG, [LONG - 1])
    reach = model.config.information_horizon(model.tokenizer.tokens.count, exact=False)
    start = 0 if reach is None else max(0, LONG - reach)
    assert grad[start:].min() > 0
    assert grad[:start].abs().sum() == 0


CUTS: list[tuple[str, int | None]] = [(name, 1) for name in CARRYING]
CUTS += [(name, cut) for name in ("rate_cache", "gru", "elmur", "own") for cut in (None, 2, 3)]


@pytest.mark.parametrize(("name", "cut"), CUTS)
def test_gradients_end_at_the_cuts_of_truncated_backpropagation(name: str, cut: int | None) -> None:
    segments = 5
    model = make_model(name)
    ends = [(segment + 1) * K - 1 for segment in range(segments)]
    found = gradients(model, segments * K, ends, detach_every=cut)
    distances = [end + 1 - int(grad.nonzero()[0]) for end, grad in zip(ends, found, strict=True)]
    training = TrainingConfig(segments=segments, bptt_segments=cut)
    config = RunConfig(model=model.config, training=training)
    horizon = gradient_horizon(config, model.tokenizer.tokens.count)
    if getattr(model.config, "adaptive_depth", False):  # a token may halt before the last layer
        assert K < max(distances) <= horizon or horizon == K
    else:
        assert max(distances) == horizon


@pytest.mark.parametrize("name", [n for n in MODELS if n not in CARRYING])
@pytest.mark.parametrize("exact", [True, False])
def test_actions_depend_on_the_steps_within_the_horizon_alone(name: str, exact: bool) -> None:
    """Every step is changed in a row of its own."""
    model = make_model(name)
    count, rows = model.tokenizer.tokens.count, LONG + 1
    batch = rows_of(make_batch(model, [LONG]), torch.zeros(rows, dtype=torch.int64))
    with torch.no_grad():
        tokens = model.tokenizer(batch)  # (rows, T, n, d)
    step = torch.arange(LONG)
    tokens[step + 1, step] += 1
    late = model.tokenizer.tokens.late
    decoder = model.backbone.make_decoder(rows, exact=exact)
    decoder.reset(torch.ones(rows, dtype=torch.bool))
    with torch.no_grad():
        for t in range(LONG):
            before = tokens[:, max(t - 1, 0), count - late :]
            features = decoder.step(torch.cat((before, tokens[:, t, : count - late]), dim=1))
    changes = (features[1:] - features[:1]).abs().amax(-1)  # (T,)
    reach = model.config.information_horizon(count, exact=exact)
    assert reach is not None
    assert changes[LONG - reach :].min() > 0
    assert changes[: LONG - reach].max() <= 1e-6


def run(name: str, **settings: Any) -> RunConfig:
    training = TrainingConfig(segments=3 if name in CARRYING else 1)
    evaluation = EvaluationConfig(**settings)
    return RunConfig(model=MODELS[name], training=training, evaluation=evaluation)


@pytest.mark.parametrize(
    ("name", "settings", "line"),
    [
        (
            "rate",
            {},
            "gradients reach back 12 steps, information when acting has no limit; in training, "
            "memory is at most 12 steps old",
        ),
        ("dt", {}, "gradients reach back 4 steps, information when acting reaches back 4 steps"),
        (
            "dt",
            {"recompute_window": False},
            "gradients reach back 4 steps, information when acting reaches back 7 steps; in "
            "training, memory is at most 4 steps old",
        ),
        ("mlp", {}, "gradients reach back 1 steps, information when acting reaches back 1 steps"),
        (
            "trxl_short_cache",
            {},
            "gradients reach back 10 steps, information when acting reaches back 10 steps",
        ),
    ],
)
def test_the_horizons_are_described(name: str, settings: dict[str, Any], line: str) -> None:
    assert describe_horizon(run(name, **settings), 3) == f"horizon: {line}"


@pytest.mark.parametrize(
    ("name", "lengths", "warns"),
    [
        ("dt", [4, 90, 9], True),
        ("dt", [3, 4], False),
        ("rate", [90], False),
        ("mlp", [3], True),
    ],
)
def test_a_task_beyond_the_horizon_is_warned_of(name: str, lengths: list[int], warns: bool) -> None:
    config = run(name, lengths=lengths)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        warn_of_horizon(config, get_environment("tmaze", {}), 3)
    assert len(caught) == warns
    if warns:
        assert f"Rollouts at {max(lengths)} may need" in str(caught[0].message)


def test_where_observations_hold_the_state_there_is_no_warning() -> None:
    pytest.importorskip("mujoco")
    environment = get_environment("mujoco", {})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_horizon(run("dt", lengths=[1000]), environment, 3)


def test_training_warns(make_config: MakeConfig) -> None:
    changes: dict[str, Any] = {"num_memory_tokens": 0, "valve": "none", "memory_noise": 0.0}
    changes = {f"model__{name}": value for name, value in changes.items()}
    with pytest.warns(UserWarning, match="depends on the last 4 steps alone"):
        train(make_config(**changes, training__max_steps=1, evaluation__every_n_steps=0))
