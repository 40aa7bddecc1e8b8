"""Train a model on Action-Associative Retrieval: `rate train retrieval` in a clone.

python scripts/train_retrieval.py                                   # RATE
python scripts/train_retrieval.py --model_mode RMT --seed 2
python scripts/train_retrieval.py --model_mode DT --training.max_steps 800
python scripts/train_retrieval.py --resume runs/retrieval-rate-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["retrieval", *sys.argv[1:]])
