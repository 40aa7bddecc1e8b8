"""The folder of a run: its configuration, checkpoints and results."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path

import torch

from rate.advice import command
from rate.errors import ConfigError
from rate.files import ensure_folder, remove_drafts, write_atomic
from rate.weights import CHECKPOINTS, DESCRIPTION
from trainers.callbacks.checkpoint import find_checkpoint
from trainers.changes import ROUNDING, changes_no_score, differences, may_change
from trainers.config import Resume, RunConfig
from trainers.config_files import load_config_file
from trainers.csv_logger import METRICS
from trainers.run_lock import LOCK, only_writer
from trainers.slurm import describe_job
from trainers.working_folder import ENVIRONMENT, FOLDER, REPLAY
from trainers.yaml_files import write_yaml

CONFIG, EVALUATION, HELD_OUT = "config.yaml", "evaluation.json", "held_out.json"
TENSORBOARD = "tensorboard"
_PACKAGES = ("lightning", "gymnasium", "minari", "numpy", "safetensors", "tensorboard")
_CODE = ("rate", "datamodules", "trainers")
# Files of a run that was stopped before its first checkpoint.
_BEGINNINGS = (
    *(CONFIG, ENVIRONMENT, HELD_OUT, METRICS, CHECKPOINTS, REPLAY, TENSORBOARD, "wandb", LOCK),
)


@contextmanager
def enter_run(config: RunConfig, resume: Resume = None) -> Iterator[Path]:
    """Create the folder of a run, or open that of a run to continue, as its only writer.

    If the name is taken by another run, a number is appended and a warning names the other run.

    Args:
        config: The run.
        resume: The folder of a run to continue; `auto` continues the run of that name if it exists
            and starts it otherwise; None starts a new run.

    Yields:
        The folder. It is removed if an error ends a new run before anything was saved.

    Raises:
        ConfigError: If the run already exists, a run to continue does not exist, the folder
            contains other files, another process writes it, or it is not writable.
    """
    with ExitStack() as stack:
        folder = run_folder(config, resume)
        try:
            is_new = _prepare(folder, config, resume, stack)
        except FileExistsError as error:
            raise _file_in_the_way(folder) from error
        except OSError as error:
            raise _not_writable(folder, error) from error
        if occupied := _passed_over(config, resume):
            warnings.warn(
                f"{occupied[0]}, which is left as it is; this run is {folder}.", stacklevel=3
            )
        try:
            yield folder
        except BaseException:
            if is_new and not (folder / METRICS).exists() and not has_trained(folder):
                shutil.rmtree(folder, ignore_errors=True)
            raise


def run_folder(config: RunConfig, resume: Resume = None) -> Path:
    """Returns the folder of a run: the first one of its name that no other run occupies."""
    if isinstance(resume, Path):
        return resume
    return _folder(config, len(_passed_over(config, resume)) + 1)


def _passed_over(config: RunConfig, resume: Resume) -> list[str]:
    """Returns notes on runs of the same name with other settings, in the order of their numbers.

    With `resume="auto"` more settings may differ in the same run than without.
    """
    occupied: list[str] = []
    while not isinstance(resume, Path):
        folder = _folder(config, len(occupied) + 1)
        if not (folder / CONFIG).is_file():
            break
        try:
            before = load_config_file(folder / CONFIG)
        except ConfigError:
            occupied.append(f"{folder} holds another run (its {CONFIG} cannot be read)")
            continue
        is_same = may_change if resume == "auto" else changes_no_score
        changed = differences(before.to_dict(), config.to_dict())
        other = next((name for name in changed if not is_same(name)), None)
        if other is None and config.training.max_steps < before.training.max_steps:
            other = "training.max_steps"
        if other is None:
            break
        old, new = changed[other]
        occupied.append(f"{folder} holds another run ({other} is {old} there, and {new} here)")
    return occupied


def _folder(config: RunConfig, number: int) -> Path:
    """Returns the folder of the `number`-th run of its name, counted from 1."""
    name = config.run_name if number == 1 else f"{config.run_name}-run{number}"
    return Path(config.logging.output) / name


def _prepare(folder: Path, config: RunConfig, resume: Resume, stack: ExitStack) -> bool:
    """Lock the folder and prepare it for the run; returns whether the run is new."""
    if isinstance(resume, Path):
        if not (folder / CONFIG).is_file():
            raise ConfigError(
                f"{folder} holds no run: {CONFIG} is missing. Give --resume a folder like "
                "runs/<run>; a run that was stopped before it had one starts by its first command."
            )
    else:
        ensure_folder(folder)
    stack.enter_context(only_writer(folder))
    checkpoints = folder / CHECKPOINTS
    for place in (folder, checkpoints, checkpoints / "best", checkpoints / "last"):
        remove_drafts(place)
    resumes = resume is not None and has_trained(folder) and (folder / CONFIG).is_file()
    if resumes or isinstance(resume, Path):
        _open(folder, config)
        return False
    _begin(folder, config)
    return True


def has_trained(folder: Path) -> bool:
    """Whether a run folder has a checkpoint or a result."""
    checkpoints = folder / CHECKPOINTS
    models = (checkpoints / which / DESCRIPTION for which in ("best", "last"))
    results = (folder / EVALUATION, *models)
    return find_checkpoint(checkpoints) is not None or any(path.exists() for path in results)


def _begin(folder: Path, config: RunConfig) -> None:
    """Start a run in a folder that is empty, or has only files from before its training."""
    if has_trained(folder) or {path.name for path in folder.iterdir()} - set(_BEGINNINGS):
        raise _file_in_the_way(folder)
    (folder / METRICS).unlink(missing_ok=True)
    for left in (folder / TENSORBOARD, folder / CHECKPOINTS, folder / REPLAY):
        shutil.rmtree(left, ignore_errors=True)
    (folder / CHECKPOINTS).mkdir()
    write_yaml(folder / CONFIG, config.to_dict())


def _open(folder: Path, config: RunConfig) -> None:
    """Check that `config` is compatible with the run in `folder`, and store it there.

    Warns of settings that change results by rounding.

    Raises:
        ConfigError: If a setting that affects training differs; the message names it.
    """
    before = load_config_file(folder / CONFIG)
    if config.training.max_steps < before.training.max_steps:
        raise ConfigError(
            f"training.max_steps is {config.training.max_steps}, but the run in {folder} was made "
            f"for {before.training.max_steps}: a run can be made longer, not shorter."
        )
    changed = differences(before.to_dict(), config.to_dict())
    for name, (old, new) in changed.items():
        if not may_change(name):
            raise ConfigError(
                f"{name} is {new}, but the run in {folder} was made with {old}. Leave it as it "
                "was to continue that run, or start a new one under another --logging.name; "
                f"--init {folder} lets it begin with the weights of this one."
            )
    if roundings := [
        f"{n} {new} ({old} before)" for n, (old, new) in changed.items() if n in ROUNDING
    ]:
        warnings.warn(
            f"The run goes on with {', '.join(roundings)}: on the same batches, but the numbers "
            "will be the same to rounding only, and noise may be drawn otherwise.",
            stacklevel=2,
        )
    write_yaml(folder / CONFIG, config.to_dict())


def describe_machine(command: str | None = None) -> str:
    """Returns versions and hardware, on which a run depends besides its configuration, as text."""
    lines = [
        f"command: {command or ' '.join(sys.argv)}",
        f"{FOLDER}{Path.cwd()}",
        *describe_job(),
        f"git: {_git_commit()}",
        f"python: {platform.python_version()}",
        f"torch: {torch.__version__}",  # includes the build (CPU or CUDA)
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
    """Write `environment.txt`; a resumed run appends to it."""
    path = folder / ENVIRONMENT
    before = path.read_text(encoding="utf-8") + "\n" if path.exists() else ""
    write_atomic(path, before + describe_machine(command))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _git_commit() -> str:
    """Returns the commit of this code, and whether the code (not data or results) has changed.

    A repository that merely contains the installed package does not count.
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


def _file_in_the_way(folder: Path) -> ConfigError:
    again = command("train", "--resume", str(folder))
    return ConfigError(
        f"{folder} is there already. Continue that run with `{again}`, or give the new one another "
        "name with --logging.name or another --logging.output. With --resume auto one command "
        "starts a run and continues it."
    )


def _not_writable(folder: Path, error: OSError) -> ConfigError:
    return ConfigError(
        f"The run cannot be written to {folder}: {error.strerror}. Give another folder with "
        "--logging.output."
    )
