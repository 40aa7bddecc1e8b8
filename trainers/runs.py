"""The directory of a run: everything that it needs and everything that it leaves."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from rate.errors import ConfigError
from trainers.config import RunConfig
from trainers.config_files import load_config_file
from trainers.files import write_atomic, write_yaml

CONFIG, EVALUATION, ENVIRONMENT = "config.yaml", "evaluation.json", "environment.txt"
CHECKPOINTS = "checkpoints"
_PACKAGES = ("lightning", "gymnasium", "minari", "numpy", "safetensors", "tensorboard")
_CODE = ("rate", "datamodules", "trainers", "scripts")
# What may differ between a run and its continuation: none of it changes a training step, except
# that a longer training has a longer schedule.
_FREE_SECTIONS = ("logging", "evaluation")
_FREE_SETTINGS = (
    "data.root",
    "data.store",
    "data.workers",
    "training.checkpoint_every_n_steps",
    "training.data_device",
    "training.max_steps",
    "training.threads",
)
# What two runs with the same scores may differ in.
_SAME_RUN = ("data.root", "data.workers", "evaluation.workers", "training.threads")


def create_run(config: RunConfig) -> Path:
    """Make the folder of a new run, with a number in its name where another run has that name.

    Warns of the run that has it. Nothing that is there is changed.

    Raises:
        ConfigError: If a run with the same settings is there already, or files that are no run's,
            or the folder cannot be written.
    """
    folder, difference = _free_folder(config)
    try:
        (folder / CHECKPOINTS).mkdir(parents=True)
        _check_writable(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    write_yaml(folder / CONFIG, config.to_dict())
    if difference:
        warnings.warn(f"{difference}; this run is {folder}.", stacklevel=2)
    return folder


def made_run(config: RunConfig) -> Path:
    """The folder that another process of the same run makes, or has made, with `create_run`."""
    number = 1
    while _is_taken(folder := _folder(config, number)) and _difference(folder, config):
        number += 1
    return folder


def _free_folder(config: RunConfig) -> tuple[Path, str]:
    """The first folder without a run, and what to tell of the run that has the name itself."""
    number, told = 1, ""
    while _is_taken(folder := _folder(config, number)):
        difference = _difference(folder, config) if (folder / CONFIG).is_file() else None
        if difference is None:
            raise ConfigError(
                f"{folder} is there already. Continue that run with --resume {folder}, or give "
                "the new one another name with --logging.name or another --logging.output."
            )
        told = told or f"{folder} holds another run ({difference}), which is left as it is"
        number += 1
    return folder, told


def _folder(config: RunConfig, number: int) -> Path:
    """The folder of the run that is the `number`-th of its name."""
    name = config.run_name if number == 1 else f"{config.run_name}-run{number}"
    return Path(config.logging.output) / name


def _is_taken(folder: Path) -> bool:
    try:
        return folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise _not_writable(folder, error) from error


def _difference(folder: Path, config: RunConfig) -> str | None:
    """How the run in a folder differs from `config`; None if it does not."""
    try:
        before = load_config_file(folder / CONFIG)
    except ConfigError:
        return f"its {CONFIG} cannot be read"
    return next(
        (
            f"{name} is {old} there, and {new} here"
            for name, (old, new) in differences(before.to_dict(), config.to_dict()).items()
            if not name.startswith("logging.") and name not in _SAME_RUN
        ),
        None,
    )


def open_run(folder: Path, config: RunConfig) -> None:
    """Check that `config` continues the run in `folder`, and make it the run's own.

    Raises:
        ConfigError: If there is no run, it cannot be written, or a setting differs that training
            depends on; names it.
    """
    path = folder / CONFIG
    if not path.is_file():
        raise ConfigError(
            f"{folder} holds no run: {CONFIG} is missing. Give --resume a folder like runs/<run>."
        )
    before = load_config_file(path)
    for name, (old, new) in differences(before.to_dict(), config.to_dict()).items():
        if name.split(".")[0] not in _FREE_SECTIONS and name not in _FREE_SETTINGS:
            raise ConfigError(
                f"{name} is {new}, but the run in {folder} was made with {old}. Leave it as it "
                "was to continue that run, or start a new one under another --logging.name."
            )
    if config.training.max_steps < before.training.max_steps:
        raise ConfigError(
            f"training.max_steps is {config.training.max_steps}, but the run in {folder} was made "
            f"for {before.training.max_steps}: a run can be made longer, not shorter."
        )
    try:
        _check_writable(folder)
    except OSError as error:
        raise _not_writable(folder, error) from error
    write_yaml(path, config.to_dict())


def differences(old: dict[str, Any], new: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The settings that differ between two nested tables: dotted name to (old, new)."""
    found = {}
    for name in {**old, **new}:
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            inner = differences(before, after)
            found.update({f"{name}.{key}": value for key, value in inner.items()})
        elif before != after:
            found[name] = (before, after)
    return found


def describe_machine(command: str | None = None) -> str:
    """What a run depends on besides its configuration, as lines of text."""
    lines = [
        f"command: {command or ' '.join(sys.argv)}",
        f"git: {_git_commit()}",
        f"python: {platform.python_version()}",
        f"torch: {torch.__version__}",  # names the build (CPU or CUDA) where its metadata may not
        *(f"{name}: {_version(name)}" for name in _PACKAGES),
        f"system: {platform.platform()}",
        f"processor: {platform.processor() or platform.machine()}, {os.cpu_count()} cores",
    ]
    if torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        names = ", ".join(torch.cuda.get_device_name(index) for index in devices)
        lines.append(f"gpu: {names}, CUDA {torch.version.cuda}")
    return "\n".join(lines) + "\n"


def write_environment(folder: Path, command: str | None) -> None:
    """Write `environment.txt`; a resumed run adds to it."""
    path = folder / ENVIRONMENT
    before = path.read_text(encoding="utf-8") + "\n" if path.exists() else ""
    write_atomic(path, before + describe_machine(command))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """The commit of this code, and whether the code was changed since; data and results are none.

    Code that is installed inside somebody's repository is not of a commit of theirs.
    """
    here = Path(__file__).resolve()
    try:
        _git(here.parent, "ls-files", "--error-unmatch", here.name)
        commit = _git(here.parent, "rev-parse", "HEAD").strip()
        packages = [str(here.parents[1] / name) for name in _CODE]
        changes = _git(here.parent, "status", "--porcelain", "--", *packages)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return commit + (" with changes" if changes else "")


def _git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", "-C", str(folder), *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=5,
    ).stdout


def _check_writable(folder: Path) -> None:
    with tempfile.TemporaryFile(dir=folder):
        pass


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The run cannot be written to {folder}: {error.strerror}. Give another folder with "
        "--logging.output."
    )
