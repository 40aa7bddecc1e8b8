"""Logging to Weights & Biases; a resumed run continues the same W&B run. Offline by default."""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from rate.errors import ConfigError
from trainers.config import RunConfig
from trainers.launch import is_main_process
from trainers.yaml_files import read_yaml, write_yaml

_SETTINGS = {"project", "entity", "mode", "group", "tags"}
_FILE, _RECORD = "wandb_config.yaml", "wandb/run.yaml"
_CONNECTING_S = 30  # timeout of the connection


def start_wandb(config: RunConfig, folder: Path) -> Logger:
    """Returns the logger of a run, and starts or resumes the run in Weights & Biases.

    The id and the settings are stored in the run folder, so that a resumed run continues the same
    W&B run from any working folder.

    Raises:
        ConfigError: If the package is missing, the settings are invalid, no user is logged in, or
            the server does not answer.
    """
    from lightning.pytorch.loggers import WandbLogger

    try:
        import wandb
        from wandb.errors import Error
    except ImportError as error:
        raise ConfigError(
            "logging.wandb needs the package wandb: pip install -e '.[wandb]', or leave it off."
        ) from error
    settings = _settings_of_run(folder)
    more = wandb.Settings(init_timeout=_CONNECTING_S, console="off")
    logger = WandbLogger(name=folder.name, save_dir=folder, settings=more, **settings)
    try:
        logger.log_hyperparams(config.to_dict())  # starts the run
    except Error as error:
        raise ConfigError(
            f"Weights & Biases cannot be used: {' '.join(str(error).split())} Log in with "
            "`wandb login`, set WANDB_MODE=offline to keep what is logged in the run's folder, or "
            "leave logging.wandb off."
        ) from error
    return logger


def end_wandb(failed: bool) -> None:
    """Finish the W&B run of this process, so that the next run is a separate one."""
    import wandb

    wandb.finish(exit_code=int(failed))


def _settings_of_run(folder: Path) -> dict[str, Any]:
    """Returns the W&B settings that the run was started with, including its id.

    A new run reads them from a file in the working folder or the project's folder; the environment
    variable WANDB_MODE overrides the mode.
    """
    record = folder / _RECORD
    if record.is_file():
        settings: dict[str, Any] = read_yaml(record)
    else:
        places = (Path.cwd(), Path(__file__).parents[1])
        found = next((place for place in places if (place / _FILE).is_file()), places[0])
        settings = {"mode": "offline", **wandb_settings(found / _FILE), "id": uuid.uuid4().hex[:8]}
        if is_main_process():
            record.parent.mkdir(exist_ok=True)
            write_yaml(record, settings)
    return {**settings, "mode": os.environ.get("WANDB_MODE") or settings["mode"]}


def wandb_settings(path: Path) -> dict[str, Any]:
    """Returns the settings in a `wandb_config.yaml`; empty if the file does not exist.

    Raises:
        ConfigError: If the file cannot be read or has an unknown key.
    """
    if not path.exists():
        return {}
    settings = read_yaml(path) or {}
    unknown = set(settings) - _SETTINGS if isinstance(settings, dict) else {"no table"}
    if unknown:
        raise ConfigError(
            f"{path} has {', '.join(sorted(unknown))}; it may have: "
            f"{', '.join(sorted(_SETTINGS))}. A key for W&B does not belong into a file: run "
            "`wandb login` once, or set WANDB_API_KEY."
        )
    return {name: value for name, value in settings.items() if value is not None}
