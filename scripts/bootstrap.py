"""Create the virtual environment that the Makefile's commands run in.

Only the standard library is used, because nothing else is installed yet. pip gets the pins of
`requirements.lock` as constraints: it installs the dependencies of `pyproject.toml` and of the
chosen extras in the locked versions. A stamp file in the environment has a digest of its inputs, so
a second call returns at once.

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
SMALLEST = 2.5e9  # bytes of a new environment without CUDA, with its downloads
PIP_DEFAULTS = {
    "PIP_DEFAULT_TIMEOUT": "120",
    "PIP_RETRIES": "10",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}


class BootstrapError(Exception):
    """The environment cannot be created; the message says what to do."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Creates or updates the environment; returns the exit status."""
    parser = argparse.ArgumentParser(description="Create the project's virtual environment.")
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="its folder")
    parser.add_argument("--extras", default="", help="extras of pyproject.toml, comma-separated")
    options = parser.parse_args(arguments)
    try:
        prepare(options.venv.absolute(), extras_named(options.extras))
    except BootstrapError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def extras_named(text: str) -> set[str]:
    """Parses a list of extras such as `vizdoom,memory_maze` into the names of pyproject.toml.

    Raises:
        BootstrapError: If there is no such extra, of which pip would only warn.
    """
    requested = {extra.replace("_", "-") for extra in text.replace(",", " ").split()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    known = list(project["optional-dependencies"])
    for name in sorted(requested.difference(known)):
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise BootstrapError(f"there is no extra {name}{hint} There are: {', '.join(known)}.")
    return requested


def prepare(venv: Path, requested: set[str]) -> None:
    """Installs the locked versions and the `requested` extras into the environment at `venv`."""
    stamp = read_stamp(venv)
    installed = set(stamp.get("extras", ()))
    inputs = fingerprint()
    if stamp.get("inputs") == inputs and requested <= installed and works(venv):
        return
    keep_or_create(venv, stamp)
    extras = sorted(requested | installed)
    write_stamp(venv, inputs=None, extras=extras)
    install(python_of(venv), extras)
    write_stamp(venv, inputs=inputs, extras=extras)


def fingerprint() -> str:
    """Returns a digest of everything that the environment depends on."""
    digest = hashlib.sha256()
    for name in INPUTS:
        digest.update((ROOT / name).read_bytes())
    digest.update(f"{ROOT}|{sys.version_info[:2]}|{sys.base_prefix}".encode())
    return digest.hexdigest()


def python_of(venv: Path) -> Path:
    """Returns the path of the environment's interpreter."""
    return venv / "bin" / "python"


def read_stamp(venv: Path) -> dict[str, Any]:
    """Returns the stamp of the environment; empty if this script did not create it."""
    try:
        content = json.loads((venv / STAMP).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_stamp(venv: Path, *, inputs: str | None, extras: Iterable[str]) -> None:
    """Writes the stamp. `inputs=None` marks an incomplete environment."""
    content = {"inputs": inputs, "extras": sorted(extras), "root": str(ROOT)}
    (venv / STAMP).write_text(json.dumps(content), encoding="utf-8")


def works(venv: Path) -> bool:
    """Returns whether the environment has pip and the Python version of this interpreter."""
    probe = "import sys, pip; print(sys.version_info[:2])"
    try:
        answer = subprocess.run(
            [python_of(venv), "-I", "-c", probe], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return False
    return answer.stdout.strip() == str(sys.version_info[:2])


def keep_or_create(venv: Path, stamp: Mapping[str, Any]) -> None:
    """Keeps an environment that works, replaces a broken one of this script, or creates one.

    Raises:
        BootstrapError: If the folder has other contents, or there is too little disk space.
    """
    moved = stamp.get("root", str(ROOT)) != str(ROOT)
    if works(venv) and not moved:
        return
    if venv.exists() and not venv.is_dir():
        raise BootstrapError(f"{venv} is not a folder. Choose another place: VENV=.venv-rate")
    if venv.exists() and any(venv.iterdir()):
        if not stamp:
            version = ".".join(map(str, sys.version_info[:2]))
            raise BootstrapError(
                f"{venv} was not created by this project, and is no Python {version} environment "
                "with pip. Remove it, or choose another place: make <command> VENV=.venv-rate"
            )
        say(f"{venv.name} is from another place or Python version: replacing it.")
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
    """Creates an empty environment with pip, by `venv` or `virtualenv`.

    Debian and Ubuntu ship Python without `ensurepip`, so `python3 -m venv` alone fails there;
    `virtualenv` works without it and can be downloaded without root.

    Raises:
        BootstrapError: If neither works.
    """
    # Inside an environment, use its base interpreter.
    python = str(getattr(sys, "_base_executable", None) or sys.executable)
    say(f"Creating {venv.name} with Python {sys.version.split()[0]} ({python})")
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
        "this Python cannot create virtual environments: it has neither ensurepip nor virtualenv "
        "nor pip. On Debian or Ubuntu: sudo apt install python3-venv. Without root: use a Python "
        "from conda, uv or pyenv, and say which: make <command> PYTHON=/path/to/python3"
    )


def install(python: Path, extras: Sequence[str]) -> None:
    """Installs torch, then the project as editable with the `extras`, in locked versions.

    Raises:
        BootstrapError: If pip fails.
    """
    lock = ["--constraint", ROOT / "requirements.lock"]
    project = f"{ROOT}[{','.join(extras)}]" if extras else str(ROOT)
    # setuptools builds the project; without isolation pip does not download it again.
    step(python, "PyTorch (0.2 GB without CUDA, about 3 GB with)", [*lock, "torch", "setuptools"])
    what = "the project and its other packages (0.1 GB, with simulators 0.3)"
    step(python, what, [*lock, "--no-build-isolation", "--editable", project], quiet=True)


def step(python: Path, what: str, arguments: Sequence[object], quiet: bool = False) -> None:
    """Runs `pip install` with the `arguments`; prints what it does and how long it took."""
    say(f"Installing {what} ...")
    start = time.monotonic()
    # Progress of the long download is shown on a terminal only.
    noise = [] if sys.stdout.isatty() and not quiet else ["--quiet"]
    if not succeeds([python, "-m", "pip", "install", *noise, *arguments], loud=True):
        raise BootstrapError(
            f"pip could not install {what}; its message is above, and {room(python)}. "
            "Try the command again: finished downloads are kept. Proxies and mirrors are set with "
            "pip's own variables (HTTPS_PROXY, PIP_INDEX_URL)."
        )
    say(f"  done in {time.monotonic() - start:.0f} s")


def room(place: Path) -> str:
    """Returns the free disk space at `place`, for a message."""
    return f"{shutil.disk_usage(place.parent).free / 1e9:.1f} GB of the disk are free there"


def succeeds(command: Sequence[object], *, loud: bool = False, **variables: str) -> bool:
    """Runs a command; returns whether it succeeded. Its output is shown only if `loud`."""
    environment = {**PIP_DEFAULTS, **os.environ, "PIP_USER": "0", **variables}
    output = None if loud else subprocess.DEVNULL
    done = subprocess.run(
        [str(part) for part in command], env=environment, stdout=output, stderr=output, check=False
    )
    return done.returncode == 0


def say(message: str) -> None:
    """Prints without buffering."""
    print(message, flush=True)


if __name__ == "__main__":
    sys.exit(main())
