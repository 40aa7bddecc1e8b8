"""Let a trained model of this package act: print its scores, and film an episode.

    rate demo                              # RATE in T-Maze
    rate demo tmaze-lstm -o lstm.gif       # an LSTM
    rate demo minigrid-rate                # needs the extra minigrid

The models were trained with `rate train`; their cards are beside them in `rate/pretrained`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from rate.errors import ConfigError
from rate.hub import PRETRAINED, pretrained_names
from rate.messages import did_you_mean
from trainers.commands.console import count, make_parser, show_scores, user_errors
from trainers.commands.evaluate import find_candidates, prepare
from trainers.commands.scoring import score, shown
from trainers.commands.video import check_output, film
from trainers.meter import Meter
from trainers.registry import environment_of

_FRAMES_PER_SECOND = 10
_DEFAULT = "tmaze-rate"


@dataclass(frozen=True)
class Demo:
    """What is shown of the models of an environment.

    Attributes:
        task: What is to be remembered.
        lengths: Of the episodes that are scored; the first is filmed, and was trained on.
    """

    task: str
    lengths: tuple[int, ...]


DEMOS = {
    "tmaze": Demo("A clue at the first step says which way to turn at the last one.", (90, 900)),
    "minigrid": Demo("The object at the start is to be found again behind the corridor.", (31, 61)),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    names = pretrained_names()
    parser = make_parser("demo", __doc__)
    parser.add_argument(
        "name", nargs="?", default=_DEFAULT, help=f"{', '.join(names)} (default: {_DEFAULT})"
    )
    parser.add_argument(
        "-o", "--output", type=Path, default=Path("demo.gif"), help="the GIF or MP4 to write"
    )
    parser.add_argument("--episodes", type=count, default=20, help="to score (default: 20)")
    options = parser.parse_args(arguments)
    console = Console()
    with user_errors():
        if options.name not in names:
            hint = did_you_mean(options.name, names)
            raise ConfigError(f"There is no model {options.name}.{hint} There are: {names}.")
        check_output(options.output, _FRAMES_PER_SECOND)
        (candidate,) = find_candidates(PRETRAINED / options.name)
        saved = candidate.saved
        environment_of(saved.spec)  # a missing package is an error before anything is printed
        demo, size = DEMOS[saved.spec.name], sum(p.numel() for p in saved.model.parameters())
        given = {"lengths": list(demo.lengths), "episodes": options.episodes}
        prepared = prepare(candidate, given, None)
        console.print(
            f"{options.name}, {size:,} parameters. {demo.task}\n"
            f"Trained on lengths up to {demo.lengths[0]}; played at these:",
            highlight=False,
            soft_wrap=True,
        )
        device = next(saved.model.parameters()).device
        with Meter() as meter:
            rows = list(score(prepared, device, shown(prepared, meter)))
        show_scores(rows, console)
        seed = prepared.first_seed
        film(prepared, demo.lengths[0], seed, None, _FRAMES_PER_SECOND, options.output)
        console.print(
            f"The film of an episode is {options.output}.\nIn Python: "
            f'rate.policy.Policy.from_pretrained("{options.name}").act(observations)',
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


if __name__ == "__main__":
    main()
