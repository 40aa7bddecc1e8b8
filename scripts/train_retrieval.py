"""Train a model on retrieval and evaluate it by rollouts.

python scripts/train_retrieval.py                                   # RATE
python scripts/train_retrieval.py --model_mode RMT --seed 2
python scripts/train_retrieval.py --model_mode DT --training.max_steps 800
python scripts/train_retrieval.py --resume runs/retrieval-rate-1
"""

from scripts.train import main

if __name__ == "__main__":
    main("retrieval")
