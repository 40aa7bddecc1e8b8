"""Run in two processes by `test_processes.py`: sharded models and optimisers against whole ones.

    torchrun --standalone --nproc-per-node 2 -m tests.trainers.sharding_checks [MODEL ...]

Prints a line for each of the models of `tests.factories`, by default all of them.
"""

from __future__ import annotations

import copy
import sys
from datetime import timedelta
from types import SimpleNamespace

import torch
from torch import distributed as dist

from rate.batch import Batch
from rate.model import SequenceModel
from tests.factories import MODELS, STEPS, make_batch, make_model, rows_of
from trainers.config_learning import OptimizerConfig
from trainers.distributed import clip_gradients, sum_gradients
from trainers.optimization import make_optimizer
from trainers.sharding import shard, whole, whole_model

LIMIT = 0.5


def backward(model: SequenceModel, batch: Batch) -> None:
    features, _, losses = model.features_and_losses(batch)
    total = (model.head.loss(model.head(features), batch.actions) * batch.mask).sum()
    (total + sum(loss.sum() for loss in losses.values())).backward()


def check(name: str, rank: int, size: int) -> str:
    """Returns what differs between a sharded model and a whole one, empty if nothing does."""
    settings = OptimizerConfig(learning_rate=1e-3, warmup_steps=0)
    sharded = make_model(MODELS[name])
    reference = copy.deepcopy(sharded)
    batch = make_batch(sharded, [STEPS, 7, 10, 3])
    part = rows_of(batch, torch.arange(rank, batch.batch_size, size))
    shard(sharded.backbone)
    optimizer, _ = make_optimizer(sharded, settings, 2, fused=True)
    plain, _ = make_optimizer(reference, settings, 2, fused=True)
    for _ in range(2):
        norms = []
        for model, rows, adamw in ((sharded, part, optimizer), (reference, batch, plain)):
            adamw.zero_grad(set_to_none=True)
            backward(model, rows)
            if model is sharded:
                sum_gradients(model.parameters())
            norms.append(clip_gradients(list(model.parameters()), LIMIT))
        if not torch.allclose(*norms, rtol=1e-4):
            return f"norms {norms}"
        pairs = zip(sharded.named_parameters(), reference.parameters(), strict=True)
        for (key, parameter), other in pairs:
            found, expected = whole(parameter.grad), other.grad
            if (found is None) != (expected is None):
                return f"{key} has a gradient in one of them"
            if found is not None and not torch.allclose(found, expected, rtol=1e-3, atol=1e-6):
                return f"the gradient of {key} by {(found - expected).abs().max()}"
        for model, adamw in ((sharded, optimizer), (reference, plain)):
            adamw.step()
            model.backbone.after_step()
        reference.load_state_dict(whole(sharded.state_dict()))  # Adam divides by tiny numbers
    state, known = whole(optimizer.state_dict()), plain.state_dict()
    if state.keys() != known.keys() or state["state"].keys() != known["state"].keys():
        return "the layout of the optimiser's state"
    module = SimpleNamespace(model=sharded, device=torch.device("cpu"))
    with whole_model(module):
        if not rank:  # one process alone
            module.model.features_and_losses(batch)
    return ""


def main() -> None:
    dist.init_process_group("gloo", timeout=timedelta(minutes=2))
    rank, size = dist.get_rank(), dist.get_world_size()
    for name in sys.argv[1:] or MODELS:
        wrong = check(name, rank, size)
        print(f"{name} differs: {wrong}" if wrong else f"{name} is as a whole one", flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
