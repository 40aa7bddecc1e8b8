"""Train a model on T-Maze and evaluate it by rollouts: `rate train tmaze` in a clone.

python scripts/train_tmaze.py                                   # RATE
python scripts/train_tmaze.py --model_mode RMT --seed 2
python scripts/train_tmaze.py --model_mode DT --training.max_steps 800
python scripts/train_tmaze.py --resume runs/tmaze-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["tmaze", *sys.argv[1:]])
