"""Train a model on minigrid and evaluate it by rollouts.

python scripts/train_minigrid.py                                   # RATE
python scripts/train_minigrid.py --model_mode RMT --seed 2
python scripts/train_minigrid.py --model_mode DT --training.max_steps 800
python scripts/train_minigrid.py --resume runs/minigrid-rate-1
"""

from scripts.train import main

if __name__ == "__main__":
    main("minigrid")
