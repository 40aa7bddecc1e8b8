"""Jobs of SLURM that are stopped before their time limit and begun again.

`#SBATCH --signal=USR1@300` sends a signal five minutes before the limit. Training saves its state,
and the job is put back into the queue. It then runs the same command, which continues its run.
"""

from __future__ import annotations

import os
import signal
import subprocess
import warnings
from pathlib import Path
from typing import Literal

from trainers.config import RunConfig
from trainers.launch import is_main_process
from trainers.working_folder import ENVIRONMENT

_JOB, _RESTARTS = "SLURM_JOB_ID", "SLURM_RESTART_COUNT"
_SIGNALS = tuple(getattr(signal, name, None) for name in ("SIGUSR1", "SIGUSR2"))
_PATIENCE_S = 60


def describe_job() -> list[str]:
    """Returns the line of this job for `environment.txt`, if this is one."""
    job, restarts = os.environ.get(_JOB), os.environ.get(_RESTARTS, "0")
    return [] if job is None else [f"slurm job: {job}, restart {restarts}"]


def resume_of_job(config: RunConfig) -> Literal["auto"] | None:
    """Returns `auto` if this job has begun the run before it was requeued last; else None.

    Another run of that name in the same job, since its last restart, is refused as everywhere.
    """
    from trainers.runs import run_folder  # imports this module

    return "auto" if _is_begun_by_this_job(run_folder(config)) else None


def _is_begun_by_this_job(folder: Path) -> bool:
    """Whether the run in a folder was begun by this job, and not continued since its restart."""
    try:
        lines = (folder / ENVIRONMENT).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    job = f"slurm job: {os.environ.get(_JOB)}"
    begun = any(line == job or line.startswith(f"{job}, ") for line in lines)
    return _JOB in os.environ and begun and not set(lines) & set(describe_job())


def requeue(number: int) -> None:
    """Put this job back into the queue, if it was stopped by a signal that SLURM was asked for."""
    job = os.environ.get(_JOB)
    if job is None or number not in _SIGNALS or not is_main_process():
        return
    try:
        subprocess.run(
            ["scontrol", "requeue", job],
            check=True,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.SubprocessError) as error:
        reason = (getattr(error, "stderr", None) or str(error)).strip()
        warnings.warn(f"The job is not put back into the queue: {reason}", stacklevel=2)
