"""Train a model on ViZDoom-Two-Colors and evaluate it by rollouts: `rate train vizdoom` in a clone.

python scripts/train_vizdoom.py                                   # RATE
python scripts/train_vizdoom.py --model_mode RMT --seed 2
python scripts/train_vizdoom.py --model_mode DT --training.max_steps 800
python scripts/train_vizdoom.py --resume runs/vizdoom-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["vizdoom", *sys.argv[1:]])
