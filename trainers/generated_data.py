"""Data sets that an environment's expert or a policy of the user generates."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rate.progress import OnProgress
from rate.renamed import former_settings
from trainers.config import DataConfig

if TYPE_CHECKING:
    from trainers.environment import Environment


def generate(environment: Environment, data: DataConfig, max_length: int, tell: OnProgress) -> Path:
    """Generate a data set unless it exists; see `Environment.prepare_data`.

    Its name has a digest of the settings and `data.seed`, so that data of other settings are
    another data set.

    Returns:
        The path of the store.

    Raises:
        ConfigError: If there is no such policy.
    """
    from datamodules.collect import collect
    from datamodules.collector import expert_seeds

    policy = data.expert or "expert"
    if data.expert is not None:
        from datamodules.policy_expert import find_expert

        find_expert(data.expert)  # raises before anything is generated
    played = _with_privileged_state(environment)
    spec, length = played.data_spec(), environment.data_lengths(max_length)
    settings = {
        **spec.options,
        "length": list(length) if isinstance(length, tuple) else length,
        "num_episodes": data.num_episodes,
        "noise": data.noise,
        "seed": data.seed,
    }
    if policy != "expert":
        settings["policy"] = policy
    first = json.dumps(former_settings("env", settings), sort_keys=True)
    digest = hashlib.sha256(first.encode()).hexdigest()[:8]
    suffix = f"{max_length}-{data.num_episodes}-{digest}"
    origin = _origin(environment, policy, spec.name, suffix)
    name = spec.name.replace(":", "-").replace("/", "-")
    return collect(
        data.root,
        f"{name}-{max_length}-{data.num_episodes}-seed{data.seed}-{digest}",
        partial(played.make_collector, policy, length, data.noise),
        seeds=expert_seeds(data.num_episodes, data.seed),
        spec=spec,
        provenance={**origin, **settings},
        workers=data.workers,
        on_progress=tell,
    )


def _origin(environment: Environment, policy: str, name: str, suffix: str) -> dict[str, str]:
    """Returns the source and the collector of a data set, for its provenance."""
    if policy != "expert":
        return {"source": f"{policy} on {name}", "collector": policy}
    module = type(environment).env.__module__.split(".")[-1]
    # Kept equal to existing stores, which were made by way of a Minari data set.
    source = f"Minari data set {name}/expert-{suffix}-v0"
    return {"source": source, "collector": f"{module}-expert-1"}


def _with_privileged_state(environment: Environment) -> Environment:
    """Returns the environment that records the privileged state, if the settings or it say so."""
    settings = environment.settings
    if hasattr(settings, "privileged"):
        shown = settings.privileged or environment.keep_privileged_state
        settings = replace(settings, privileged=shown)
    return replace(environment, settings=settings)
