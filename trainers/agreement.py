"""What the processes of a run have to agree on before they train together.

Processes that a launcher starts on several machines may find other code, data or checkpoints there.
A difference, or an error of one of them, ends all of them with a message, instead of leaving the
others waiting for a process that never comes.
"""

from __future__ import annotations

import hashlib
import json
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch import Trainer
from torch import distributed as dist

from rate.errors import ConfigError, UserError
from trainers.config import RunConfig
from trainers.gathering import gather
from trainers.launch import is_child
from trainers.versions import Facts, versions


def join(cluster: ClusterEnvironment, make_trainer: Callable[[], Trainer]) -> bool:
    """Form the process group at once, if a launcher has started all processes of the run.

    Args:
        cluster: The launcher.
        make_trainer: Makes the trainer of the run, which knows the group's kind.

    Returns:
        Whether there is one. Processes that this one starts itself share its machine, and join it
        when it starts them.
    """
    if not cluster.creates_processes_externally or is_child():
        return False
    trainer = make_trainer()
    if trainer.world_size > 1:
        trainer.strategy.setup_environment()
    return dist.is_available() and dist.is_initialized()


@contextmanager
def agreeing(together: bool) -> Iterator[Facts]:
    """Compare what the processes find at the end of a block, and tell all of an error in one.

    Args:
        together: Whether there are other processes to compare with; see `join`.

    Yields:
        An empty dictionary for what must be the same, by name.

    Raises:
        ConfigError: If another process has raised an error, or has found something else; the
            message names the process and its machine.
    """
    facts: Facts = {}
    if not together:
        yield facts
        return
    problem = ""
    try:
        yield facts
    except BaseException as error:
        problem = str(error) if isinstance(error, UserError) else f"{error!r}"
        raise
    finally:
        found = gather((problem, facts, socket.gethostname()))
        if not problem:
            _compare(found)


def _compare(found: list[tuple[str, Facts, str]]) -> None:
    """Raise what another process has raised, or the first difference to process 0."""
    for rank, (problem, _, host) in enumerate(found):
        if problem:
            raise ConfigError(f"Process {rank} of {len(found)}, on {host}: {problem}")
    _, expected, first = found[0]
    for rank, (_, facts, host) in enumerate(found):
        for name, value in facts.items():
            if value != expected.get(name):
                raise ConfigError(
                    f"Process {rank} of {len(found)}, on {host}, has other {name} ({value}) than "
                    f"process 0 on {first} ({expected.get(name)}). All have to train on the same: "
                    "install the same version everywhere, and give them the same files, such as "
                    "those of a shared file system."
                )


def facts_of(config: RunConfig, data: str, checkpoint: Path | None) -> Facts:
    """Returns what all processes of a run must have the same.

    Args:
        config: The run.
        data: The fingerprint of its data.
        checkpoint: The checkpoint it continues from; None if it begins.
    """
    settings = json.dumps(config.to_dict(), sort_keys=True, default=str)
    return {
        **versions(),
        "settings": hashlib.sha256(settings.encode()).hexdigest()[:12],
        "data": data[:12],
        "checkpoint": "none" if checkpoint is None else _digest_of(checkpoint),
    }


def _digest_of(checkpoint: Path) -> str:
    """Returns the start of the digest beside a checkpoint."""
    try:
        return checkpoint.with_name(f"{checkpoint.name}.sha256").read_text(encoding="utf-8")[:12]
    except OSError:
        return "one without a digest"
