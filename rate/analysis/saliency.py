"""Gradient saliency: which past steps a prediction depends on."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from rate.batch import Batch
from rate.model import SequenceModel
from rate.state import State


def saliency(model: SequenceModel, batch: Batch) -> Tensor:
    """Returns how much the last prediction depends on each step, as shares `(T,)` that sum to 1.

    The share of a step is the norm of the gradient of half the squared norm of the prediction, with
    respect to the step's tokens, averaged over episodes (Simonyan et al. 2014). Gradients pass
    through the state from segment to segment, whatever training cuts. Parameters are left as they
    are.

    Args:
        model: In evaluation mode.
        batch: `(B, T)` episodes from their start. Of a model with a sliding window, the last K
            steps alone have a share.
    """
    with torch.no_grad():
        tokens = model.tokenizer(batch)
    # cuDNN's recurrent cells have no backward pass in evaluation mode.
    with torch.backends.cudnn.flags(enabled=False):
        return _shares(model, batch, tokens)


def _shares(model: SequenceModel, batch: Batch, tokens: Tensor) -> Tensor:
    length, steps = model.config.context_length, batch.num_steps
    tokens = tokens.requires_grad_()  # (B, T, n, d)
    start = 0 if model.config.carries_state else max(0, steps - length)
    state = model.initial_state(batch.batch_size)
    features = tokens[:, :0, 0]
    for first in range(start, steps, length):
        part = tokens[:, first : first + length]
        mask = batch.mask[:, first : first + length]
        # Activations are computed again: those of a long episode would not fit into memory.
        features, state = checkpoint(_segment, model, part, mask, state, use_reentrant=False)
    last = model.conditioned(features[:, -1], batch.returns_to_go[:, -1])
    prediction = model.head(last)
    (gradient,) = torch.autograd.grad(0.5 * prediction.square().sum(), tokens)
    sizes = gradient.flatten(2).norm(dim=-1).double()  # (B, T)
    shares: Tensor = (sizes / sizes.sum(1, keepdim=True).clamp(min=1e-300)).mean(0)
    return shares


def _segment(
    model: SequenceModel, tokens: Tensor, mask: Tensor, state: State
) -> tuple[Tensor, State]:
    return model.segment(tokens, mask, state)
