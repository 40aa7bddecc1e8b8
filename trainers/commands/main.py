"""The command `rate`, which imports and runs other commands. It imports no slow modules itself."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

from rate.advice import PROJECT, install
from rate.messages import did_you_mean
from rate.stopping import exit_on_signals

# The commands: modules of this package whose `main` takes the words after the name.
COMMANDS = {
    "demo": "let a trained model of this package act, and film it",
    "train": "train a model and score it in rollouts",
    "evaluate": "roll out trained models and print their scores",
    "study": "train and score several models over several seeds, from one file",
    "plot": "draw scores by episode length, or learning curves",
    "video": "film a trained model in its environment, and its memory beside it",
    "inspect": "measure and draw the memory of trained models in rollouts",
    "report": "write one page about runs: scores, curves, memory and episodes",
    "export": "write a trained model as a file for other programs: ONNX or torch.export",
    "collect": "have an environment's expert play a data set",
    "download": "download a public data set by name",
    "convert": "convert a data set of any known format into a store, or to Minari",
    "join": "make one data set of the stores in a folder, without copying them",
    "validate": "check every episode of a data set, and report invalid ones",
    "doctor": "report what runs on this machine, what is missing, and how to install it",
}


def run(name: str, arguments: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        name: The command.
        arguments: The words after the command's name; None is `sys.argv[1:]`.

    Raises:
        SystemExit: If a required package is not installed.
    """
    exit_on_signals()  # no traceback on Ctrl+C during the imports, which take seconds
    try:
        module = importlib.import_module(f"trainers.commands.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("rate", "datamodules", "trainers"):
            raise
        raise SystemExit(
            f"error: {sys.executable} has no {error.name}, which this project needs. "
            f"Install it with: {install()}"
        ) from error
    module.main(sys.argv[1:] if arguments is None else arguments)


def main() -> None:
    """The entry point of `rate COMMAND ...`."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help", "help"):
        print(describe())
    elif name == "--version":
        print(f"{PROJECT} {metadata.version(PROJECT)}")
    elif name in COMMANDS:
        run(name, arguments)
    else:
        hint = did_you_mean(name, COMMANDS, cutoff=0.6)
        print(
            f"error: there is no command {name}.{hint} There are: {', '.join(COMMANDS)}.",
            file=sys.stderr,
        )
        raise SystemExit(2)


def describe() -> str:
    """Returns the text of `rate --help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "usage: rate COMMAND [...]",
            "",
            "Offline reinforcement learning as sequence modelling, with memory.",
            "",
            *lines,
            "",
            "rate COMMAND --help tells more of each; rate --version the version.",
        ]
    )


if __name__ == "__main__":
    main()
