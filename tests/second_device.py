"""A device beside the CPU for machines that have none: it computes on the CPU, and counts.

Its tensors hold tensors of the CPU. To mix the two is an error, as it is with a GPU, and
`SecondDevice.waits` counts what has the host wait until a GPU has done all that it was told: to
read numbers, to send some without `non_blocking`, and all whose shape only the numbers tell.

PyTorch never forgets such a device, so only processes that are made for it import this module.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, ClassVar, cast

import torch
from lightning.pytorch.accelerators import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import (
    _DummyBackendModule,
    _setup_privateuseone_for_python_backend,
)

aten = torch.ops.aten
_COPIES = (aten._to_copy.default, aten.copy_.default)
_INDEXING = (aten.index.Tensor, aten.index_put_.default, aten.index_put.default)
_READING = (
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.equal.default,
)


class _Module(_DummyBackendModule):
    """What PyTorch calls `torch.second`."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]

    def manual_seed(self, seed: int) -> None:
        """Random numbers are the CPU's."""

    def synchronize(self, *_: Any) -> None:
        """All is done."""


_setup_privateuseone_for_python_backend("second", _Module())
SECOND = torch.device("second", 0)


class SecondTensor(torch.Tensor):
    """A tensor of the second device.

    Args:
        held: Where its numbers are.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    def __new__(cls, held: Tensor) -> SecondTensor:
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, held.stride(), held.storage_offset(), dtype=held.dtype, device=SECOND
        )
        made.held = held
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, *_: Any) -> Any:
        raise RuntimeError(f"{function}: the second device is not switched on")


class SecondDevice(TorchDispatchMode):
    """While it is on, tensors can be made on the second device and be computed with.

    Attributes:
        waits: What the host has waited for, and how often.
    """

    waits: ClassVar[Counter[str]] = Counter()  # of the process, as the device is

    def __init__(self) -> None:
        super().__init__()
        self.waits.clear()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        ours = [x for x in tensors if isinstance(x, SecondTensor)]
        device = kwargs.get("device")
        is_target = device is not None and torch.device(device).type == SECOND.type
        if not ours and not is_target:
            return function(*args, **kwargs)
        strangers = [x for x in tensors if x.ndim and not isinstance(x, SecondTensor)]
        if strangers and device is None and function not in _COPIES + _INDEXING:
            raise RuntimeError(f"{function} mixes tensors of the second device and of the CPU")
        if self._waits_for(function, args, kwargs):
            self.waits[str(function)] += 1
        if is_target:
            kwargs["device"] = torch.device("cpu")
        wrapper = {id(x.held): x for x in ours}
        args, kwargs = tree_map(_held, (args, kwargs))
        out = function(*args, **kwargs)
        if function is aten._to_copy.default and device is not None and not is_target:
            return out
        return tree_map(lambda x: wrapper.get(id(x), _second(x)), out)

    @staticmethod
    def _waits_for(function: Any, args: Any, kwargs: Any) -> bool:
        if function in _READING:
            return True
        if function in _INDEXING:  # a mask; but a single number is filled in where it is true
            is_filled = function is not aten.index.Tensor and args[2].numel() == 1
            return not is_filled and any(x is not None and x.dtype == torch.bool for x in args[1])
        if function is aten._to_copy.default:
            target = kwargs.get("device")
            crosses = target is not None and torch.device(target) != args[0].device
            return crosses and not kwargs.get("non_blocking")
        if function is aten.copy_.default:
            crosses = args[0].device != args[1].device
            return crosses and not (len(args) > 2 and args[2]) and not kwargs.get("non_blocking")
        return False


def _empty_strided(size: Any, stride: Any, *, dtype: Any = None, **_: Any) -> Tensor:
    return SecondTensor(torch.empty_strided(size, stride, dtype=dtype))


def _copy_from(source: Tensor, target: Any, non_blocking: bool = False) -> Tensor:
    SecondDevice.waits["torch.tensor"] += not non_blocking
    target.held.copy_(source)
    return cast("Tensor", target)


# `torch.tensor` makes its tensor past all modes.
_LIBRARY = torch.library.Library("aten", "IMPL")
_LIBRARY.impl("empty_strided", _empty_strided, "PrivateUse1")
_LIBRARY.impl("_copy_from", _copy_from, "PrivateUse1")


def _held(x: Any) -> Any:
    if not isinstance(x, SecondTensor):
        return x
    # A conjugate is a bit of the tensor, which nothing looks at below this mode.
    return x.held.conj().conj_physical() if x.held.is_conj() else x.held


def _second(x: Any) -> Any:
    return SecondTensor(x) if isinstance(x, Tensor) else x


class SecondAccelerator(Accelerator):
    """The second device, as Lightning asks for it."""

    def setup_device(self, device: torch.device) -> None:
        """It is always ready."""

    def teardown(self) -> None:
        """There is nothing to give back."""

    def get_device_stats(self, device: Any) -> dict[str, Any]:
        return {}

    @staticmethod
    def parse_devices(devices: Any) -> int:
        return 1

    @staticmethod
    def get_parallel_devices(devices: Any) -> list[torch.device]:
        return [SECOND]

    @staticmethod
    def auto_device_count() -> int:
        return 1

    @staticmethod
    def is_available() -> bool:
        return True

    @staticmethod
    def name() -> str:
        return SECOND.type
