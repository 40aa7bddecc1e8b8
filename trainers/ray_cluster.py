"""A connection to a Ray cluster whose nodes have the versions of this process.

Ray's `init` waits for two minutes for an address that does not answer, cannot be interrupted, and
ends the process then. A child process therefore tries the address first, within a time limit.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rate.advice import install
from rate.errors import ConfigError
from rate.stopping import SIGNALS
from rate.trust import named_code, remember_code
from rate.workers.pool import available_cores
from trainers.versions import Facts, versions

ADDRESS = "RAY_ADDRESS"  # Ray's own name of the variable
_ANSWER_S = 30.0  # for an address
_NODES_S = 60.0  # for what all nodes are asked at the start
_REACH_S = 5.0
_PROBE = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
_QUIET: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}


@dataclass(frozen=True)
class Origin:
    """What a process on a node needs to know of the process that uses the cluster.

    Attributes:
        host: The machine.
        facts: Its versions.
        folder: Its working folder.
        path: Where it imports modules from.
        trusted: The import paths that the user has named; see `rate.trust`.
        shared: A file or folder that every node must see; None if there is none.
    """

    host: str
    facts: Facts
    folder: str
    path: tuple[str, ...]
    trusted: tuple[str, ...]
    shared: str | None = None

    @classmethod
    def here(cls, shared: Path | None = None) -> Origin:
        """Returns that of this process."""
        path = tuple(os.path.abspath(place) for place in sys.path)  # noqa: PTH100 (may not exist)
        file = None if shared is None else str(shared)
        trusted = tuple(sorted(named_code()))
        return cls(socket.gethostname(), versions(), str(Path.cwd()), path, trusted, file)

    def enter(self) -> None:
        """Make this process, on a node of the cluster, like the one that uses the cluster.

        Raises:
            ConfigError: If the node has other versions, or does not see the shared folder.
        """
        host = socket.gethostname()
        for name, value in versions().items():
            if value != self.facts[name]:
                raise ConfigError(
                    f"The node {host} of the Ray cluster has other {name} ({value}) than "
                    f"{self.host} ({self.facts[name]}). Install the same version on every node."
                )
        if self.shared is not None and not Path(self.shared).exists():
            raise ConfigError(
                f"The node {host} of the Ray cluster does not see {Path(self.shared).parent}, "
                "which runs are written to: name a folder of a file system that all nodes share."
            )
        sys.path.extend(place for place in self.path if place not in sys.path)
        remember_code(self.trusted)
        if Path(self.folder).is_dir():
            os.chdir(self.folder)


@contextmanager
def connected(address: str | None, cores: int | None) -> Iterator[str]:
    """Connects to a cluster, or starts one on this machine, for the length of a block.

    Args:
        address: HOST:PORT of the cluster's head, or `auto` for one that runs on this machine. None
            is that of the variable `RAY_ADDRESS`; without it, a cluster is started.
        cores: The cores of a cluster that is started; None is all of them.

    Yields:
        What it is, in words for the user.

    Raises:
        ConfigError: If Ray is missing, the address does not answer, or its versions do not fit.
    """
    if find_spec("ray") is None:
        raise ConfigError(f"--on ray needs the package ray. Install it with: {install('ray')}")
    # No telemetry; a task that exhausts the memory fails like one that dies of something else.
    for name, value in (("RAY_USAGE_STATS_ENABLED", "0"), ("RAY_task_oom_retries", "2")):
        os.environ.setdefault(name, value)
    address = address or os.environ.get(ADDRESS) or None
    if address is not None:
        _check_answer(address)
    import ray

    try:
        with _own_handlers():
            if address is None:
                cores = cores or available_cores()
                context = ray.init(address="local", num_cpus=cores, **_QUIET)
            else:
                context = ray.init(address=address, **_QUIET)
        nodes = [node for node in ray.nodes() if node["Alive"]]
        size = f"{len(nodes)} {'node' if len(nodes) == 1 else 'nodes'}, "
        size += f"{ray.cluster_resources().get('CPU', 0):.0f} cores"
        board = f"; dashboard: http://{context.dashboard_url}" if context.dashboard_url else ""
        yield f"Ray at {context.address_info['address']}: {size}{board}"
    finally:
        with _own_handlers():
            ray.shutdown()


def check_nodes(origin: Origin) -> None:
    """Check that every node has the versions of this process and sees the shared folder.

    Raises:
        ConfigError: If one does not, or does not answer; the message names it.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = {node["NodeID"]: node["NodeName"] for node in ray.nodes() if node["Alive"]}
    enter: Any = ray.remote(num_cpus=0, max_retries=0)(_enter)
    asked = {}
    for node, name in nodes.items():
        there = NodeAffinitySchedulingStrategy(node, soft=False)
        asked[enter.options(scheduling_strategy=there).remote(origin)] = node, name
    _, silent = ray.wait(list(asked), num_returns=len(asked), timeout=_NODES_S)
    if silent:
        raise ConfigError(
            f"The node {asked[silent[0]][1]} of the Ray cluster has not answered within "
            f"{_NODES_S:g} seconds. See with `ray status` whether the cluster works."
        )
    for answer, (node, name) in asked.items():
        try:
            problem = ray.get(answer)
        except ray.exceptions.RayError as error:
            if node not in {each["NodeID"] for each in ray.nodes() if each["Alive"]}:
                continue  # it has been lost meanwhile
            raise ConfigError(
                f"The node {name} of the Ray cluster cannot run this project; install the same "
                f"version of it on every node. ({_last_line(str(error))})"
            ) from error
        if problem is not None:
            raise problem


def _enter(origin: Origin) -> ConfigError | None:
    """Returns what is wrong with the node of this process."""
    try:
        origin.enter()
    except ConfigError as error:
        return error
    return None


def _check_answer(address: str) -> None:
    """Check that a cluster answers at an address.

    Raises:
        ConfigError: If it does not within `_ANSWER_S` seconds, or is of another version of Ray.
    """
    advice = "Start one with `ray start --head`, or leave the address out to use this machine alone"
    host, colon, port = address.rpartition(":")
    if address != "auto":
        if not colon or not port.isdecimal() or "/" in host:
            raise ConfigError(
                f"--ray-address is {address}; it must be HOST:PORT of the cluster's head, as in "
                "10.0.0.1:6379, or auto. Run the command on a machine of the cluster."
            )
        try:
            socket.create_connection((host, int(port)), _REACH_S).close()
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"No Ray cluster answers at {address} ({error}). {advice}."
            ) from error
    with tempfile.TemporaryFile() as output:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _PROBE, address],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                timeout=_ANSWER_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ConfigError(
                f"No Ray cluster answers at {address} within {_ANSWER_S:g} seconds. {advice}."
            ) from None
        output.seek(0)
        text = output.read().decode(errors="replace")
    if done.returncode:
        raise ConfigError(f"The Ray cluster at {address} refuses: {_last_line(text)} {advice}.")


def _last_line(text: str) -> str:
    return text.strip().rpartition("\n")[2]


@contextmanager
def _own_handlers() -> Iterator[None]:
    """Restores this process's handlers of signals at the end: Ray replaces that of SIGTERM."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
