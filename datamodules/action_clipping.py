"""Clips actions to their bounds, as the simulators do, and counts them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from datamodules.episodes import Episode, space_bounds


@dataclass
class ActionClipping:
    """Clips the actions of a data set and counts what was clipped.

    Attributes:
        steps: The number of steps with an action outside its bounds.
        episodes: The number of episodes with such steps.
        furthest: The component of an action that is the furthest outside.
        bounds: The least and the greatest bound of a component, as text.
        excess: The distance of `furthest` from its bound.
    """

    steps: int = 0
    episodes: int = 0
    furthest: float = 0.0
    bounds: str = ""
    excess: float = 0.0

    def fit(self, episode: Episode, space: gymnasium.Space[Any]) -> Episode:
        """Returns the episode with its actions clipped to the bounds of their space.

        Values that are not finite or not of this space are left to validation.
        """
        actions = np.asarray(episode.actions)
        floats = isinstance(space, spaces.Box) and np.dtype(space.dtype).kind == "f"
        if not floats or actions.shape[1:] != space.shape or actions.dtype.kind not in "fiu":
            return episode
        low, high = space_bounds(space)
        outside = np.isfinite(actions) & ((actions < low) | (actions > high))
        if not outside.any():
            return episode
        assert isinstance(space, spaces.Box)  # noqa: S101
        inside = np.clip(actions, space.low, space.high)
        excess = np.where(outside, np.abs(actions - inside), 0)
        most = np.unravel_index(int(excess.argmax()), excess.shape)
        if excess[most] > self.excess:
            self.excess, self.furthest = float(excess[most]), float(actions[most])
        self.steps += int(outside.reshape(len(actions), -1).any(axis=1).sum())
        self.episodes += 1
        self.bounds = f"[{space.low.min():.4g}, {space.high.max():.4g}]"
        fitted = np.where(outside, inside, actions).astype(actions.dtype)
        return replace(episode, actions=fitted)

    @property
    def note(self) -> str | None:
        """What was clipped, for people; None if nothing was."""
        if not self.steps:
            return None
        return (
            f"{self.steps:,} actions in {self.episodes:,} episodes were outside of "
            f"{self.bounds}, up to {self.furthest:.4g}, and are clipped, as simulators do "
            "(--keep-actions keeps them)"
        )

    def warn(self, path: Path | str) -> None:
        """Warns of what was clipped, if anything was."""
        if self.note is not None:
            warnings.warn(f"{path}: {self.note}", stacklevel=2)
