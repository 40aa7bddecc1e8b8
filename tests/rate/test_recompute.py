"""Activation checkpointing of segments: the same gradients, less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.checkpoint import checkpoint

from rate.model import SequenceModel
from tests.factories import MODELS, SPACES, STEPS, K, make_batch, make_model, noisy


def gradients(model: SequenceModel, recompute: bool) -> dict[str, Tensor]:
    torch.manual_seed(3)
    batch = make_batch(model, [STEPS, STEPS - 1, 5])
    hidden, _ = model.features(batch, recompute=recompute)
    loss = (model.head.loss(model.head(hidden), batch.actions) * batch.mask).sum()
    names, parameters = zip(*model.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return {name: g for name, g in zip(names, found, strict=True) if g is not None}


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_the_same(name: str) -> None:
    """With the same dropout masks in the second forward pass."""
    model = noisy(make_model(name), dropout=0.0).double().train()
    kept, recomputed = gradients(model, False), gradients(model, True)
    assert kept.keys() == recomputed.keys()
    for key, gradient in kept.items():
        torch.testing.assert_close(recomputed[key], gradient, rtol=1e-12, atol=1e-12)


def test_checkpointing_restores_the_random_state_of_the_device(monkeypatch) -> None:
    """PyTorch finds the device by the tensors that it is given, and looks into no other class."""
    given = []

    def noted(function: Any, *arguments: Any, **options: Any) -> Any:
        given.append({str(t.device) for t in tree_leaves(arguments) if isinstance(t, Tensor)})
        return checkpoint(function, *arguments, **options)

    monkeypatch.setattr("rate.model.checkpoint", noted)
    gradients(make_model("rate").train(), True)
    assert given == [{"cpu"}] * 3


@pytest.mark.parametrize("spaces", SPACES)
def test_gradients_are_the_same_in_every_space(spaces: str) -> None:
    model = make_model("rate_cache", spaces).double().train()
    kept, recomputed = gradients(model, False), gradients(model, True)
    for key, gradient in kept.items():
        torch.testing.assert_close(recomputed[key], gradient, rtol=1e-11, atol=1e-11)


class Live(TorchDispatchMode):
    """Counts the bytes of what was made inside and is still there."""

    def __init__(self) -> None:
        super().__init__()
        self._made: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves(args) if isinstance(t, Tensor)}
        for tensor in tree_leaves(out):
            storage = tensor.untyped_storage() if isinstance(tensor, Tensor) else None
            if storage is not None and storage._cdata not in given:  # else it is a view
                self._made[storage._cdata] = (StorageWeakRef(storage), storage.nbytes())
        return out

    @property
    def bytes(self) -> int:
        return sum(size for reference, size in self._made.values() if not reference.expired())


def kept_bytes(model: SequenceModel, segments: int, recompute: bool) -> int:
    """Bytes that are kept for the backward pass."""
    batch = make_batch(model, [segments * K] * 8)
    with Live() as live:
        hidden, _state = model.features(batch, recompute=recompute)
        assert hidden.requires_grad
        return live.bytes


@pytest.mark.parametrize("spaces", ["vector_to_discrete", "image_chw_to_discrete"])
def test_memory_grows_by_the_state_alone(spaces: str) -> None:
    model = make_model("rate", spaces, d_model=32, num_layers=4).train()
    rows, config = 8, model.config
    state = 4 * rows * config.num_memory_tokens * config.d_model
    output = 4 * rows * K * config.d_model
    grows = (kept_bytes(model, 12, True) - kept_bytes(model, 4, True)) / 8
    assert grows == state + output
    assert kept_bytes(model, 12, False) - kept_bytes(model, 4, False) > 8 * 20 * grows
