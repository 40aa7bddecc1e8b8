"""A limit of what a model may allocate while it is built from a description that a file gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.rand, torch.randn, torch.full}
_BYTES = 4  # of a number of the default type


class AllocationLimit(TorchFunctionMode):
    """Within this context, making tensors of more than `most` bytes in all is refused beforehand.

    Tensors that are made of other tensors are not counted.

    Args:
        most: The sum of the sizes of the tensors that are made, in bytes.

    Raises:
        ValueError: In the context, before the allocation that would exceed the limit.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self._left = self._most = most

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in _FACTORIES:
            size = kwargs.get("size", args[0] if args and not isinstance(args[0], int) else args)
            self._left -= _BYTES * math.prod(each for each in size if isinstance(each, int))
            if self._left < 0:
                raise ValueError(
                    f"it has more than {self._most:,} bytes, which is more than its weights"
                )
        return func(*args, **kwargs)
