"""Fully sharded data parallelism, FSDP2 (`torch.distributed.fsdp.fully_shard`).

Every process keeps a part of each parameter of the backbone, of its gradient and of AdamW's moments
(Zhao et al. 2023, "PyTorch FSDP"). Layers are gathered when they compute, and freed afterwards. The
tokenizer, the head and the objective are small: each process has them whole, as with DDP.

What leaves training is whole: checkpoints and saved models are the same files as without sharding,
so that a run resumes with any strategy and number of processes, and rollouts, whose processes take
different numbers of steps, use a whole copy of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed.fsdp
from lightning.pytorch.strategies import DDPStrategy
from torch import Tensor
from torch import distributed as dist

from rate.backbones.base import Backbone
from rate.errors import ConfigError
from rate.model import SequenceModel
from trainers.distributed import is_part


class ShardedStrategy(DDPStrategy):
    """Lightning's strategy of processes on one or several nodes, with FSDP2 in the place of DDP.

    Lightning's own `ModelParallelStrategy` writes the optimiser's state by the names of parameters,
    which one process and DDP cannot read.

    Raises:
        ConfigError: If this PyTorch is too old.
    """

    def __init__(self) -> None:
        super().__init__()
        kind = getattr(torch.distributed.fsdp, "FSDPModule", None)
        if not hasattr(kind, "set_force_sum_reduction_for_comms"):
            raise ConfigError(
                f"training.strategy=fsdp2 needs a later PyTorch than {torch.__version__}. Update "
                "it, or use training.strategy=ddp."
            )

    def configure_ddp(self) -> None:
        """Shard the backbone; all processes start from the weights of the first."""
        module: Any = self.lightning_module
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)
        shard(module.model.backbone)

    def lightning_module_state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().lightning_module_state_dict()
        return dict(whole(state, keep=self.is_global_zero))

    def optimizer_state(self, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        return dict(whole(super().optimizer_state(optimizer), keep=self.is_global_zero))

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        super().load_optimizer_state_dict(checkpoint)
        for optimizer in self.optimizers:
            for parameter, state in optimizer.state.items():
                if is_part(parameter):
                    state.update(_sharded_as(parameter, state))


def shard(backbone: Backbone[Any]) -> None:
    """Shard the parameters of a backbone: its separate layers one by one, then what is left.

    Gradients are sums over the processes, as `trainers.losses` divides by the global weight.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method

    device = next(backbone.parameters()).device
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    scalars = {parameter for parameter in backbone.parameters() if not parameter.ndim}  # stay whole
    for layer in backbone.separate_layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True, ignored_params=scalars)
    # The rest is used outside of `forward` as well, such as the memory tokens of the first segment.
    fully_shard(backbone, mesh=mesh, reshard_after_forward=False, ignored_params=scalars)
    for name in ("initial_state", "forward_with_losses"):
        register_fsdp_forward_method(backbone, name)
    for part in backbone.modules():
        if isinstance(part, FSDPModule):
            part.set_gradient_divide_factor(1.0)
            part.set_force_sum_reduction_for_comms(True)


def whole(tree: Any, *, keep: bool = True) -> Any:
    """Returns nested containers with whole tensors in the place of sharded ones.

    All processes have to call it: each tensor is gathered, one after another.

    Args:
        tree: Dictionaries, lists and tuples of tensors and other values.
        keep: Whether this process needs the tensors; the others return empty ones.
    """
    if isinstance(tree, Mapping):
        return {key: whole(value, keep=keep) for key, value in tree.items()}
    if isinstance(tree, list | tuple):
        return type(tree)(whole(value, keep=keep) for value in tree)
    if not is_part(tree):
        return tree
    gathered = tree.full_tensor()
    return gathered if keep else gathered.new_empty(0)


def _sharded_as(parameter: Any, state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Returns this process's parts of an optimiser's state of one parameter."""
    from torch.distributed.tensor import distribute_tensor

    return {
        name: distribute_tensor(
            value, parameter.device_mesh, parameter.placements, src_data_rank=None
        )
        for name, value in state.items()
        if isinstance(value, Tensor) and value.shape == parameter.shape
    }


@contextmanager
def whole_model(module: Any) -> Iterator[None]:
    """Context in which `module.model` is a whole copy, if the model is sharded.

    All processes have to enter it. Inside, a process may compute what the others do not.
    """
    sharded = module.model
    if not any(map(is_part, sharded.parameters())):
        yield
        return
    with torch.random.fork_rng():
        copy = SequenceModel(
            sharded.config, sharded.observation_space, sharded.action_space
        )  # its initial weights are replaced
    copy.load_state_dict(whole(sharded.state_dict()))
    module.model = copy.to(module.device).train(sharded.training)
    try:
        yield
    finally:
        module.model = sharded
