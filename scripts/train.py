"""Train on any environment; what the train scripts have in common.

python scripts/train.py tmaze --model_mode RMT --seed 2     # as scripts/train_tmaze.py does
python scripts/train.py vizdoom --help                      # the options of an environment
"""

from __future__ import annotations

import runpy
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rate.stopping import nothing_begun
from scripts.console import make_parser, show_scores, user_errors
from trainers.cli import parse
from trainers.description import describe_run
from trainers.meter import Meter
from trainers.registry import ENVIRONMENTS, find_environment


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
        with nothing_begun():  # slow to import: only once the command is known good
            from trainers.train import train

        result = train(command.config, command.resume, shlex.join([sys.argv[0], *arguments]))
        seed = command.config.training.seed
        if result.rows:
            show_scores([{**row, "seed": seed} for row in result.rows], console)
            console.print(f"The run is in {result.folder}/", highlight=False, markup=False)


def train_on_any(arguments: Sequence[str]) -> None:
    """Run the train script of the environment that comes first among the arguments."""
    parser = make_parser(__doc__)
    parser.usage = "train.py ENVIRONMENT [--model_mode MODEL] [--SECTION.OPTION VALUE ...]"
    parser.add_argument("environment", help=f"one of: {', '.join(ENVIRONMENTS)}")
    environment = parser.parse_args(arguments[:1]).environment
    with user_errors():
        find_environment(environment)  # refuses one that does not exist
    script = Path(__file__).with_name(f"train_{environment}.py")  # that other processes run as well
    sys.argv = [str(script), *arguments[1:]]
    runpy.run_module(f"scripts.train_{environment}", run_name="__main__")


if __name__ == "__main__":
    train_on_any(sys.argv[1:])
