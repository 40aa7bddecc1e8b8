"""Train a model and score it in rollouts.

rate train tmaze --model_mode RMT --seed 2
rate train vizdoom --help                    # the options of an environment
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.console import Console

from rate.stopping import nothing_begun
from trainers.cli import parse
from trainers.commands.console import make_parser, show_scores, typed, user_errors
from trainers.description import describe_frames, describe_run
from trainers.meter import Meter
from trainers.registry import ENVIRONMENTS, find_environment


def main(arguments: Sequence[str] | None = None) -> None:
    """The command: its first word is the environment."""
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = make_parser("train", __doc__)
    parser.usage = "%(prog)s ENVIRONMENT [--model_mode MODEL] [--SECTION.OPTION VALUE ...]"
    parser.add_argument("environment", help=f"one of: {', '.join(ENVIRONMENTS)}")
    environment = parser.parse_args(arguments[:1]).environment
    with user_errors():
        find_environment(environment)  # refuses one that does not exist
    train_on(environment, arguments[1:])


def train_on(environment: str, arguments: Sequence[str]) -> None:
    """Train on an environment as the command line says, and print the scores."""
    console = Console()
    with user_errors():
        command = parse(environment, arguments)
        config = command.config
        for note in command.notes:
            console.print(f"note: {note}", style="dim", highlight=False, markup=False)
        meter = Meter(shown=config.logging.progress)
        if config.data.frame_stack > 1:
            meter.say(describe_frames(config))
        meter.say(describe_run(config, command.resume))
        with nothing_begun():  # slow to import: only once the command is known good
            from trainers.train import train

        result = train(config, command.resume, typed(arguments))
        seed = config.training.seed
        if result.rows:
            show_scores([{**row, "seed": seed} for row in result.rows], console)
            console.print(f"The run is in {result.folder}/", highlight=False, markup=False)
