"""Roll out trained models and print their scores.

python scripts/evaluate.py runs/tmaze-rate-1
python scripts/evaluate.py runs/tmaze-rate-1 --lengths 100000 --episodes 100 --seed 50000
python scripts/evaluate.py path/to/model --results scores.csv
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from rate.errors import ConfigError
from rate.weights import DESCRIPTION, load_model
from scripts.console import show_scores, user_errors
from scripts.study import write_csv
from trainers.config import EvaluationConfig, load_config_file
from trainers.registry import get_environment
from trainers.rollout import evaluate


def find_models(source: Path) -> list[tuple[str, Path]]:
    """The models of a run (`last` and `best`), or of a model folder itself, with their names.

    Raises:
        ConfigError: If there are none.
    """
    if (source / DESCRIPTION).is_file():
        return [(source.name, source)]
    found = [(which, source / "checkpoints" / which) for which in ("last", "best")]
    models = [(which, folder) for which, folder in found if (folder / DESCRIPTION).is_file()]
    if not models:
        raise ConfigError(
            f"{source} holds no trained model: neither {DESCRIPTION} nor checkpoints/last. "
            "Give the folder of a finished run, or one that a model was saved in."
        )
    return models


def score(
    source: Path, settings: dict[str, Any], first_seed: int | None, console: Console
) -> list[dict[str, Any]]:
    """Rows of scores, as `scripts/study.py` writes them, of every model in `source`."""
    rows = []
    for which, folder in find_models(source):
        saved = load_model(folder)
        config, name, seed = EvaluationConfig(), saved.spec.name, 0
        if (source / "config.yaml").is_file():
            run = load_config_file(source / "config.yaml")
            config, name, seed = run.evaluation, run.logging.name or run.name, run.training.seed
        config = replace(config, decoding=saved.decoding, **settings)
        first_seed = config.test_seed if first_seed is None else first_seed
        with Bars(f"{source.name} {which}", config.lengths, console) as bars:
            started = time.monotonic()
            scores = evaluate(
                saved.model,
                saved.spec,
                get_environment(saved.spec.name).make_vector,
                config,
                lengths=config.lengths,
                first_seed=first_seed,
                on_step=bars.show,
            )
        known = {"model": name, "seed": seed, "which": which}
        known |= {"step": saved.extra.get("step"), "seconds": round(time.monotonic() - started, 1)}
        rows += [{**known, **row} for row in scores]
    return rows


class Bars:
    """A progress bar for the rollouts of every episode length."""

    def __init__(self, name: str, lengths: Sequence[int], console: Console) -> None:
        self.progress = Progress(console=console, disable=not console.is_terminal)
        self.tasks = {
            length: self.progress.add_task(f"{name} at {length}", total=length)
            for length in lengths
        }

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def show(self, length: int, step: int) -> None:
        """Move the bar of `length` to `step`."""
        self.progress.update(self.tasks[length], completed=step)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", type=Path, nargs="+", help="runs, or folders of models")
    parser.add_argument("--lengths", type=int, nargs="+", help="episode lengths")
    parser.add_argument("--episodes", type=int, help="episodes per length")
    parser.add_argument("--seed", type=int, help="seed of the first episode")
    parser.add_argument("--results", type=Path, help="also write the scores to this table")
    options = parser.parse_args(arguments)
    given = {"lengths": options.lengths, "episodes": options.episodes}
    console = Console()
    with user_errors():
        settings = {name: value for name, value in given.items() if value is not None}
        rows = [
            row
            for source in options.sources
            for row in score(source, settings, options.seed, console)
        ]
        if options.results:
            write_csv(options.results, rows)
    show_scores(rows, console)


if __name__ == "__main__":
    main()
