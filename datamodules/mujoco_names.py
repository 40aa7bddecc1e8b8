"""Names of MuJoCo data sets. The module is quick to import, as the command line needs it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from rate.envs.mujoco import TASKS
from rate.errors import ConfigError
from rate.messages import did_you_mean

QUALITIES = ("medium", "medium-replay", "medium-expert", "expert")
# In the order in which `--env_id` counts them.
D4RL = (
    *(f"halfcheetah-{quality}-v2" for quality in ("medium", "medium-replay", "expert")),
    *(f"walker2d-{quality}-v2" for quality in ("medium", "medium-replay", "expert")),
    *(f"hopper-{quality}-v2" for quality in ("medium", "medium-replay", "expert")),
    *(f"{task}-medium-expert-v2" for task in ("halfcheetah", "walker2d", "hopper")),
)
OWN = tuple(f"{task}-{quality}-sac" for task in TASKS for quality in QUALITIES)

_MINARI = re.compile(rf"mujoco/({'|'.join(TASKS)})/([\w-]+)-v\d+")


@dataclass(frozen=True)
class DatasetName:
    """A data set of MuJoCo.

    Attributes:
        name: `hopper-medium-v2` is D4RL's, `mujoco/hopper/medium-v0` Minari's, and
            `hopper-medium-sac` is made here.
        source: Where it comes from.
        task: The task.
        quality: The quality of the episodes.
    """

    name: str
    source: Literal["d4rl", "minari", "sac"]
    task: str
    quality: str

    @property
    def settings(self) -> dict[str, object]:
        """Returns the settings of a command line that names this data set."""
        settings: dict[str, object] = {"data.dataset": self.name, "env.task": self.task}
        if self.source != "d4rl":  # there is no published target return
            settings["evaluation.target_from_data"] = "true"
        return settings


def read_name(name: str) -> DatasetName:
    """Parses the name of a data set, or the number that `--env_id` has for one of D4RL's.

    Raises:
        ConfigError: If there is no such data set; names the nearest.
    """
    if name.isdecimal() and int(name) < len(D4RL):
        name = D4RL[int(name)]
    if f"{name}-v2" in D4RL:
        name = f"{name}-v2"
    if found := _MINARI.fullmatch(name):
        return DatasetName(name, "minari", found.group(1), found.group(2))
    if name in (*D4RL, *OWN):
        task, _, rest = name.partition("-")
        quality, _, source = rest.rpartition("-")
        return DatasetName(name, "sac" if source == "sac" else "d4rl", task, quality)
    hint = did_you_mean(name, (*D4RL, *OWN), cutoff=0.6)
    raise ConfigError(
        f"There is no data set '{name}' of MuJoCo.{hint} There are D4RL's (or 0 to 11 for them): "
        f"{', '.join(D4RL)}; Minari's, like mujoco/hopper/medium-v0; and those made here, like "
        f"{OWN[0]} (qualities: {', '.join(QUALITIES)})."
    )
