"""Train a model on vizdoom and evaluate it by rollouts.

python scripts/train_vizdoom.py                                   # RATE
python scripts/train_vizdoom.py --model_mode RMT --seed 2
python scripts/train_vizdoom.py --model_mode DT --training.max_steps 800
python scripts/train_vizdoom.py --resume runs/vizdoom-rate-1
"""

from scripts.train import main

if __name__ == "__main__":
    main("vizdoom")
