"""Report which environments and features work on this machine: `rate doctor` in a clone."""

import sys

try:
    from trainers.commands.main import run
except ModuleNotFoundError as error:
    raise SystemExit(
        f"error: {sys.executable} has no {error.name}: the trainer is not installed there. "
        "Run `make doctor`, or `make install` and then .venv/bin/python scripts/doctor.py"
    ) from error

if __name__ == "__main__":
    run("doctor")
