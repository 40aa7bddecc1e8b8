"""Policies with the evaluation settings of a run."""

from __future__ import annotations

from rate.config import Decoding
from rate.errors import ConfigError
from rate.model import SequenceModel
from rate.policy import Policy
from trainers.config import EvaluationConfig


def make_policy(
    model: SequenceModel,
    settings: EvaluationConfig,
    target_return: float,
    *,
    num_envs: int,
    trained_range: tuple[float, float] | None,
    decoding: Decoding | None = None,
    seed: int = 0,
) -> Policy:
    """Returns a policy that acts as in the evaluation of a run.

    Args:
        model: The model.
        settings: Target return, its mode, decoding and window.
        target_return: The environment's own, where the settings have none.
        num_envs: Rows of the batch.
        trained_range: Minimum and maximum return-to-go of the training data; None if unknown.
        decoding: Replaces that of the settings.
        seed: Seed of sampled actions.

    Raises:
        ConfigError: If `evaluation.return_to_go` does not go with the model or its weights.
    """
    settings.check_model(model.config)
    mode = settings.return_to_go
    if not model.config.condition_on_return:
        mode = "hold"  # nothing is told
    elif mode == "clamp" and trained_range is None:
        raise ConfigError(
            "evaluation.return_to_go=clamp needs the range of the training data, which these "
            "weights do not hold. Choose decrease or hold, or train again."
        )
    wanted = settings.target_return
    return Policy(
        model,
        num_envs=num_envs,
        target_return=target_return if wanted is None else wanted,
        return_to_go=mode,
        trained_range=trained_range,
        decoding=decoding or settings.decoding,
        seed=seed,
        recompute_window=settings.recompute_window,
    )
