"""Linear probes: what can be read from a model's memory along an episode."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from rate.analysis.states import follow, memory_parts
from rate.batch import Batch
from rate.model import SequenceModel

FEATURES = "features"  # the input of the action head, a part of every model
_MOST_VALUES = 10  # of a label
_FEWEST_EPISODES = 8
_SPLITS = 10
_RIDGE = 0.01  # relative to the mean squared norm of an episode's memory


@dataclass(frozen=True)
class ProbeReport:
    """What linear probes read from the memory after each segment.

    Attributes:
        accuracy: By label and part of the memory, the accuracy on held-out episodes after each of
            the `N` segments; NaN where too few episodes run. The part `features` is the input of
            the action head at the last step of the segment.
        majority: By label, the share of its most frequent value: the accuracy without memory.
    """

    accuracy: dict[str, dict[str, list[float]]]
    majority: dict[str, float]


@torch.no_grad()
def probe(model: SequenceModel, batch: Batch, labels: Mapping[str, Tensor]) -> ProbeReport:
    """Fit linear probes to the memory after each whole segment, and test them on other episodes.

    Args:
        model: In evaluation mode.
        batch: Episodes from their start, `(B, T)`.
        labels: Whole numbers `(B, T)` to read, by name; see `labels_of`.
    """
    length = model.config.context_length
    segments = batch.num_steps // length
    ended = batch.episode_end.cumsum(1) - batch.episode_end.long() > 0  # (B, T): before this step
    accuracy: dict[str, dict[str, list[float]]] = {label: {} for label in labels}
    for number, (state, features) in enumerate(follow(model, batch.steps(0, segments * length))):
        last = (number + 1) * length - 1
        running = ~ended[:, last]
        parts = {**memory_parts(state), FEATURES: features[:, -1]}
        for label, values in labels.items():
            for part, memory in parts.items():
                found = held_out_accuracy(memory.flatten(1)[running], values[running, last])
                accuracy[label].setdefault(part, []).append(found)
    majority = {label: _majority(values[:, -1]) for label, values in labels.items()}
    return ProbeReport(accuracy, majority)


def held_out_accuracy(memory: Tensor, labels: Tensor) -> float:
    """Returns the accuracy of a linear probe on held-out episodes, the mean over random halves.

    The probe is a ridge regression of the label's values, one-hot, and predicts the largest.

    Args:
        memory: `(E, D)`.
        labels: `(E,)` whole numbers.

    Returns:
        NaN with fewer than 8 episodes, or labels of one value.
    """
    count = len(labels)
    values, classes = torch.unique(labels, return_inverse=True)
    if count < _FEWEST_EPISODES or len(values) < 2:
        return float("nan")
    targets = torch.nn.functional.one_hot(classes).double()
    memory = memory.double()
    generator = torch.Generator().manual_seed(0)
    correct = 0
    for _ in range(_SPLITS):
        order = torch.randperm(count, generator=generator)
        train, test = order[: count - count // 2], order[count - count // 2 :]
        predicted = _ridge(memory[train], targets[train], memory[test])
        correct += int((predicted.argmax(1) == classes[test]).sum())
    return correct / (_SPLITS * (count // 2))


def labels_of(batch: Batch) -> dict[str, Tensor]:
    """Returns what a memory could hold of episodes, as whole numbers `(B, T)` by name.

    These are the components of the privileged state, and those of the first observation that are
    numbers, each if it takes two to ten values.
    """
    found: dict[str, Tensor] = {}
    if batch.privileged is not None:
        found |= _components("privileged", batch.privileged)
    observations = batch.observations
    named = observations if isinstance(observations, dict) else {"observation": observations}
    for name, part in named.items():
        if part.dtype != torch.uint8 and name != "privileged":
            first = part[:, :1].expand(-1, batch.num_steps, *part.shape[2:])
            found |= _components(f"first {name}", first)
    return found


def _components(name: str, part: Tensor) -> dict[str, Tensor]:
    flat = part.reshape(*part.shape[:2], -1)  # (B, T, D)
    found = {}
    for index in range(flat.shape[-1]):
        values, numbers = torch.unique(flat[..., index], return_inverse=True)
        if 2 <= len(values) <= _MOST_VALUES:
            found[f"{name} {index}" if flat.shape[-1] > 1 else name] = numbers
    return found


def _ridge(memory: Tensor, targets: Tensor, unseen: Tensor) -> Tensor:
    """Returns the predictions of a ridge regression, in its dual form: D may be far above E."""
    centre, mean = memory.mean(0), targets.mean(0)
    memory, unseen = memory - centre, unseen - centre
    gram = memory @ memory.T  # (E, E)
    penalty = _RIDGE * gram.diagonal().mean() + 1e-12
    eye = torch.eye(len(gram), dtype=gram.dtype)
    weights = torch.linalg.solve(gram + penalty * eye, targets - mean)
    predicted: Tensor = unseen @ memory.T @ weights + mean
    return predicted


def _majority(labels: Tensor) -> float:
    counts: Tensor = torch.unique(labels, return_counts=True)[1]
    return float(counts.max() / len(labels))
