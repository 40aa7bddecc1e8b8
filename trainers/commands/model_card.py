"""A model as it is published, and its card: a README in Markdown, written from the run.

Text from files is escaped, so that it cannot become markup or metadata of the page.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePath

import yaml

from rate.hub import Acting
from rate.weights import SavedModel
from trainers.commands.report_runs import read_runs, score_tables
from trainers.commands.tables import Table, as_markdown
from trainers.config import EvaluationConfig, RunConfig
from trainers.own_environment import PYTHON

_MARKUP = re.compile(r"([\\`*_{}\[\]()<>#!|&$~])")
_TAGS = ("reinforcement-learning", "offline-reinforcement-learning", "memory", "sequence-modelling")


def published_model(saved: SavedModel, settings: EvaluationConfig) -> SavedModel:
    """Returns a model that acts alone as it does in the evaluation of its run.

    The path of another Python for the environment, which is of one computer, is left out.
    """
    wanted, spec = settings.target_return, saved.spec
    options = {name: value for name, value in spec.options.items() if name != PYTHON}
    target = spec.target_return if wanted is None else wanted
    acting = Acting(settings.return_to_go, settings.recompute_window)
    return replace(
        saved,
        spec=replace(spec, target_return=target, options=options),
        extra={"step": saved.extra.get("step"), **acting.extra()},
    )


def model_card(folder: Path, saved: SavedModel, name: str, which: str, licence: str | None) -> str:
    """Returns the card of a model.

    Args:
        folder: The run that trained it.
        saved: The model as it is published.
        name: OWNER/NAME.
        which: `last` or `best`.
        licence: Of the weights; None states none.

    Raises:
        ConfigError: If a file of the run is damaged.
    """
    (run,) = read_runs([folder])
    config, spec = run.config, saved.spec
    metadata = {
        "license": licence or "unknown",
        "library_name": "rate-trainer",
        "pipeline_tag": "reinforcement-learning",
        "tags": [*_TAGS, config.model.backbone],
    }
    size = sum(parameter.numel() for parameter in saved.model.parameters())
    facts = {
        "environment": ", ".join([spec.name, *(f"{k}={v}" for k, v in spec.options.items())]),
        "observations": spec.observation_space,
        "actions": spec.action_space,
        "target return": f"{spec.target_return:g}",
        "backbone": f"{config.model.backbone}, {size:,} parameters",
        "context length K, segments": f"{config.model.context_length}, {config.training.segments}",
        "learning rule": config.training.objective,
        "data": _data(config),
        "training seed": config.training.seed,
        "updates": f"{saved.extra.get('step')} of {config.training.max_steps}",
        "weights": which,
        "licence": licence or "none stated: ask whoever published it",
    }
    lines = [
        "---",
        yaml.safe_dump(metadata, sort_keys=False).strip(),
        "---",
        f"# {_escaped(run.label)} on {_escaped(spec.name)}",
        "",
        "Written by the RATE trainer from the run. The files hold no code.",
        "",
        "```python",
        "from rate.policy import Policy",
        "",
        f'policy = Policy.from_pretrained("{name}", num_envs=1)',
        "actions = policy.act(observations)  # (1, ...); later calls take the rewards as well",
        "```",
        "",
        _markdown(Table("", ["", ""], [[key, str(value)] for key, value in facts.items()], "")),
    ]
    if run.rows:
        lines += ["", "## Scores", "", *map(_markdown, score_tables([run]))]
    return "\n".join(lines) + "\n"


def _data(config: RunConfig) -> str:
    """Returns what a run was trained on, without paths of this computer."""
    data = config.data
    if data.source != "offline":
        return "made while learning, by the model in the environment"
    if data.store is not None:
        return PurePath(data.store).name
    who = data.expert or ("a random policy" if data.random_policy else "the environment's expert")
    told = f"{data.num_episodes:,} episodes that {who} plays, of lengths up to {config.max_length}"
    return told if data.dataset is None else f"{data.dataset}: {told}"


def _markdown(table: Table) -> str:
    rows = [[_escaped(cell) for cell in row] for row in table.rows]
    return as_markdown([replace(table, rows=rows)]).strip()


def _escaped(text: str) -> str:
    """Returns text that is shown as it is, in one line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
