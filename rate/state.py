"""The recurrent state of a backbone, which it carries from segment to segment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor


@dataclass(frozen=True)
class State:
    """The state of a backbone between two segments: an immutable value that no module holds.

    A backbone derives a frozen dataclass from it. Each field is a tensor whose first axis is the
    batch, another state, a tuple of these, or None; which of them depends on the model alone.
    """

    def detach(self) -> Self:
        """The same values without their gradient history: truncated BPTT."""
        return self._map(Tensor.detach)

    def where(self, rows: Tensor, other: Self) -> Self:
        """`other` in the rows `(B,)` bool that are True, this state in those that are not."""
        return self._map(
            lambda own, replacement: torch.where(
                rows.view(-1, *(1 for _ in own.shape[1:])), replacement, own
            ),
            other,
        )

    def take(self, rows: Tensor) -> Self:
        """The rows `(b,)` int64 alone, in this order."""
        return self._map(lambda tensor: tensor[rows])

    def put(self, rows: Tensor, part: Self) -> Self:
        """This state with the rows `(b,)` int64 replaced by those of `part`."""
        return self._map(lambda own, new: own.index_copy(0, rows, new), part)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name; parts of a tuple are numbered, `memory.0`, `cells.1.hidden`."""
        found: dict[str, Tensor] = {}
        for field in fields(self):
            found |= _named(field.name, getattr(self, field.name))
        return found

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> Self:
        """This state with the values of `tensors()` of another.

        Raises:
            KeyError: If one is missing.
        """
        values = iter([tensors[name] for name in self.tensors()])
        return self._map(lambda _: next(values))

    def _map(self, function: Callable[..., Tensor], *others: Self) -> Self:
        """Applies `function` to every tensor, together with the same tensor of the other states."""
        values: dict[str, Any] = {}
        for field in fields(self):
            parts = [getattr(state, field.name) for state in (self, *others)]
            values[field.name] = _apply(function, parts)
        return type(self)(**values)


def _apply(function: Callable[..., Tensor], parts: list[Any]) -> Any:
    """`function` of the same part of several states."""
    if parts[0] is None:
        return None
    if isinstance(parts[0], tuple):
        return tuple(_apply(function, list(each)) for each in zip(*parts, strict=True))
    if isinstance(parts[0], State):
        return parts[0]._map(function, *parts[1:])
    return function(*parts)


def _named(name: str, part: Any) -> dict[str, Tensor]:
    """The tensors of a part of a state by name."""
    if part is None:
        return {}
    if isinstance(part, Tensor):
        return {name: part}
    inner = part.tensors() if isinstance(part, State) else dict(enumerate(part))
    found: dict[str, Tensor] = {}
    for key, value in inner.items():
        found |= _named(f"{name}.{key}", value)
    return found
