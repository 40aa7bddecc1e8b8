"""Make the virtual environment that the Makefile's commands run in.

Only the standard library is used, because nothing else is installed yet. The pins of
`requirements.lock` are handed to pip as constraints: pip installs what `pyproject.toml` and the
wanted extras need, in the locked versions, and nothing else. A stamp inside the environment
remembers what it was made from, so that a second call returns at once.

    python3 -I scripts/bootstrap.py --venv .venv --extras test,lint
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
INPUTS = ("pyproject.toml", "requirements.lock")
STAMP = "rate-trainer.json"
SMALLEST = 2.5e9  # bytes of a new environment with a PyTorch without CUDA, and of its downloads
PIP_DEFAULTS = {
    "PIP_DEFAULT_TIMEOUT": "120",
    "PIP_RETRIES": "10",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


class BootstrapError(Exception):
    """The environment cannot be made. The message tells the user what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or update the environment; returns the exit status."""
    parser = argparse.ArgumentParser(description="Make the project's virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="where it stands")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml, comma-separated")
    options = parser.parse_args(arguments)
    try:
        prepare(options.venv.absolute(), extras_named(options.extras))
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def extras_named(text: str) -> set[str]:
    """The extras in a list like `vizdoom,memory_maze`, as pyproject.toml spells them.

    Raises:
        BootstrapError: There is no such extra; pip would only warn.
    """
    wanted = {extra.replace("_", "-") for extra in text.replace(",", " ").split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = list(project["optional-dependencies"])
    for name in sorted(wanted.difference(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise BootstrapError(f"there is no extra {name}{hint} There are: {', '.join(known)}.")
    return wanted


def prepare(venv: Path, wanted: set[str]) -> None:
    """Bring the environment at `venv` to what the lock says, with the `wanted` extras."""
    stamp = read_stamp(venv)
    installed = set(stamp.get("extras", ()))
    inputs = fingerprint()
    if stamp.get("inputs") == inputs and wanted <= installed and works(venv):
        return
    keep_or_create(venv, stamp)
    extras = sorted(wanted | installed)
    write_stamp(venv, inputs=None, extras=extras)
    install(python_of(venv), extras)
    write_stamp(venv, inputs=inputs, extras=extras)


def fingerprint() -> str:
    """A digest of everything that the environment depends on."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{ROOT}|{sys.version_info[:2]}|{sys.base_prefix}".encode())
    return digest.hexdigest()


def python_of(venv: Path) -> Path:
    """The environment's interpreter."""
    return venv / "bin" / "python"


def read_stamp(venv: Path) -> dict[str, Any]:
    """What the environment was made from; empty if this script did not make it."""
    try:
        content = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_stamp(venv: Path, *, inputs: str | None, extras: Iterable[str]) -> None:
    """Record what the environment holds. `inputs=None` says that it is not complete."""
    content = {"inputs": inputs, "extras": sorted(extras), "root": str(ROOT)}
    (venv / STAMP).write_text(json.dumps(content), encoding="utf-8")


def works(venv: Path) -> bool:
    """Whether the environment runs this interpreter's Python version and has pip."""
    probe = "import sys, pip; print(sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [python_of(venv), "-I", "-c", probe], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.stdout.strip() == str(sys.version_info[:2])


def keep_or_create(venv: Path, stamp: Mapping[str, Any]) -> None:
    """Keep an environment that works, replace one of ours that does not, or make a new one.

    Raises:
        BootstrapError: Something that this script did not make stands in the way, or the disk
            is too full.
    """
    moved = stamp.get("root", str(ROOT)) != str(ROOT)
    if works(venv) and not moved:
        return
    if venv.exists() and not venv.is_dir():
        raise BootstrapError(f"{venv} is no folder. Choose another place: VENV=.venv-rate")
    if venv.exists() and any(venv.iterdir()):
        if not stamp:
            version = ".".join(map(str, sys.version_info[:2]))
            raise BootstrapError(
                f"{venv} was not made by this project, and is not a Python {version} environment "
                "with pip. Remove it, or choose another place: make <command> VENV=.venv-rate"
            )
        say(f"{venv.name} is from another place or Python version: making it anew.")
        shutil.rmtree(venv)
    venv.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(venv).free < SMALLEST:
        raise BootstrapError(
            f"{venv} needs {SMALLEST / 1e9} GB, and with CUDA's libraries about 8; {room(venv)}. "
            "Make room, or choose another place: make <command> VENV=/path/to/venv"
        )
    write_stamp(venv, inputs=None, extras=())
    create(venv)


def create(venv: Path) -> None:
    """Make an empty environment with pip, with whatever this machine has for that.

    Debian and Ubuntu ship Python without `ensurepip`, so `python3 -m venv` alone fails there;
    `virtualenv` does the same work and can be fetched without root.

    Raises:
        BootstrapError: None of the ways works.
    """
    # From inside an environment, use the interpreter that it was made with.
    python = str(getattr(sys, "_base_executable", None) or sys.executable)
    say(f"Making {venv.name} with Python {sys.version.split()[0]} ({python})")
    if importlib.util.find_spec("ensurepip") and succeeds([python, "-m", "venv", venv]):
        return
    if succeeds([sys.executable, "-m", "virtualenv", "--quiet", venv]):
        return
    with tempfile.TemporaryDirectory() as folder:
        fetch = ["-m", "pip", "install", "--quiet", "--target", folder, "virtualenv"]
        make = [sys.executable, "-m", "virtualenv", "--quiet", venv]
        if succeeds([sys.executable, *fetch]) and succeeds(make, PYTHONPATH=folder):
            return
    shutil.rmtree(venv)
    raise BootstrapError(
        "this Python cannot make virtual environments: it has neither ensurepip nor virtualenv "
        "nor pip. On Debian or Ubuntu: sudo apt install python3-venv. Without root: use a Python "
        "from conda, uv or pyenv, and say which: make <command> PYTHON=/path/to/python3"
    )


def install(python: Path, extras: Sequence[str]) -> None:
    """Install torch, then the project in place with the `extras`, as the lock pins them.

    Raises:
        BootstrapError: pip failed.
    """
    lock = ["--constraint", ROOT / "requirements.lock"]
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    # setuptools builds the project: with it in place, pip need not fetch it a second time.
    step(python, "PyTorch (0.2 GB without CUDA, about 3 GB with)", [*lock, "torch", "setuptools"])
    what = "the project and its other packages (0.1 GB, with simulators 0.3)"
    step(python, what, [*lock, "--no-build-isolation", "--editable", project], quiet=True)


def step(python: Path, what: str, arguments: Sequence[object], quiet: bool = False) -> None:
    """Run `pip install` with the `arguments`; tell what it does before, and how long it took."""
    say(f"Installing {what} ...")
    start = time.monotonic()
    # On a terminal the one long download shows its progress; a log stays short.
    noise = [] if sys.stdout.isatty() and not quiet else ["--quiet"]
    if not succeeds([python, "-m", "pip", "install", *noise, *arguments], loud=True):
        raise BootstrapError(
            f"pip could not install {what}; its own message stands above, and {room(python)}. "
            "Try the command again: finished downloads are kept. Proxies and mirrors are set with "
            "pip's own variables (HTTPS_PROXY, PIP_INDEX_URL)."
        )
    say(f"  done in {time.monotonic() - start:.0f} s")


def room(place: Path) -> str:
    """How much of the disk is free at `place`, for a message."""
    return f"{shutil.disk_usage(place.parent).free / 1e9:.1f} GB of the disk are free there"


def succeeds(command: Sequence[object], *, loud: bool = False, **variables: str) -> bool:
    """Run a command to its end and tell whether it succeeded; only a `loud` one may speak."""
    environment = {**PIP_DEFAULTS, **os.environ, "PIP_USER": "0", **variables}
    output = None if loud else subprocess.DEVNULL
    done = subprocess.run(
        [str(part) for part in command], env=environment, stdout=output, stderr=output, check=False
    )
    return done.returncode == 0


def say(message: str) -> None:
    """Print at once, also into a pipe."""
    print(message, flush=True)


if __name__ == "__main__":
    sys.exit(main())
