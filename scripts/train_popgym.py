"""Train a model on a task of POPGym and evaluate it by rollouts.

python scripts/train_popgym.py --env RepeatFirstEasy               # RATE
python scripts/train_popgym.py --env AutoencodeEasy --model_mode DT --seed 2
python scripts/train_popgym.py --env CountRecallEasy --training.max_steps 800
python scripts/train_popgym.py --resume runs/popgym-RepeatFirstEasy-rate-1
"""

from scripts.train import main

if __name__ == "__main__":
    main("popgym")
