"""Makes runs of several processes, as torchrun would start them on one or two nodes.

    python processes_of_a_run.py PLAN.json

The plan is a list of runs. Processes are forked, so that each costs milliseconds and no imports.
The exit codes of every run are printed as a line of JSON.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import trainers.train
import trainers.versions
from trainers.commands.console import user_errors
from trainers.config_files import load_config_file
from trainers.sequence import SequenceTrainer


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def variables(rank: int, run: dict[str, Any], port: int) -> dict[str, str]:
    """Returns the variables that torchrun sets."""
    local = rank % run["devices"]
    return {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(run["devices"] * run["nodes"]),
        "LOCAL_WORLD_SIZE": str(run["devices"]),
        "RANK": str(rank),
        "LOCAL_RANK": str(local),
        "GROUP_RANK": str(rank // run["devices"]),
    }


def note_writes(log: Path) -> None:
    """Appends a line for every file under a run's folder that this process opens for writing."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event != "open" or not isinstance(arguments[0], str) or "/runs/" not in arguments[0]:
            return
        if arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            with log.open("a") as file:
                file.write(f"{arguments[0]}\n")

    sys.addaudithook(hook)


class Dying(SequenceTrainer):
    """Is killed in the fifth optimiser step."""

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        if self.global_step == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        super().on_before_optimizer_step(optimizer)


def be(rank: int, run: dict[str, Any], port: int) -> None:
    """Makes the run as one of its processes; `run["odd"]` is what process 1 has otherwise."""
    os.environ.update(variables(rank, run, port))
    sys.stderr = sys.stdout = Path(f"{run['log']}-{rank}").open("w")  # noqa: SIM115
    odd = run.get("odd", "") if rank == 1 else ""
    if rank:
        note_writes(Path(f"{run['log']}-writes"))
    if odd == "code":
        trainers.versions.code_digest = lambda: "0" * 12
    config = load_config_file(Path(run["other"] if odd == "settings" else run["config"]))
    if odd == "killed":
        trainers.train.SequenceTrainer = Dying
    with user_errors():
        trainers.train.train(config, run.get("resume"))


def end(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def main() -> None:
    for run in json.loads(Path(sys.argv[1]).read_text()):
        port, pids = free_port(), []
        for rank in range(run["devices"] * run["nodes"]):
            pid = os.fork()
            if not pid:
                code = 1
                try:
                    be(rank, run, port)
                    code = 0
                except SystemExit as left:
                    code = int(left.code or 0)
                except BaseException:  # noqa: BLE001
                    traceback.print_exc()
                finally:
                    sys.stdout.flush()
                    os._exit(code)
            pids.append(pid)
        limit = threading.Timer(run["limit_s"], end, [pids])
        limit.start()
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
        limit.cancel()
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
