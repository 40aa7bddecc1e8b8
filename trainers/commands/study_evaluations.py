"""Further evaluations of a study: the last weights of every run in a changed environment."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.files import load_json, write_json
from trainers.environment import at_length

_NAME = re.compile(r"[\w.-]+")  # part of a file's name


@dataclass(frozen=True)
class Evaluation:
    """Rollouts of the last weights of a run in a changed environment.

    Attributes:
        env: Settings of the environment that differ from those of training.
        lengths: Episode lengths; None are those of the run.
        episodes: Episodes per length; None is the run's number.
    """

    env: dict[str, Any] = field(default_factory=dict)
    lengths: list[int] | None = None
    episodes: int | None = None


def read_evaluations(content: object, path: Path) -> dict[str, Evaluation]:
    """Returns the evaluations of a study file by name.

    Raises:
        ConfigError: If the section is not valid.
    """
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: evaluations are of the form NAME: {{env: {{SETTING: VALUE}}}}.")
    found = dict[str, Evaluation]()
    for name, settings in content.items():
        if not _NAME.fullmatch(str(name)):
            raise ConfigError(
                f"{path}: the evaluation {name!r} must be named in letters, digits, '.', '_', '-'."
            )
        if not isinstance(settings, dict) or not set(settings) <= {"env", "lengths", "episodes"}:
            raise ConfigError(f"{path}: the evaluation {name} may have env, lengths and episodes.")
        numbers = [*(settings.get("lengths") or []), settings.get("episodes") or 1]
        if not isinstance(settings.get("env", {}), dict) or not all(
            isinstance(number, int) and number > 0 for number in numbers
        ):
            raise ConfigError(
                f"{path}: of the evaluation {name}, env maps settings to values, and lengths and "
                "episodes are positive whole numbers."
            )
        found[str(name)] = Evaluation(**settings)
    return found


def evaluation_rows(folder: Path, name: str, evaluation: Evaluation) -> list[dict[str, Any]] | None:
    """Returns the rows of a finished evaluation of a run, or None."""
    try:
        known = load_json(_file(folder, name))
        rows: list[dict[str, Any]] = known["rows"]
        return rows if known["asked"] == asdict(evaluation) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def score_evaluation(
    folder: Path, name: str, evaluation: Evaluation, report: Callable[[str, int, int], None]
) -> None:
    """Score the last weights of a run, and write the rows into its folder.

    Args:
        folder: The folder of the run.
        name: The name of the evaluation, which rows have after that of the environment.
        evaluation: What to evaluate.
        report: Called with the phase, the part done in percent, and 100.
    """
    import torch

    from trainers.commands.evaluate import find_candidates, prepare
    from trainers.commands.scoring import score

    (candidate,) = (c for c in find_candidates(folder) if c.label["which"] == "last")
    given = {"lengths": evaluation.lengths, "episodes": evaluation.episodes}
    given = {key: value for key, value in given.items() if value is not None}
    candidate = prepare(candidate.playing_in(None, evaluation.env), given, None)

    def tell(length: int | None, share: float) -> None:
        report(f"scoring {name} at {at_length(length)}", round(100 * share), 100)

    scored = score(candidate, torch.device("cpu"), tell)
    rows = [{**row, "environment": f"{row['environment']} {name}"} for row in scored]
    write_json(_file(folder, name), {"asked": asdict(evaluation), "rows": rows})


def _file(folder: Path, name: str) -> Path:
    return folder / f"evaluation-{name}.json"
