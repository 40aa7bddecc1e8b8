"""The batch of trajectory windows that models, samplers and losses share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

Observations = Tensor | dict[str, Tensor]


@dataclass  # not frozen: Lightning rebuilds batches when it changes their precision
class Batch:
    """A batch of `B` windows of `T` consecutive steps, batch first.

    Attributes:
        observations: `(B, T, *obs)`, or a dictionary of such tensors. Pixels stay uint8.
        actions: `(B, T)` int64 (discrete), `(B, T, A)` int64 (multi-discrete) or float.
        returns_to_go: `(B, T, 1)` float32, the undiscounted sum of the rewards from a step on.
        timesteps: `(B, T)` int64, the step's index within its episode.
        mask: `(B, T)` bool, True where the step is real. Padding stands at the end of a row.
        rewards: `(B, T)` float32.
        terminated: `(B, T)` bool, True at the last step of an episode that the environment ended:
            the return after it is 0.
        truncated: `(B, T)` bool, True at the last step of an episode that was cut, by a time limit
            or because its recording ends: the environment would have gone on. An end of unknown
            kind counts as one; an episode may be terminated and truncated at once.
        privileged: `(B, T, *privileged)` the privileged state, for an auxiliary loss; it is no
            input of a model. None where no loss asks for it.
        following: `(B, T)` bool, True at the observation that follows the last step of a truncated
            episode, or of an unroll that ends in the middle of one: a value is bootstrapped from
            it. It stands in the first place of the padding and is no step: it has no action and
            no reward, and the mask is False. None where the learning rule does not bootstrap.
        initial: The state of the model that each row starts from, `(B, ...)` by the names of
            `State.tensors`, for rows that begin in the middle of an episode. None is the initial
            state of the model.
        behaviour: `(B, T)` float32, the log-probabilities of the actions under the policy that took
            them. None where they are not known.
        importance: `(B,)` float32, the weight of each row in the loss, which corrects for sampling
            by priority. None weighs all rows alike.
    """

    observations: Observations
    actions: Tensor
    returns_to_go: Tensor
    timesteps: Tensor
    mask: Tensor
    rewards: Tensor
    terminated: Tensor
    truncated: Tensor
    privileged: Tensor | None = None
    following: Tensor | None = None
    initial: dict[str, Tensor] | None = None
    behaviour: Tensor | None = None
    importance: Tensor | None = None

    @property
    def batch_size(self) -> int:
        return self.mask.shape[0]

    @property
    def num_steps(self) -> int:
        return self.mask.shape[1]

    @property
    def episode_end(self) -> Tensor:
        """`(B, T)` bool, True at the last step of an episode, whatever ended it."""
        return self.terminated | self.truncated

    @property
    def observed(self) -> Tensor:
        """`(B, T)` bool, True where there is an observation: at real steps, and at `following`."""
        return self.mask if self.following is None else self.mask | self.following

    def steps(self, start: int, stop: int) -> Batch:
        """The steps `start` to `stop` (exclusive) of every row, as views.

        Only the first steps of a row start from its initial state.
        """
        of_steps = replace(self, initial=None, importance=None)
        found = of_steps._map(lambda tensor: tensor[:, start:stop])
        initial = None if start else self.initial
        return replace(found, initial=initial, importance=self.importance)

    @classmethod
    def joined(cls, batches: Sequence[Batch]) -> Batch:
        """The rows of several batches, one batch after another; all have the same parts."""
        found = iter(
            [torch.cat(parts) for parts in zip(*(b.tensors() for b in batches), strict=True)]
        )
        return batches[0]._map(lambda _: next(found))

    def take(self, rows: slice | Tensor) -> Batch:
        """The chosen rows of the batch."""
        return self._map(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def clone(self) -> Batch:
        """A copy that shares no memory with it."""
        return self._map(torch.clone)

    def copy_(self, other: Batch) -> None:
        """Copies the values of a batch of the same shape into this one."""
        for target, source in zip(self.tensors(), other.tensors(), strict=True):
            target.copy_(source, non_blocking=True)

    def tensors(self) -> list[Tensor]:
        """All its tensors, in the order of the attributes."""
        found: list[Tensor] = []
        for field in fields(self):
            part = getattr(self, field.name)
            found += part.values() if isinstance(part, dict) else [] if part is None else [part]
        return found

    def pin_memory(self) -> Batch:
        """A copy in pinned (page-locked) memory, for asynchronous transfers to a GPU."""
        return self._map(lambda tensor: tensor.pin_memory())

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Tells PyTorch's allocator that `stream` uses the tensors as well."""
        for tensor in self.tensors():
            tensor.record_stream(stream)

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        parts = {f.name: getattr(self, f.name) for f in fields(self)}
        mapped: dict[str, Any] = {
            name: map_tensors(part, function) for name, part in parts.items() if part is not None
        }
        return Batch(**mapped)


def map_tensors(value: Observations, function: Callable[[Tensor], Tensor]) -> Observations:
    """Apply `function` to a tensor, or to every tensor of a dictionary of them."""
    if isinstance(value, dict):
        return {key: function(tensor) for key, tensor in value.items()}
    return function(value)


def on_device(tensor: Tensor, device: torch.device) -> Tensor:
    """An asynchronous copy of a CPU tensor to a device.

    The tensor may be changed afterwards: CUDA copies pageable memory before it returns.
    """
    return tensor.to(device, non_blocking=True)


def stack_frames(frames: Tensor, count: int) -> Tensor:
    """Observations of `count` frames each, the newest last, from single frames.

    Args:
        frames: `(B, count - 1 + T, *frame)`. A frame is `(H, W)`, or an image with its channels
            first or last (the shorter of the two axes).
        count: Frames of an observation.

    Returns:
        `(B, T, *obs)`, the frames being channels: `(count, H, W)`, or `count` times as many
        channels as a frame has.
    """
    windows = frames.unfold(1, count, 1)  # (B, T, *frame, count), a view
    if frames.ndim == 4:
        return windows.movedim(-1, 2)
    if frames.shape[-1] < frames.shape[2]:  # (B, T, H, W, C, count)
        return windows.transpose(-1, -2).flatten(-2)
    return windows.movedim(-1, 2).flatten(2, 3)
