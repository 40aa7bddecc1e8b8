"""What the train scripts have in common."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console

from scripts.console import show_scores, user_errors
from trainers.cli import parse
from trainers.description import describe_run
from trainers.meter import Meter


def main(environment: str, arguments: Sequence[str] | None = None) -> None:
    """Train on an environment as the command line says, and print the scores."""
    arguments = sys.argv[1:] if arguments is None else arguments
    console = Console()
    with user_errors():
        command = parse(environment, arguments)
        for note in command.notes:
            console.print(f"note: {note}", style="dim", highlight=False, markup=False)
        Meter(shown=command.config.logging.progress).say(
            describe_run(command.config, command.resume)
        )
        from trainers.train import train  # slow to import: only once the command is known good

        result = train(command.config, command.resume, shlex.join([sys.argv[0], *arguments]))
        seed = command.config.training.seed
        if result.rows:
            show_scores([{**row, "seed": seed} for row in result.rows], console)
            console.print(f"The run is in {result.folder}/", highlight=False, markup=False)
