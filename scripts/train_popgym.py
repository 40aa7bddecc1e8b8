"""Train a model on a task of POPGym and evaluate it by rollouts: `rate train popgym` in a clone.

python scripts/train_popgym.py --env RepeatFirstEasy               # RATE
python scripts/train_popgym.py --env AutoencodeEasy --model_mode DT --seed 2
python scripts/train_popgym.py --env CountRecallEasy --training.max_steps 800
python scripts/train_popgym.py --resume runs/popgym-RepeatFirstEasy-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["popgym", *sys.argv[1:]])
