"""Train a model on an Atari game and evaluate it by rollouts.

python scripts/train_atari.py                                # a small RATE, on a scripted Pong
python scripts/train_atari.py --model_mode DT_quick --seed 2
python scripts/convert.py data/dqn/Breakout/1 data/breakout          # DQN-replay, or RL Unplugged
python scripts/train_atari.py --game Breakout --data.store data/breakout --training.accelerator gpu
python scripts/train_atari.py --game Pong --num_mem_tokens 15 --mem_len 360 --n_head_ca 1 \
    --mrv_act leaky_relu --skip_dec_ffn --seed 123
python scripts/train_atari.py --resume runs/atari-pong-dt_quick-1
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod

from rich.console import Console

from datamodules.formats import find_store
from datamodules.store_files import store_bytes
from rate.envs.spec import EnvironmentSpec
from scripts import train
from scripts.console import user_errors
from trainers.cli import parse
from trainers.config import RunConfig
from trainers.registry import get_environment


def main(arguments: Sequence[str] | None = None) -> None:
    """The command."""
    arguments = sys.argv[1:] if arguments is None else arguments
    with user_errors():
        Console().print(predict(parse("atari", arguments).config), highlight=False, soft_wrap=True)
    train.main("atari", arguments)


def predict(config: RunConfig) -> str:
    """What a run's data will take of memory, before any of it is loaded.

    Raises:
        DatasetError: If the store that the run names cannot be read.
    """
    data = config.data
    if data.store is not None:
        store = find_store(data.store)
        episodes, steps, words = store.num_episodes, store.num_steps, "data"
    else:
        episodes, steps = data.num_episodes, data.num_episodes * config.max_length
        player = "a scripted player" if config.env["game"].lower() == "pong" else "chance"
        words = f"data, to be played by {player} if they are not there, of at most"
    spec = get_environment(config.environment, config.env).spec
    rows = config.training.batch_size
    single, stacked = _frames(spec, config)
    size = _size(store_bytes(spec, episodes, steps))
    return (
        f"{words} {episodes:,} episodes, {steps:,} steps: {size} on disk, mapped into memory, "
        "where the system keeps as much of it as there is room for. "
        f"A batch of {rows} windows: {_size(rows * single)} in memory and on its way to the "
        f"device, {_size(rows * stacked)} of frames there, once stacked."
    )


def _frames(spec: EnvironmentSpec, config: RunConfig) -> tuple[int, int]:
    """Bytes of a window's frames one by one, and in stacks."""
    frame, count = prod(spec.observation_space.shape or ()), config.data.frame_stack
    return frame * (config.window + count - 1), frame * count * config.window


def _size(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


if __name__ == "__main__":
    main()
