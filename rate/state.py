"""The recurrent state of a backbone, which it carries from segment to segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """The state of a backbone between two segments: an immutable value that no module holds.

    A backbone derives a frozen dataclass from it. Each field is a tensor whose first axis is the
    batch, a tuple of such tensors, or None; which of these depends on the model alone.
    """

    def detach(self) -> Self:
        """The same values without their gradient history: truncated BPTT."""
        return self._map(Tensor.detach)

    def where(self, rows: Tensor, other: Self) -> Self:
        """`other` in the rows `(B,)` bool that are True, this state in those that are not."""
        return self._map(
            lambda mine, theirs: torch.where(
                rows.view(-1, *(1 for _ in mine.shape[1:])), theirs, mine
            ),
            other,
        )

    def take(self, rows: Tensor) -> Self:
        """The rows `(b,)` int64 alone, in this order."""
        return self._map(lambda tensor: tensor[rows])

    def put(self, rows: Tensor, part: Self) -> Self:
        """This state with the rows `(b,)` int64 replaced by those of `part`."""
        return self._map(lambda mine, new: mine.index_copy(0, rows, new), part)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; those of a tuple are numbered, `memory.0`."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                found |= {f"{field.name}.{i}": tensor for i, tensor in enumerate(value)}
            elif value is not None:
                found[field.name] = value
        return found

    def _map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Applies `function` to every tensor, together with the same tensor of the other states."""
        values: dict[str, Any] = {}
        for field in fields(self):
            parts = [getattr(state, field.name) for state in (self, *others)]
            if parts[0] is None:
                values[field.name] = None
            elif isinstance(parts[0], tuple):
                values[field.name] = tuple(function(*each) for each in zip(*parts, strict=True))
            else:
                values[field.name] = function(*parts)
        return type(self)(**values)
