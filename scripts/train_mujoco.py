"""Train a model on a data set of MuJoCo: `rate train mujoco` in a clone.

python scripts/train_mujoco.py                                # a small RATE, on data made here
python scripts/train_mujoco.py --model_mode DT_quick --dataset hopper-expert-sac        # likewise
python scripts/train_mujoco.py --model_mode DT --dataset hopper-medium-v2               # D4RL's
python scripts/train_mujoco.py --env_id 6 --number_of_segments 3 --segment_length 20    # the same
python scripts/train_mujoco.py --model_mode DT --dataset mujoco/hopper/expert-v0        # Minari's
python scripts/train_mujoco.py --model_mode DT --data.store data/hopper         # converted
python scripts/train_mujoco.py --resume runs/mujoco-hopper-medium-v2-dt-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["mujoco", *sys.argv[1:]])
