"""Write a trained model as a file that acts in other programs: ONNX, or PyTorch's own format.

    rate export runs/tmaze-rate-1                    # tmaze-rate-1.onnx
    rate export runs/tmaze-rate-1 -o policy.pt2      # of torch.export
    rate export tmaze-rate -o policy.onnx --batch 0  # any number of rows

The file holds one step of acting, with the state as inputs and outputs, and a description: the
environment and its spaces, the target return, and every input and output. It needs neither this
project nor, in ONNX, PyTorch. The models are those that `Policy.from_pretrained` takes.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from rate.errors import ConfigError
from rate.export import SUFFIXES
from rate.hub import fetch_model
from rate.policy import Policy
from trainers.commands.console import make_parser, user_errors
from trainers.commands.evaluate import find_candidates
from trainers.commands.model_card import published_model
from trainers.commands.outputs import check_place, output_errors
from trainers.commands.scoring import Candidate
from trainers.policies import make_policy


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("export", __doc__)
    parser.add_argument("model", metavar="MODEL", help="a run, a folder with a model, or a name")
    known = " or ".join(SUFFIXES)
    parser.add_argument("-o", "--output", type=Path, help=f"the file to write, {known}")
    parser.add_argument("--which", choices=("last", "best"), default="last", help="of a run")
    parser.add_argument(
        "--batch", type=rows, default=1, help="rows, each in its own episode; 0 is any (default: 1)"
    )
    options = parser.parse_args(arguments)
    console = Console()
    with user_errors():
        output = options.output or Path(f"{Path(options.model).name}.onnx")
        if output.suffix not in SUFFIXES:
            raise ConfigError(f"-o {output}: the file must end in {known}.")
        check_place(output)
        policy, notes = policy_of(find(options.model, options.which))
        with output_errors(output):
            policy.export(output, SUFFIXES[output.suffix], batch_size=options.batch or None)
        for note in notes:
            console.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
        console.print(f"{output} is made.", highlight=False, markup=False, soft_wrap=True)


def rows(text: str) -> int:
    """Returns a number of rows; the `type` of an option for argparse.

    Raises:
        ArgumentTypeError: If the text is no whole number of at least 0.
    """
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no whole number of at least 0")
    return int(text)


def find(source: str, which: str) -> Candidate:
    """Returns the `last` or `best` model of a run, or the one that a folder or a name has.

    Raises:
        ConfigError: If there is no such model, or the run has no such weights.
        WeightsError: If it is damaged.
    """
    folder = Path(source)
    candidates = find_candidates(folder if folder.exists() else fetch_model(source))
    found = {candidate.label["which"]: candidate for candidate in candidates}
    if which not in found:
        raise ConfigError(f"{source} has no weights '{which}'; it has {', '.join(found)}.")
    return found[which]


def policy_of(candidate: Candidate) -> tuple[Policy, list[str]]:
    """Returns a policy that acts as in the evaluation of a model, and notes where a file cannot."""
    saved, settings = candidate.saved, candidate.settings
    published = published_model(saved, settings)
    policy = make_policy(
        saved.model,
        settings,
        saved.spec.target_return,
        num_envs=1,
        trained_range=saved.trained_range,
        decoding=saved.decoding,
    )
    policy.spec = published.spec
    notes = []
    if not settings.recompute_window and not saved.model.config.carries_state:
        notes.append(
            "the run was scored with evaluation.recompute_window=false; the file computes the "
            "window again at every step, so that its scores may differ."
        )
    return policy, notes


if __name__ == "__main__":
    main()
