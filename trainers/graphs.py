"""Gradients of a whole batch by one launch: CUDA graphs.

A step of a small model is thousands of kernels of a few microseconds, and Python takes longer to
launch them than a GPU to run them. A graph is recorded while a step runs, and launched as a whole
from then on (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). It repeats addresses: a
batch is copied to where the recorded one was, gradients come out where they came out then, and
whatever the host decided in between stays decided. So the first batches are computed both ways.
"""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from rate.batch import Batch
from rate.errors import ConfigError

_WARM_UPS = 3  # libraries choose algorithms and take their memory, tables are made
# The second of them finds what a graph has kept of the first: old weights, old data.
_CHECKS = 2
_TOLERANCE = 0.01  # of a gradient's norm: the same kernels, but sums of bfloat16 in any order


class _Unusable(Exception):
    """Why a graph must not be used."""


class RecordedGradients:
    """Gradients of batches of one shape, out of a graph.

    Args:
        compute: Leaves the gradient of a batch in `.grad`, anew, and returns numbers, of which the
            first two are a sum of losses and of their weights.
        parameters: Whose gradient that is.
        batch: One of that shape.
    """

    def __init__(
        self, compute: Callable[[Batch], Tensor], parameters: list[nn.Parameter], batch: Batch
    ) -> None:
        self.checks = 0
        self._parameters, self._batch = parameters, batch.clone()
        self._replay, self._sums, self._gradients = record(lambda: compute(self._batch), parameters)

    def __call__(self, batch: Batch) -> Tensor:
        """As `compute`, but what it returns and the gradient hold until the next call alone."""
        self._batch.copy_(batch)
        self._replay()
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient
        return self._sums


class GraphedGradients:
    """Gradients out of graphs, one for every shape of a batch; without, once one fails.

    Args:
        compute: Leaves the gradient of a batch in `.grad`, anew, and returns numbers, of which the
            first two are a sum of losses and of their weights.
        parameters: Whose gradient that is.
        required: Whether to do without is an error.

    Attributes:
        in_use: Whether none has failed.
    """

    def __init__(
        self,
        compute: Callable[[Batch], Tensor],
        parameters: list[nn.Parameter],
        *,
        required: bool,
    ) -> None:
        self._compute, self._parameters, self._required = compute, parameters, required
        self._recorded: dict[object, RecordedGradients] = {}
        self.in_use = True

    def __call__(self, batch: Batch, seed: Callable[[], None]) -> Tensor:
        """Leave the gradient of a batch in `.grad`; returns what `compute` does.

        Args:
            batch: On the GPU.
            seed: Sets the generators as they have to be for this batch.

        Raises:
            ConfigError: If graphs are required, and cannot be used.
        """
        if self.in_use:
            try:
                return self._from_graph(batch, seed)
            except (RuntimeError, _Unusable) as error:  # CUDA has one class for all it refuses
                self._fail(error)
        seed()
        return self._compute(batch)

    def _from_graph(self, batch: Batch, seed: Callable[[], None]) -> Tensor:
        shape = tuple((tensor.shape, tensor.dtype) for tensor in batch.tensors())
        if shape not in self._recorded:
            self._recorded.clear()  # a curriculum does not come back, and graphs share no memory
            self._recorded[shape] = RecordedGradients(self._compute, self._parameters, batch)
        recorded = self._recorded[shape]
        if recorded.checks == _CHECKS:
            seed()
            return recorded(batch)
        recorded.checks += 1
        seed()
        wanted = self._flat(self._compute(batch))
        seed()
        sums = recorded(batch)
        error, size = (self._flat(sums) - wanted).norm(), wanted.norm()
        if torch.isfinite(size) and not error <= _TOLERANCE * size:
            raise _Unusable(f"its gradient is off by {error / size:.1%}")
        return sums

    def _flat(self, sums: Tensor) -> Tensor:
        """Copies of the mean loss and of the whole gradient, in one vector."""
        gradients = [p.grad.flatten() for p in self._parameters if p.grad is not None]
        return torch.cat([sums[:1] / sums[1:2], *gradients])

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


def record(
    function: Callable[[], Tensor], parameters: list[nn.Parameter]
) -> tuple[Callable[[], None], Tensor, list[Tensor | None]]:
    """Record what a function does on the GPU.

    Returns:
        What does it again; its result and the gradients it leaves, which are then replaced in
        place.

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
