"""Train a model and score it in rollouts.

    rate train tmaze --model rmt --seed 2                     # an environment of this project
    rate train --env Pendulum-v1 --data my_data.npz --model dt
    rate train --env my_package.envs:make_env --env.size 5 --data path/to/data
    rate train --data mujoco/hopper/medium-v0                  # data alone: nothing is rolled out

The environment is one of this project, Gymnasium's id of any that is installed, or the import path
of a class or function that makes one; what it takes are options --env.NAME VALUE. Data are a file
or folder of any format that `rate convert` reads, or the name of a public data set that is here;
environments of this project make their own. What the data do not tell is said as for `rate
convert`: --map THEIRS=OURS, --zero-rewards, --time-limit STEPS, --action-range LOW HIGH.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from rate.errors import ConfigError
from rate.stopping import exiting_on_signals
from trainers import trust
from trainers.cli import parse
from trainers.commands.console import make_parser, show_scores, typed, user_errors
from trainers.config import NO_ENVIRONMENT
from trainers.config_files import read_config_file
from trainers.description import describe_frames, describe_run
from trainers.given_options import AUTO
from trainers.meter import Meter
from trainers.preset_files import config_path
from trainers.registry import ENVIRONMENTS, find_environment


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    with user_errors():
        if any(_value(arguments, name) for name in ("--on", "--ray-address")):
            raise ConfigError(
                "rate train does not run on Ray. To train one model on several machines, use "
                "torchrun or SLURM (docs/scale.md); `rate study --on ray` trains each run of a "
                "study on one machine of a cluster."
            )
        environment, rest = choose_environment(arguments)
        if environment is not None:
            find_environment(environment)  # refuses one that does not exist
    if environment is not None:
        train_on(environment, rest, _as_typed(arguments))
        return
    parser = make_parser("train", __doc__)
    parser.usage = "%(prog)s ENVIRONMENT | --env ENVIRONMENT | --data PATH [--SECTION.OPTION VALUE]"
    parser.epilog = (
        f"The environments of this project: {', '.join(ENVIRONMENTS)}. With one of them, or with "
        "--env or --data, --help lists every option."
    )
    parser.parse_args([word for word in rest if word in ("-h", "--help")])
    parser.error("name an environment, or --data to train on")


def choose_environment(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Returns the environment of a command line, and the remaining words.

    The environment is the first word, or the value of `--env`, or that of the run of `--resume` or
    the file of `--config`. It is `NO_ENVIRONMENT` if the command line only has data, and None if it
    has none of these.

    Raises:
        ConfigError: If `--env` has no value, or the configuration file cannot be read.
    """
    words = list(arguments)
    if words and not words[0].startswith("-"):
        return words[0], words[1:]
    environment = _take(words, "--env")
    if environment is not None:
        return environment, words
    resume, config = _value(words, "--resume"), _value(words, "--config")
    file = None if config is None else config_path(config)
    if resume not in (None, AUTO):
        file = Path(str(resume)) / "config.yaml"
    if file is not None and file.is_file():
        environment = read_config_file(file).get("environment")
        if environment is not None:
            trust.require(str(environment), {})
    if environment is None and any(_value(words, name) for name in ("--data", "--data.store")):
        environment = NO_ENVIRONMENT
    return (None if environment is None else str(environment)), words


def train_on(environment: str, arguments: Sequence[str], command_line: str | None = None) -> None:
    """Train with the options of a command line, and print the scores.

    Args:
        environment: The environment.
        arguments: The options.
        command_line: The command line to record in the run; None composes it from the options.
    """
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
        with exiting_on_signals():  # slow to import: only after the options are checked
            from trainers.errors import Interrupted
            from trainers.slurm import requeue, resume_of_job
            from trainers.train import train

        resume = command.resume or resume_of_job(config)
        try:
            result = train(config, resume, command_line or typed(arguments))
        except Interrupted as interrupt:
            requeue(interrupt.number)
            raise
        seed = config.training.seed
        if result.rows:
            show_scores([{**row, "seed": seed} for row in result.rows], console)
        for row in result.held_out:
            console.print(_describe_held_out(row), highlight=False, markup=False)
        if result.rows or environment == NO_ENVIRONMENT:
            console.print(f"The run is in {result.folder}/", highlight=False, markup=False)


def _describe_held_out(row: dict[str, Any]) -> str:
    """Returns a line with the metrics of weights on the actions of held-out episodes."""
    names = ("action_loss", "accuracy", "action_error")
    known = [name for name in names if row.get(name) is not None]
    metrics = ", ".join(f"{name.replace('_', ' ')} {row[name]:.4g}" for name in known)
    return f"On {row['steps']:,} held-out steps, {row['which']} weights: {metrics}."


def _as_typed(arguments: list[str]) -> str:
    """Returns the command line as typed: without the name that an environment's script adds."""
    is_script = Path(sys.argv[0]).suffix == ".py"
    return typed(sys.argv[1:] if is_script and arguments[1:] == sys.argv[1:] else arguments)


def _value(words: Sequence[str], option: str) -> str | None:
    """Returns the value of an option (the last one if it is repeated), or None."""
    found = None
    for word, following in zip(words, [*words, ""][1:], strict=True):
        if word == option:
            found = following
        elif word.startswith(f"{option}="):
            found = word.partition("=")[2]
    return found


def _take(words: list[str], option: str) -> str | None:
    """Returns the value of an option, or None, and removes the option from the words.

    Raises:
        ConfigError: If the option has no value.
    """
    value = _value(words, option)
    if value is None:
        return None
    if not value or value.startswith("--"):
        raise ConfigError(f"{option} needs a value: an environment.")
    remaining, skip = [], False
    for word in words:
        if not skip and word != option and not word.startswith(f"{option}="):
            remaining.append(word)
        skip = word == option
    words[:] = remaining
    return value
