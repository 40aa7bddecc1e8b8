"""Study files: the runs of a study, their options and their seeds."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rate.errors import ConfigError
from rate.trust import require_path
from trainers import flags, trust
from trainers.cli import CODE, parse
from trainers.commands.study_evaluations import Evaluation, read_evaluations
from trainers.config import RunConfig
from trainers.environment import BASELINES
from trainers.given_options import Given
from trainers.own_environment import PYTHON
from trainers.yaml_files import read_yaml

FOLDER = Path(__file__).parents[1] / "studies"  # study files of this project
STUDIES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
_OPTIONAL = {"options", "baselines", "evaluations", "vary"}


@dataclass(frozen=True)
class Study:
    """A study file with the complete configuration of each run.

    Attributes:
        name: The stem of the file.
        runs: The configurations in the order of the file; the seeds of a run are consecutive.
        baselines: The baselines to score, on the same episodes as the first run.
        evaluations: Further evaluations of every run, by name.
    """

    name: str
    runs: list[RunConfig]
    baselines: list[str]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)


def find_study(text: str) -> Path:
    """Returns the file of a study, given its path or the name of one of this project's."""
    return FOLDER / f"{text}.yaml" if text in STUDIES and not Path(text).is_file() else Path(text)


def load_study(
    path: Path,
    seeds: list[int] | None,
    only: list[str] | None,
    extra: list[str],
    environment: str | None = None,
) -> Study:
    """Read a study.

    Args:
        path: The YAML file.
        seeds: Seeds that replace those of the file; None keeps them.
        only: Labels of the runs to use, or names of runs with all their values, without
            baselines; None uses all runs and baselines.
        extra: Options added to every run.
        environment: Replaces that of the file; None keeps it.

    Raises:
        ConfigError: If the file or the options of a run are not valid.
    """
    content = _read_study(path)
    own, common = str(content["environment"]), str(content.get("options") or "")
    runs, baselines = _labelled_runs(content, path), _baselines(content, path)
    evaluations = read_evaluations(content.get("evaluations") or {}, path)
    if environment is None:
        trust.require(own, {})
    else:
        trust.remember(environment, {})
    environment = environment or own
    unknown = set(only or []) - set(runs) - {name for _, _, name in runs.values()}
    if unknown:
        raise ConfigError(
            f"{path} has no run {', '.join(sorted(unknown))}; it has: {', '.join(runs)}."
        )
    configs = []
    for label, (options, own_seeds, name) in runs.items():
        if only is not None and not {label, name} & set(only):
            continue
        words = [*shlex.split(common), *shlex.split(options), *extra, f"--logging.name={label}"]
        try:
            _require_named(words, extra)
            config = parse(environment, [*words, "--logging.progress=false"]).config
            for seed in dict.fromkeys(seeds or own_seeds):
                configs.append(replace(config, training=replace(config.training, seed=seed)))
        except ConfigError as error:
            raise ConfigError(f"Run {label} of {path}: {error}") from error
    return Study(path.stem, configs, [] if only else baselines, evaluations)


def _require_named(words: Sequence[str], typed: Sequence[str]) -> None:
    """Check that the code which the options of a run name is trusted, unless it is typed.

    Raises:
        ConfigError: If the user has not named it (see `rate.trust`).
    """
    given, named = (Given.read(flags.translate(list(part)).options) for part in (words, typed))
    for name in CODE:
        if (path := given.text(name)) is not None and path != named.text(name):
            require_path(name, path)
    python = given.text(f"env.{PYTHON}")
    if python is not None and python != named.text(f"env.{PYTHON}"):
        trust.require("", {PYTHON: python})


def _read_study(path: Path) -> dict[str, Any]:
    """Returns the content of a study file.

    Raises:
        ConfigError: If it has not the keys of a study.
    """
    content = read_yaml(path)
    required = {"environment", "seeds", "runs"}
    if not isinstance(content, dict) or not required <= set(content) <= required | _OPTIONAL:
        raise ConfigError(
            f"{path} is no study: it needs the keys environment, seeds and runs, and may have "
            f"options, baselines, evaluations and vary. The project's own, in {FOLDER}, are "
            "examples."
        )
    return content


def _labelled_runs(content: dict[str, Any], path: Path) -> dict[str, tuple[str, list[int], str]]:
    """Returns options, seeds and name of the runs by label.

    With `vary: {OPTION: VALUES}`, every run is made once for each value, or for each of its own
    `values`, under the label LABEL-VALUE (of a path, its last part).
    """
    runs, (option, values) = content["runs"], _varied(content, path)
    if not isinstance(runs, dict) or not runs:
        raise ConfigError(f"{path}: runs must name at least one run, as LABEL: OPTIONS.")
    known = {"options", "seeds", "values"} if option else {"options", "seeds"}
    labelled = {}
    for label, run in runs.items():
        settings = run if isinstance(run, dict) else {"options": run}
        if not set(settings) <= known:
            raise ConfigError(
                f"{path}: the run {label} may have {', '.join(sorted(known))}, nothing else."
            )
        seeds = settings.get("seeds", content["seeds"])
        if not isinstance(seeds, list) or not seeds or not all(isinstance(s, int) for s in seeds):
            raise ConfigError(f"{path}: seeds must be whole numbers, like [1, 2, 3].")
        options, own = str(settings.get("options") or ""), settings.get("values", values)
        if not option:
            labelled[str(label)] = (options, seeds, str(label))
            continue
        if not isinstance(own, list) or not own:
            raise ConfigError(f"{path}: values must be a list, like [1, 10, 100].")
        for value in map(str, own):
            varied = f"{label}-{value.rpartition('/')[2]}"
            labelled[varied] = (f"{options} --{option}={value}", seeds, str(label))
    return labelled


def _varied(content: dict[str, Any], path: Path) -> tuple[str, Any]:
    """Returns the option that a study varies and its values; empty if there is none."""
    vary = content.get("vary") or {}
    if not isinstance(vary, dict) or len(vary) > 1:
        raise ConfigError(f"{path}: vary is of the form {{OPTION: [VALUE, ...]}}, one option.")
    return next(((str(option), values) for option, values in vary.items()), ("", []))


def _baselines(content: dict[str, Any], path: Path) -> list[str]:
    baselines = content.get("baselines") or []
    if not isinstance(baselines, list) or not set(baselines) <= set(BASELINES):
        raise ConfigError(f"{path}: baselines is a list of some of {', '.join(BASELINES)}.")
    return baselines
