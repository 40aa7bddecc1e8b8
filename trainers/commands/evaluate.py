"""Roll out trained models and print their scores.

    rate evaluate runs/tmaze-rate-1
    rate evaluate runs/tmaze-rate-1 --lengths 100000 --episodes 100 --seed 50000
    rate evaluate runs/tmaze-rate-1 --return-to-go hold
    rate evaluate runs/vizdoom-rate_published-1 --device cuda
    rate evaluate path/to/model --results scores.csv
    rate evaluate runs/* --on ray --ray-address 10.0.0.1:6379
    rate evaluate --public-weights W.pt --public-config C.json --context-length 30 --env tmaze

Of a run both the last and the best weights are scored, as they were after training. A folder that
holds a model alone is scored under its own name. Weights of the public RATE code act as they would
there in whole segments of K steps; C.json holds the arguments of its constructor.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, get_args

from rich.console import Console

from rate.config import ReturnToGo
from rate.envs.recorded import differences
from rate.errors import ConfigError
from rate.hub import Acting
from rate.reference.acting import load_public
from rate.weights import SavedModel, find_models, load_model
from trainers.commands.console import count, make_parser, show_scores, user_errors
from trainers.commands.devices import add_device_option, choose_device
from trainers.commands.engine_options import add_engine_options, engine_of
from trainers.commands.environment_options import (
    add_environment_option,
    parse_with_settings,
)
from trainers.commands.scores import add_scores, check_scores
from trainers.commands.scoring import Candidate, score_all
from trainers.config import EvaluationConfig
from trainers.config_files import load_config_file
from trainers.csv_logger import online_evaluations
from trainers.meter import Meter
from trainers.registry import check_lengths, environment_of, get_environment

LAST_SEED = 1 << 63  # exclusive bound of the seeds of episodes


def find_candidates(source: Path) -> list[Candidate]:
    """Returns the `last` and `best` models of a run, or the model in a folder or file.

    Raises:
        WeightsError: If there is no model, or one is damaged.
    """
    models = find_models(source)
    folder = next(iter(models.values()))
    run = folder.parent.parent
    if not (run / "config.yaml").is_file():
        alone = {"model": folder.name, "seed": 0, "which": "last"}
        saved = load_model(folder)
        return [Candidate(saved, alone, EvaluationConfig(**asdict(Acting.of(saved))))]
    config = load_config_file(run / "config.yaml")
    label: dict[str, Any] = {"model": config.logging.name or config.name}
    label["seed"] = config.training.seed
    label["trained_length"] = config.trained_length
    chosen = {which: online_evaluations(run, which) for which in models}
    return [
        Candidate(
            load_model(folder),
            {**label, "which": which, "online_evaluations": chosen[which]},
            config.evaluation,
        )
        for which, folder in models.items()
    ]


def public_candidate(options: argparse.Namespace, env: dict[str, Any]) -> Candidate:
    """Returns a model of the public RATE code, to be scored in the environment of `--env`.

    Args:
        options: The options of the command.
        env: The settings of the environment.

    Raises:
        ConfigError: If an option is missing, or the environment does not exist.
        WeightsError: If a file cannot be read, or the model does not fit the environment's spaces.
    """
    needed = ("public_config", "context_length", "env")
    if missing := [name for name in needed if getattr(options, name) is None]:
        names = ", ".join(f"--{name.replace('_', '-')}" for name in missing)
        raise ConfigError(f"--public-weights needs {names} as well.")
    spec = get_environment(options.env, env).spec
    model = load_public(
        options.public_weights,
        options.public_config,
        options.context_length,
        spec.observation_space,
        spec.action_space,
        options.return_scale,
    )
    label = {"model": options.public_weights.stem, "seed": 0, "which": "last"}
    settings = EvaluationConfig(return_to_go="decrease")  # as the public code
    return Candidate(SavedModel(model.eval(), spec), label, settings)


def prepare(candidate: Candidate, given: dict[str, Any], first_seed: int | None) -> Candidate:
    """Returns the candidate with the final settings of its evaluation.

    Args:
        candidate: The model.
        given: Settings that override those of its run.
        first_seed: Seed of the first episode; None is the first held-out seed of the run.

    Raises:
        ConfigError: If a length or a seed is out of range, or the mode of the return-to-go does not
            go with the model.
    """
    saved, label = candidate.saved, candidate.label
    settings = replace(candidate.settings, decoding=saved.decoding, **given)
    settings.check_model(saved.model.config)
    if settings.return_to_go != candidate.settings.return_to_go:  # tables and plots keep it apart
        label = {**label, "model": f"{label['model']} {settings.return_to_go}"}
    check_lengths(environment_of(saved.spec, settings.workers), settings.lengths, "--lengths")
    seed = settings.test_seed if first_seed is None else first_seed
    if not 0 <= seed <= LAST_SEED - settings.episodes:
        raise ConfigError(
            f"--seed is {seed}, and {settings.episodes} episodes have the seeds from there on; "
            "they must be in [0, 2^63)."
        )
    return replace(candidate, label=label, settings=settings, first_seed=seed)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; `arguments` replace `sys.argv[1:]`."""
    parser = make_parser("evaluate", __doc__)
    parser.add_argument("sources", type=Path, nargs="*", help="runs, or models alone")
    parser.add_argument("--public-weights", type=Path, help="a state dict of the public RATE code")
    parser.add_argument("--public-config", type=Path, help="its constructor's arguments, as JSON")
    parser.add_argument("--context-length", type=count, help="K, the steps of its segments")
    parser.add_argument(
        "--return-scale", type=float, default=1.0, help="what its returns-to-go are divided by"
    )
    parser.add_argument("--lengths", type=count, nargs="+", help="episode lengths")
    parser.add_argument("--episodes", type=count, help="episodes per length")
    parser.add_argument(
        "--return-to-go",
        choices=get_args(ReturnToGo),
        help="return-to-go after the first step (default: the run's; see evaluation.return_to_go)",
    )
    parser.add_argument("--seed", type=int, help="seed of the first episode")
    parser.add_argument("--results", type=Path, help="also add the scores to this table")
    add_device_option(parser, "cpu")
    add_engine_options(parser)
    add_environment_option(parser)
    with user_errors():
        options, env = parse_with_settings(parser, arguments)
    typed = ("lengths", "episodes", "return_to_go")
    settings = {name: getattr(options, name) for name in typed}
    given = {name: value for name, value in settings.items() if value is not None}
    console, rows = Console(), list[dict[str, Any]]()
    with user_errors():
        if options.results:
            check_scores(options.results)
        device = choose_device(options.device)
        if options.on != "local" and device.type != "cpu":
            raise ConfigError("--on ray evaluates on the CPUs of a cluster; leave out --device.")
        found = [each for source in options.sources for each in find_candidates(source)]
        found = [each.playing_in(options.env, env) for each in found]
        if options.public_weights is not None:
            found.append(public_candidate(options, env))
        if not found:
            raise ConfigError("Name a run, a folder of a model, or --public-weights.")
        candidates = [prepare(candidate, given, options.seed) for candidate in found]
        notes = [line for candidate in found for line in differences(candidate.saved.spec)]
        for sentence in dict.fromkeys(notes):
            console.print(f"note: {sentence}.", highlight=False, markup=False, soft_wrap=True)
        try:
            with engine_of(options, console), Meter() as meter:
                for row in score_all(candidates, device, meter):
                    rows.append(row)
                    if options.results:  # after each row: a later one may be interrupted
                        add_scores(options.results, rows)
        finally:
            if rows:
                show_scores(rows, console)


if __name__ == "__main__":
    main()
