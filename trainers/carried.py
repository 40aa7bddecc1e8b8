"""The state that rows carry from batch to batch: truncated BPTT over whole episodes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from rate.batch import Batch
from rate.model import SequenceModel
from rate.state import State


class CarriedState:
    """The state of every row of a batch after the batch before, without its gradient history.

    It is part of the training state. Rows that begin an episode start from the initial state.
    """

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] | None = None

    def before(self, model: SequenceModel, batch: Batch) -> State:
        """Returns the state before a batch whose windows continue those of the batch before."""
        initial = model.initial_state(batch.batch_size)
        if self._tensors is None:
            return initial
        device = batch.mask.device
        carried = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return initial.with_tensors(carried).where(batch.timesteps[:, 0] == 0, initial)

    def keep(self, state: State) -> None:
        """Keeps the state after a batch."""
        self._tensors = state.detach().tensors()

    def state_dict(self) -> dict[str, Any]:
        return {} if self._tensors is None else dict(self._tensors)

    def load_state_dict(self, tensors: dict[str, Any]) -> None:
        self._tensors = dict(tensors) or None
