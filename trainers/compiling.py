"""A model that is compiled where that works."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from rate.errors import ConfigError
from rate.model import SequenceModel


def compile_model(model: SequenceModel, attempt: Callable[[], None], *, required: bool) -> None:
    """Compile a model's segments (`torch.compile`), or go on without where that fails.

    Args:
        model: The model.
        attempt: Computes with it, and a gradient: programs are made when they are first needed.
        required: Whether to go on without is an error.

    Raises:
        ConfigError: If it must be compiled, and cannot be.
    """
    try:
        model.compile_segments()
        attempt()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler may lack: nobody can list it
        model.compile_segments(None)
        cause = getattr(error, "inner_exception", error)
        what = f"{type(cause).__name__}: {cause}".splitlines()[0]
        reason = f"The model cannot be compiled here ({what})."
        if required:
            raise ConfigError(f"{reason} Set training.compile=never.") from error
        warnings.warn(f"{reason} Training goes on without.", stacklevel=2)
