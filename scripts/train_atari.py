"""Train a model on an Atari game and evaluate it by rollouts: `rate train atari` in a clone.

python scripts/train_atari.py                                # a small RATE, on a scripted Pong
python scripts/train_atari.py --model_mode DT_quick --seed 2
python scripts/convert.py data/dqn/Breakout/1 data/breakout          # DQN-replay, or RL Unplugged
python scripts/train_atari.py --game Breakout --data.store data/breakout --training.accelerator gpu
python scripts/train_atari.py --game Pong --num_mem_tokens 15 --mem_len 360 --n_head_ca 1 \
    --mrv_act leaky_relu --skip_dec_ffn --seed 123
python scripts/train_atari.py --resume runs/atari-pong-dt_quick-1
"""

import sys

from trainers.commands.main import run

if __name__ == "__main__":
    run("train", ["atari", *sys.argv[1:]])
