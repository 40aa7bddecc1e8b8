"""CUDA graphs of whole optimiser steps.

A step of a small model is thousands of kernels of a few microseconds, and Python takes longer to
launch them than a GPU to run them. A graph records the kernels of one step and launches them as a
whole (Nguyen et al. 2021, "Accelerating PyTorch with CUDA Graphs"). It replays fixed addresses and
host decisions: each batch is copied into the recorded one, and weights are updated in place. The
first steps are therefore also computed without the graph, and the results compared.
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

_WARM_UPS = 3  # libraries select algorithms and allocate workspaces, caches are filled
# The second of them finds what a graph has kept of the first: old weights, old data.
_CHECKS = 2
_TOLERANCE = 0.01  # relative to a norm: same kernels, but bfloat16 sums in any order

Compute = Callable[[Batch], Tensor]


class _Unusable(Exception):
    """A graph gives wrong results and must not be used; the message is the reason."""


class RecordedStep:
    """A CUDA graph of the optimiser step on batches of one shape.

    Args:
        compute: Writes the gradient of a batch to new `.grad` tensors and returns a row of numbers.
        optimizer: The optimiser that takes the step.
        batch: A batch of that shape.

    Attributes:
        checks: How many steps were compared with a step without the graph.
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
        """Take the step; returns the row of `compute`. Its gradient is kept until the next step."""
        self._batch.copy_(batch)
        self._optimizer.write_rate()
        self._replay()
        return self._row.clone()

    def show_gradient(self) -> None:
        """Set `.grad` of the parameters to the gradient of the last step."""
        for parameter, gradient in zip(self._parameters, self._gradients, strict=True):
            parameter.grad = gradient


class GraphedSteps:
    """Optimiser steps by CUDA graphs, one per batch shape; disabled once a graph fails.

    Args:
        compute: Writes the gradient of a batch to new `.grad` tensors and returns a row of numbers,
            of which the first two are the sum of the losses and of their weights.
        optimizer: The optimiser that takes the steps.
        required: Whether a failure is an error.

    Attributes:
        in_use: Whether no graph has failed.
    """

    def __init__(self, compute: Compute, optimizer: AdamW, *, required: bool) -> None:
        self._compute, self._optimizer, self._required = compute, optimizer, required
        self._recorded: dict[object, RecordedStep] = {}
        self.in_use = True

    def __call__(self, batch: Batch, seed: Callable[[], None]) -> Tensor | None:
        """Take an optimiser step.

        Args:
            batch: The batch, on the GPU.
            seed: Seeds the random generators for this batch.

        Returns:
            The row of `compute`; None if there is no graph, and then nothing has changed.

        Raises:
            ConfigError: If graphs are required but cannot be used.
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
                self._recorded.clear()  # earlier shapes do not recur; graphs share no memory
                recorded = RecordedStep(self._compute, self._optimizer, batch)
                self._recorded[shape] = recorded
                self._restore(before)  # undo the step that was recorded
            return self._compare_step(recorded, batch, seed)
        except (RuntimeError, _Unusable) as error:  # CUDA raises RuntimeError for all failures
            self._restore(before)
            self._fail(error)
            return None

    def _compare_step(
        self, recorded: RecordedStep, batch: Batch, seed: Callable[[], None]
    ) -> Tensor:
        """Take a step by the graph and without it, and compare gradients and updates.

        The second update uses the graph's gradient: near 0, AdamW follows the sign of the gradient,
        so that rounding differences would count again.
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
        expected = self._flat(self._compute(batch))
        _compare("gradient", found, expected, expected)
        recorded.show_gradient()
        self._optimizer.update()
        for tensor, expected in self._state().items():
            _compare("update", after[tensor], expected, expected - before[tensor])
        return row

    def _flat(self, row: Tensor) -> Tensor:
        """Returns the mean loss and all gradients as one vector, copied."""
        tensors = self._optimizer.changed_tensors()
        gradients = [tensor.grad.flatten() for tensor in tensors if tensor.grad is not None]
        return torch.cat([row[:1] / row[1:2], *gradients])

    def _changed(self) -> list[Tensor]:
        """Returns the tensors that a step changes."""
        found_inf = self._optimizer.found_inf
        tensors = self._optimizer.changed_tensors()
        return tensors if found_inf is None else [*tensors, found_inf]

    def _state(self) -> dict[Tensor, Tensor]:
        """Returns copies of the tensors that a step changes."""
        return {tensor: tensor.detach().clone() for tensor in self._changed()}

    @torch.no_grad()
    def _restore(self, state: dict[Tensor, Tensor]) -> None:
        """Restore the copied values; tensors made since are set to 0, as AdamW initialises them."""
        for tensor in self._changed():
            if tensor in state:
                tensor.copy_(state[tensor])
            else:
                tensor.zero_()

    def _fail(self, error: Exception) -> None:
        self.in_use = False
        self._recorded.clear()
        cause: BaseException = error
        while cause.__context__ is not None:  # ending a failed recording raises again
            cause = cause.__context__
        reason = f"{type(cause).__name__.lstrip('_')}: {cause}".splitlines()[0]
        what = f"The training step cannot be recorded as a CUDA graph here ({reason})."
        if self._required:
            raise ConfigError(f"{what} Set training.cuda_graphs=never.") from error
        warnings.warn(f"{what} Training goes on without.", stacklevel=2)


def _compare(what: str, found: Tensor, expected: Tensor, scale: Tensor) -> None:
    """Raise if two results differ by more than a hundredth of the norm of `scale`."""
    error, size = (found - expected).norm(), scale.norm()
    if torch.isfinite(size) and not error <= _TOLERANCE * size:
        raise _Unusable(f"its {what} is off by {error / size:.1%}")


def record(
    function: Callable[[], Tensor], parameters: list[nn.Parameter]
) -> tuple[Callable[[], None], Tensor, list[Tensor | None]]:
    """Record the GPU work of a function as a CUDA graph.

    Returns:
        A function that replays it; the result and the gradients, both updated in place by replays.

    Raises:
        RuntimeError: If an operation cannot be recorded.
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
    gc.collect()  # freeing an older graph during the recording would break it
    torch.clear_autocast_cache()  # or the graph would reuse the current casts of the weights
    try:
        # Another thread may be preparing the next batch.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            result = function()
    except RuntimeError:
        torch.cuda.set_stream(current)  # a failed recording leaves its own stream
        generator.graphsafe_set_state(state)  # it is still marked as being recorded
        raise
    finally:
        torch.clear_autocast_cache()
    return graph.replay, result, [parameter.grad for parameter in parameters]
