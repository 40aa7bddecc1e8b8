"""The commands of the project."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path

from rate.stopping import leave_before_beginning

# Only where one of them is what runs: imports take seconds, in which Ctrl+C is no traceback.
_main = Path(getattr(sys.modules["__main__"], "__file__", None) or sys.prefix).resolve()
_is_command = sys.argv[:1] == ["-m"] or _main.parent == Path(__file__).parent
if _is_command and multiprocessing.parent_process() is None:
    leave_before_beginning()
