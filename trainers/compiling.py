"""Compilation of the model (`torch.compile`), with a fallback to eager mode."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch

from rate.errors import ConfigError
from rate.model import SequenceModel


def compile_model(model: SequenceModel, attempt: Callable[[], None], *, required: bool) -> None:
    """Compile a model's segments; fall back to eager mode if compilation fails.

    Args:
        model: The model.
        attempt: Runs a forward and a backward pass, which triggers the compilation.
        required: Whether a failure is an error.

    Raises:
        ConfigError: If compilation is required and fails.
    """
    # What this process has compiled before decides which sizes a later program leaves open, and
    # with them the order of its sums: a resumed run would not be the same bit for bit.
    torch.compiler.reset()
    try:
        model.compile_segments()
        attempt()
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception as error:  # a missing compiler raises various types
        model.compile_segments(None)
        cause = getattr(error, "inner_exception", error)
        what = f"{type(cause).__name__}: {cause}".splitlines()[0]
        reason = f"The model cannot be compiled here ({what})."
        if required:
            raise ConfigError(f"{reason} Set training.compile=never.") from error
        warnings.warn(f"{reason} Training goes on without.", stacklevel=2)
