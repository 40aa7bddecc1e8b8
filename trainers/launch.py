"""The processes of a run: started by us, or by a launcher (torchrun, srun, LSF, MPI).

Environment variables such as `RANK` and `SLURM_PROCID` are set by many programs and need not belong
to this run. They are used only if the launcher has started as many processes as the run has. A run
of one process ignores them: `srun -n 4 ... --seed $SLURM_PROCID` makes four runs.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.lsf import LSFEnvironment
from lightning.fabric.plugins.environments.mpi import MPIEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.utilities import rank_zero_only
from torch import distributed as dist

from rate.errors import ConfigError
from trainers.config import TrainingConfig

# Variables of a process group that PyTorch and Lightning read; removed if they are not this run's.
_GROUP = (
    *("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
_PARENT = "RATE_LAUNCHED_BY"  # in processes that we start: the id of their parent


def is_main_process() -> bool:
    """Whether this process has rank 0 in its run."""
    return getattr(rank_zero_only, "rank", None) in (None, 0)


def is_child() -> bool:
    """Whether another process of this run has started this one."""
    return _number(_PARENT) == os.getppid()


@contextmanager
def launched(training: TrainingConfig) -> Iterator[ClusterEnvironment]:
    """Determine the rank of this process in a run; inside, `is_main_process` uses it.

    At the end the environment variables are restored, and the process group of the run is
    destroyed: the processes of the next run in this process are others.

    Yields:
        The cluster environment for Lightning.

    Raises:
        ConfigError: If a launcher has started another number of processes than are to train.
    """
    before = dict(os.environ)
    rank_before = getattr(rank_zero_only, "rank", 0)
    cluster, rank = _cluster(training)
    setattr(rank_zero_only, "rank", rank)  # noqa: B010 (its type has no attributes)
    if not is_child():
        os.environ[_PARENT] = str(os.getpid())
    had_group = dist.is_available() and dist.is_initialized()
    try:
        yield cluster
    finally:
        if dist.is_available() and dist.is_initialized() and not had_group:
            dist.destroy_process_group()
        setattr(rank_zero_only, "rank", rank_before)  # noqa: B010
        for name in (*_GROUP, _PARENT):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]


def _cluster(training: TrainingConfig) -> tuple[ClusterEnvironment, int]:
    """Returns the cluster environment of the run and the rank of this process."""
    size = training.devices * training.nodes
    if size > 1 and (cluster := _launcher(size)) is not None:
        return cluster, cluster.global_rank()
    if size == 1 and (others := _number("WORLD_SIZE")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ:
        warnings.warn(
            f"torchrun has started {others} processes, but training.devices is 1: each makes a "
            f"whole run. With --training.devices {others} they train one together.",
            stacklevel=4,
        )
    together = size > 1 and _number("WORLD_SIZE") == size and "MASTER_PORT" in os.environ
    if not is_child() and not together and training.nodes == 1:
        for name in _GROUP:
            os.environ.pop(name, None)
    if training.nodes > 1 and not ("NODE_RANK" in os.environ and "MASTER_ADDR" in os.environ):
        raise ConfigError(
            f"training.nodes={training.nodes}, but no launcher has started {size} processes of "
            "this run. Start the command by torchrun or srun on every node (docs/scale.md), or set "
            "training.nodes=1."
        )
    lightning = LightningEnvironment()
    return lightning, lightning.node_rank() * training.devices + lightning.local_rank()


def _launcher(size: int) -> ClusterEnvironment | None:
    """Returns the launcher that has started `size` processes, this one among them, if any.

    Raises:
        ConfigError: If torchrun has started another number of them.
    """
    if TorchElasticEnvironment.detect():
        if (started := _number("WORLD_SIZE")) != size:
            raise ConfigError(
                f"torchrun has started {started} processes, but training.devices x "
                f"training.nodes is {size}. Make them the same, or leave torchrun out: "
                "processes for several devices are started by themselves."
            )
        return TorchElasticEnvironment()
    try:
        if _number("SLURM_NTASKS") == size and _in_srun():
            return SLURMEnvironment(auto_requeue=False)  # the signal is ours: it saves and ends
        for kind in (LSFEnvironment, MPIEnvironment):
            if kind.detect():
                cluster = kind()
                if cluster.world_size() == size:
                    return cluster
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"The launcher's variables cannot be used: {error}") from error
    return None


def _in_srun() -> bool:
    """Whether `srun` has started this process; `salloc` and `sbatch` set the same variables."""
    names = ("SLURM_STEP_ID", "SLURM_STEPID", "MASTER_PORT")
    return "SLURM_PROCID" in os.environ and any(name in os.environ for name in names)


def _number(name: str) -> int:
    """Returns an environment variable as a whole number, 0 if it is none."""
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else 0
