"""Options of reading a data set: what its files do not say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rate.envs.spec import EnvironmentSpec


@dataclass(frozen=True)
class Options:
    """What a person says of a data set, because its files do not.

    Attributes:
        time_limit: The time limit of the environment of the data, in steps. It cuts episodes where
            no column does, and decides which ends are truncations.
        spec: The environment, in place of that of the source.
        columns: `(theirs, ours)` pairs, the roles of columns by name; see
            `datamodules.readers.roles`. Several columns that are `observations` become a
            dictionary of observations.
        action_range: The least and the greatest value of the components of continuous actions.
        keep_actions: Keep actions that are outside of the environment's bounds; they are clipped
            otherwise.
        zero_rewards: Take data without rewards, as if every reward were 0.
        unfinished: What becomes of the steps after the last end: `keep` makes them a truncated
            episode, `drop` leaves them out. None keeps them, but for D4RL's files, whose published
            readers leave them out.
        format: The name or import path of the data's format, where it is not to be recognised.
    """

    time_limit: int | None = None
    spec: EnvironmentSpec | None = None
    columns: tuple[tuple[str, str], ...] = ()
    action_range: tuple[float, float] | None = None
    keep_actions: bool = False
    zero_rewards: bool = False
    unfinished: Literal["keep", "drop"] | None = None
    format: str | None = None
