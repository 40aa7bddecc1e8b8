"""Train a model on memory_maze and evaluate it by rollouts.

python scripts/train_memory_maze.py                                   # RATE
python scripts/train_memory_maze.py --model_mode RMT --seed 2
python scripts/train_memory_maze.py --model_mode DT --training.max_steps 800
python scripts/train_memory_maze.py --resume runs/memory_maze-rate-1
"""

from scripts.train import main

if __name__ == "__main__":
    main("memory_maze")
