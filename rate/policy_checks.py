"""Checks of the inputs of `Policy.step`: wrong shapes would be broadcast without an error."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from rate.errors import UserError


def check_observations(
    observations: Any, space: gymnasium.Space[Any], num_envs: int, name: str = "observations"
) -> None:
    """Refuse observations that are no batch of `num_envs` elements of a space.

    Raises:
        ValueError: If keys are missing or unknown, or an array has another shape or kind.
    """
    if isinstance(space, spaces.Dict):
        if not isinstance(observations, dict) or observations.keys() != space.spaces.keys():
            found = (
                f"the keys {', '.join(map(str, observations))}"
                if isinstance(observations, dict)
                else f"a {type(observations).__name__}"
            )
            raise ValueError(
                f"{name} are {found}, but the model needs a dictionary with the keys "
                f"{', '.join(space.spaces)}"
            )
        for key, part in space.spaces.items():
            check_observations(observations[key], part, num_envs, f"{name}[{key!r}]")
        return
    if isinstance(observations, dict):
        raise ValueError(f"{name} are a dictionary, but the model needs one array")
    shape, wanted = tuple(np.shape(observations)), (num_envs, *(space.shape or ()))
    if shape != wanted:
        hint = ""
        if num_envs == 1 and shape == wanted[1:]:
            hint = "; a single observation needs a batch axis: observation[None]"
        raise ValueError(f"{name} have shape {shape}, but the policy needs {wanted}{hint}")
    is_float = "float" in str(getattr(observations, "dtype", ""))
    if space.dtype == np.uint8 and is_float:
        raise ValueError(
            f"{name} are {observations.dtype}, but the model was trained on uint8 from 0 to 255; "
            "hand it the pixels as they are"
        )


def check_rewards(rewards: Any, begun: NDArray[np.bool_], required: bool) -> None:
    """Refuse rewards that are missing, not `(B,)`, or not finite.

    Args:
        rewards: Rewards of the last actions, or None.
        begun: `(B,)`, the rows that have acted before, whose rewards count.
        required: Whether the model is given a return-to-go that depends on rewards.

    Raises:
        UserError: If one is not finite; names the rows.
        ValueError: Otherwise.
    """
    if rewards is None:
        if required and begun.any():
            raise ValueError(
                "rewards are missing: the model is conditioned on the return-to-go, so after the "
                "first step act() needs what the last actions earned, act(observations, rewards); "
                "call reset() where new episodes begin"
            )
        return
    values = np.asarray(rewards)
    if values.shape != begun.shape:
        raise ValueError(f"rewards have shape {values.shape}, but the policy needs {begun.shape}")
    if wrong := np.flatnonzero(begun & ~np.isfinite(values)).tolist():
        raise UserError(
            f"The rewards of the rows {wrong} of the environment are {values[wrong].tolist()}, not "
            "finite numbers."
        )
