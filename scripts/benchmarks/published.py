"""The published configurations at full size.

The sizes are those of the public code's scripts, which differ from the paper's table in places. On
a CPU batches are smaller, because a full one would take minutes; the output says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete

from rate.backbones.settings import SegmentTransformerConfig, WindowTransformerConfig
from rate.envs.spec import EnvironmentSpec
from rate.envs.tmaze import TMAZE_SPEC
from scripts.benchmarks.configurations import Configuration, Published
from trainers.config_learning import OptimizerConfig

# Decision Transformer (MuJoCo, Atari) and RATE, as published.
_DT = WindowTransformerConfig(
    block="gpt",
    position="timestep",
    d_model=128,
    dropout=0.1,
    attention_dropout=0.1,
)
_RATE = SegmentTransformerConfig(
    block="trxl", num_memory_tokens=15, valve="cross_attention", valve_activation="relu"
)


def _pixels(*shape: int) -> gymnasium.Space[Any]:
    return Box(0, 255, shape, np.uint8)


_TMAZE = Configuration(
    name="tmaze",
    environment="tmaze",
    spec=TMAZE_SPEC,
    model=replace(
        _RATE,
        context_length=50,
        num_layers=10,
        num_heads=4,
        d_head=32,
        d_ff=32,
        skip_ffn=True,
        dropout=0.2,
    ),
    own="rate",
    segments=3,
    batch_size=128,
    cpu_batch_size=32,
    episode_length=150,
    epoch=37,
    optimizer=OptimizerConfig(3e-4, 0.9, 0.999, 0.01, 1000, "linear", 0.01, 1.0),
    published=(Published(12_236, 3.0), Published(308, None, "cpu", 32)),
    cpu_num_envs=10,
    simulator=("tmaze", 9600),
    collected_in=(("memory_length", 30), ("visual_match", 60)),
)
_VIZDOOM = Configuration(
    name="vizdoom",
    environment="vizdoom",
    spec=EnvironmentSpec("vizdoom", _pixels(3, 64, 112), Discrete(5), 1.0),
    model=replace(
        _RATE,
        context_length=50,
        num_layers=6,
        num_heads=8,
        d_head=64,
        d_ff=128,
        dropout=0.2,
        attention_dropout=0.05,
        cache_length=100,
    ),
    own="rate",
    segments=3,
    batch_size=128,
    cpu_batch_size=2,
    episode_length=150,
    epoch=40,
    optimizer=OptimizerConfig(3e-4, 0.9, 0.999, 0.001, 30_000, "linear", 0.01, 5.0),
    published=(Published(7_334, 13.8),),
    cpu_num_envs=4,
    simulator=("vizdoom", 150),
)
_MEMORY_MAZE = Configuration(
    name="memory_maze",
    environment="memory_maze",
    spec=EnvironmentSpec("memory_maze", _pixels(3, 64, 64), Discrete(6), 1.0),
    model=replace(
        _RATE,
        context_length=30,
        num_layers=6,
        num_heads=8,
        d_head=64,
        d_ff=64,
        skip_ffn=True,
        dropout=0.5,
        attention_dropout=0.2,
        cache_length=360,
        valve_heads=4,
    ),
    own="rate",
    segments=3,
    batch_size=64,
    cpu_batch_size=2,
    episode_length=90,
    epoch=100,
    optimizer=OptimizerConfig(3e-4, 0.9, 0.95, 0.1, 1000, "cosine", 0.1, 1.0),
    published=(Published(8_499, 4.7),),
    cpu_num_envs=4,
    simulator=("memory_maze", 1000),
)
_MINIGRID = Configuration(
    name="minigrid",
    environment="minigrid_memory",
    spec=EnvironmentSpec("minigrid", _pixels(3, 84, 84), Discrete(4), 1.0),
    model=replace(
        _RATE,
        context_length=30,
        d_model=128,
        num_layers=6,
        num_heads=12,
        d_head=128,
        d_ff=64,
        skip_ffn=True,
        dropout=0.2,
        attention_dropout=0.1,
        num_memory_tokens=20,
        cache_length=250,
        valve="none",
    ),
    own="rate",
    segments=3,
    batch_size=128,
    cpu_batch_size=2,
    episode_length=90,
    epoch=40,
    optimizer=OptimizerConfig(3e-4, 0.9, 0.999, 0.01, 15_000, "linear", 0.01, 5.0),
    published=(Published(3_943, 20.3),),
    cpu_num_envs=4,
    simulator=("minigrid", 41),
)
_MUJOCO = Configuration(
    name="mujoco",
    environment="halfcheetah",
    spec=EnvironmentSpec("mujoco", Box(-np.inf, np.inf, (17,)), Box(-1, 1, (6,)), 1.0),
    model=replace(_DT, context_length=20, num_layers=3, num_heads=1),
    own="dt",
    segments=1,
    batch_size=64,
    cpu_batch_size=64,
    episode_length=1000,
    epoch=1000,
    optimizer=OptimizerConfig(1e-4, 0.9, 0.999, 1e-4, 10_000, "constant", 1.0, 0.25),
)
_ATARI = Configuration(
    name="atari",
    environment="atari",
    spec=EnvironmentSpec("atari", _pixels(4, 84, 84), Discrete(4), 1.0, frame_stack=4),
    model=replace(_DT, context_length=30, num_layers=6, num_heads=8),
    own="dt",
    segments=1,
    batch_size=128,
    cpu_batch_size=2,
    episode_length=500,
    epoch=130,
    optimizer=OptimizerConfig(6e-4, 0.9, 0.95, 0.1, 100, "cosine", 0.1, 1.0),
    cpu_num_envs=4,
)
CONFIGURATIONS = {
    configuration.name: configuration
    for configuration in (
        *(_TMAZE, _VIZDOOM, _MEMORY_MAZE, _MINIGRID, _MUJOCO),
        replace(_MUJOCO, name="mujoco_4096", batch_size=4096, cpu_batch_size=128),
        _ATARI,
    )
}
