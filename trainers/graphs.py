"""Whole optimiser steps by one launch: CUDA graphs.

A step of a small model is thousands of kernels of a few microseconds, and Python takes longer to
launch them than a GPU to run them. A graph is recorded while a step runs, and launched as a whole
from then on (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). It repeats addresses: a
batch is copied to where the recorded one was, weights change where they are, and whatever the host
decided in between stays decided. So the first batches are computed both ways.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError
from trainers.optimization import AdamW

_WARM_UPS = 3  # libraries choose algorithms and take their memory, tables are made
# The second of them finds what a graph has kept of the first: old weights, old data.
_CHECKS = 2
_TOLERANCE = 0.01  # of a norm: the same kernels, but sums of bfloat16 in any order

Compute = Callable[[Batch], Tensor]


class _Unusable(Exception):
    """Why a graph must not be used."""


class RecordedStep:
    """Optimiser steps on batches of one shape, out of a graph.

    Args:
        compute: Leaves the gradient of a batch in `.grad`, anew, and returns a row of numbers.
        optimizer: What takes the step then.
        batch: One of that shape.

    Attributes:
        checks: How often it was compared with a step without it.
    """

    def __init__(self, compute: Compute, optimizer: AdamW, batch: Batch) -> None:
        self.checks = 0
        self._optimizer, self._batch = optimizer, batch.clone()
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]

        def step() -> Tensor:
            row = compute(self._batch)
            optimizer.update_at_rate()
            return row

        self._replay, self._row, self._gradients = record(step, self._parameters)

    def __call__(self, batch: Batch) -> Tensor:
        """Take the step; returns what `compute` does, and leaves its gradient until the next."""
        self._batch.copy_(batch)
        self._optimizer.write_rate()
        self._replay()
        return self._row.clone()

    def show_gradient(self) -> None:
        """Leave the gradient of the last step in `.grad`."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient


class GraphedSteps:
    """Optimiser steps out of graphs, one for every shape of a batch; none once one fails.

    Args:
        compute: Leaves the gradient of a batch in `.grad`, anew, and returns a row of numbers, of
            which the first two are a sum of losses and of their weights.
        optimizer: What takes the steps.
        required: Whether to do without is an error.

    Attributes:
        in_use: Whether none has failed.
    """

    def __init__(self, compute: Compute, optimizer: AdamW, *, required: bool) -> None:
        self._compute, self._optimizer, self._required = compute, optimizer, required
        self._recorded: dict[object, RecordedStep] = {}
        self.in_use = True

    def __call__(self, batch: Batch, seed: Callable[[], None]) -> Tensor | None:
        """Take an optimiser step.

        Args:
            batch: On the GPU.
            seed: Sets the generators as they have to be for this batch.

        Returns:
            What `compute` does, or None where there is no graph: nothing has changed then.

        Raises:
            ConfigError: If graphs are required, and cannot be used.
        """
        if not self.in_use:
            return None
        shape = tuple((tensor.shape, tensor.dtype) for tensor in batch.tensors())
        recorded = self._recorded.get(shape)
        if recorded is not None and recorded.checks == _CHECKS:
            seed()
            return recorded(batch)
        before = self._state()
        try:
            if recorded is None:
                self._recorded.clear()  # a curriculum does not come back; graphs share no memory
                recorded = RecordedStep(self._compute, self._optimizer, batch)
                self._recorded[shape] = recorded
                self._restore(before)  # what was recorded was a step as well
            return self._take_both_ways(recorded, batch, seed)
        except (RuntimeError, _Unusable) as error:  # CUDA has one class for all it refuses
            self._restore(before)
            self._fail(error)
            return None

    def _take_both_ways(
        self, recorded: RecordedStep, batch: Batch, seed: Callable[[], None]
    ) -> Tensor:
        """A step by a graph, then without it: the gradient anew, and AdamW on the graph's own.

        Noise in a gradient must not count twice: where one is about 0, AdamW goes by its sign.
        """
        recorded.checks += 1
        before = self._state()
        seed()
        row = recorded(batch)
        after = self._state()
        recorded.show_gradient()
        found = self._flat(row)
        self._restore(before)
        seed()
        wanted = self._flat(self._compute(batch))
        _compare("gradient", found, wanted, wanted)
        recorded.show_gradient()
        self._optimizer.update()
        for tensor, wanted in self._state().items():
            _compare("update", after[tensor], wanted, wanted - before[tensor])
        return row

    def _flat(self, row: Tensor) -> Tensor:
        """Copies of the mean loss and of the whole gradient, in one vector."""
        tensors = self._optimizer.changed_tensors()
        gradients = [tensor.grad.flatten() for tensor in tensors if tensor.grad is not None]
        return torch.cat([row[:1] / row[1:2], *gradients])

    def _changed(self) -> list[Tensor]:
        """All that a step changes."""
        found_inf = self._optimizer.found_inf
        tensors = self._optimizer.changed_tensors()
        return tensors if found_inf is None else [*tensors, found_inf]

    def _state(self) -> dict[Tensor, Tensor]:
        """Copies of it."""
        return {tensor: tensor.detach().clone() for tensor in self._changed()}

    @torch.no_grad()
    def _restore(self, state: dict[Tensor, Tensor]) -> None:
        """Set everything back; what did not exist then begins with zeros, as AdamW's does."""
        for tensor in self._changed():
            if tensor in state:
                tensor.copy_(state[tensor])
            else:
                tensor.zero_()

    def _fail(self, error: Exception) -> None:
        self.in_use = False
        self._recorded.clear()
        cause: BaseException = error
        while cause.__context__ is not None:  # the end of a recording that failed fails as well
            cause = cause.__context__
        reason = f"{type(cause).__name__.lstrip('_')}: {cause}".splitlines()[0]
        what = f"The training step cannot be recorded as a CUDA graph here ({reason})."
        if self._required:
            raise ConfigError(f"{what} Set training.cuda_graphs=never.") from error
        warnings.warn(f"{what} Training goes on without.", stacklevel=2)


def _compare(what: str, found: Tensor, wanted: Tensor, scale: Tensor) -> None:
    """Refuse a graph whose result is off by more than a hundredth of the norm of `scale`."""
    error, size = (found - wanted).norm(), scale.norm()
    if torch.isfinite(size) and not error <= _TOLERANCE * size:
        raise _Unusable(f"its {what} is off by {error / size:.1%}")


def record(
    function: Callable[[], Tensor], parameters: list[nn.Parameter]
) -> tuple[Callable[[], None], Tensor, list[Tensor | None]]:
    """Record what a function does on the GPU.

    Returns:
        What does it again; its result and the gradients it leaves, both then replaced in place.

    Raises:
        RuntimeError: If something in it cannot be recorded.
    """
    generator = torch.cuda.default_generators[torch.cuda.current_device()]
    state = generator.clone_state()
    current, stream = torch.cuda.current_stream(), torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(current)
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            function()
    current.wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    gc.collect()  # not in the middle of the recording, which an older graph's end would spoil
    torch.clear_autocast_cache()  # or the graph would use the weights as they are cast now
    try:
        # Another thread may be making the next batch.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
    except RuntimeError:
        torch.cuda.set_stream(current)  # it leaves its own
        generator.graphsafe_set_state(state)  # it still believes that it is being recorded
        raise
    finally:
        torch.clear_autocast_cache()
    return graph.replay, result, [parameter.grad for parameter in parameters]
