"""Train a model on Memory Maze and evaluate it by rollouts: `rate train memory_maze` in a clone.

python scripts/train_memory_maze.py                                   # RATE
python scripts/train_memory_maze.py --model_mode RMT --seed 2
python scripts/train_memory_maze.py --model_mode DT --training.max_steps 800
python scripts/train_memory_maze.py --resume runs/memory_maze-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["memory_maze", *sys.argv[1:]])
