"""Train a model on a data set of MuJoCo and evaluate it by rollouts.

python scripts/train_mujoco.py                                # a small RATE, on data made here
python scripts/train_mujoco.py --model_mode DT_quick --dataset hopper-expert-sac        # likewise
python scripts/train_mujoco.py --model_mode DT --dataset hopper-medium-v2               # D4RL's
python scripts/train_mujoco.py --env_id 6 --number_of_segments 3 --segment_length 20    # the same
python scripts/train_mujoco.py --model_mode DT --dataset mujoco/hopper/expert-v0        # Minari's
python scripts/train_mujoco.py --model_mode DT --data.store data/hopper         # converted
python scripts/train_mujoco.py --resume runs/mujoco-hopper-medium-v2-dt-1
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from datamodules.mujoco import has_published_target
from scripts import train


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    train.main("mujoco", [*settings_of_data(arguments), *arguments])


def settings_of_data(arguments: Sequence[str]) -> list[str]:
    """What the data that a command line names say of what to ask for, as options."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--data.store", dest="store", nargs="?")
    known, _ = parser.parse_known_args(arguments)
    if known.store and not has_published_target(Path(known.store)):
        return ["--evaluation.target_from_data=true"]
    return []


if __name__ == "__main__":
    main()
