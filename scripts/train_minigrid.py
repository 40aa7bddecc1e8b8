"""Train a model on Minigrid-Memory and evaluate it by rollouts: `rate train minigrid` in a clone.

python scripts/train_minigrid.py                                   # RATE
python scripts/train_minigrid.py --model_mode RMT --seed 2
python scripts/train_minigrid.py --model_mode DT --training.max_steps 800
python scripts/train_minigrid.py --resume runs/minigrid-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["minigrid", *sys.argv[1:]])
