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
    """Within this context, more and larger tensors than some are refused before they are made.

    Tensors that are made of other tensors are not counted.

    Args:
        most_bytes: The sum of the sizes of the tensors that are made, in bytes.
        most_tensors: Their number.

    Raises:
        ValueError: In the context, before the allocation that would exceed the limit.
    """

    def __init__(self, most_bytes: int, most_tensors: int) -> None:
        super().__init__()
        self._bytes, self._tensors = most_bytes, most_tensors

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
            self._bytes -= _BYTES * math.prod(each for each in size if isinstance(each, int))
            self._tensors -= 1
            if min(self._bytes, self._tensors) < 0:
                raise ValueError("it has far more parameters than there are weights in its file")
        return func(*args, **kwargs)
