"""Train a model on a data set of MuJoCo and evaluate it by rollouts.

python scripts/train_mujoco.py --model_mode DT_quick --dataset halfcheetah-medium-sac   # made here
python scripts/train_mujoco.py --model_mode RATE_quick --dataset halfcheetah-expert-sac
python scripts/train_mujoco.py --model_mode DT --dataset hopper-medium-v2               # D4RL's
python scripts/train_mujoco.py --env_id 6 --number_of_segments 3 --segment_length 20    # the same
python scripts/train_mujoco.py --model_mode DT --dataset mujoco/hopper/expert-v0        # Minari's
python scripts/train_mujoco.py --resume runs/mujoco-hopper-medium-v2-dt-1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.mujoco import minari_references
from scripts import train
from scripts.console import user_errors


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with user_errors():
        arguments = [*references(arguments), *arguments]
    train.main("mujoco", arguments)


def references(arguments: Sequence[str]) -> list[str]:
    """The reference scores of the Minari data set that a command line names, as options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--dataset", nargs="?")
    parser.add_argument("--data.root", dest="root", nargs="?", default="data")
    known, _ = parser.parse_known_args(arguments)
    if not (known.dataset or "").startswith("mujoco/"):
        return []
    found = minari_references(Path(known.root or "data"), known.dataset)
    return [f"--env.{name}={value}" for name, value in found.items()]


if __name__ == "__main__":
    main()
