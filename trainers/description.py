"""The description of a run that is printed before its first step.

PyTorch is imported lazily, so that the first line is printed without delay.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from datamodules.store_files import store_bytes
from rate.advice import command
from trainers.config import Resume, RunConfig
from trainers.data_sets import open_data
from trainers.defaults import has_gpu_driver
from trainers.horizon import describe_horizon
from trainers.registry import get_environment

if TYPE_CHECKING:
    import torch
    from lightning.pytorch import Trainer

    from datamodules.trajectories import TrajectoryDataModule
    from trainers.fitting import Batches
    from trainers.losses import LossModule


def describe_run(config: RunConfig, resume: Resume) -> str:
    """Returns a line with the model, the batches and the run folder; nothing is loaded."""
    training, model = config.training, config.model
    windows = f"{training.batch_size} windows of {training.segments} x {model.context_length} steps"
    folder = Path(config.logging.output) / config.run_name
    where = f"Continuing {resume}" if isinstance(resume, Path) else f"The run is {folder}"
    return (
        f"{config.environment}, {config.name}, seed {training.seed}: {training.max_steps:,} "
        f"updates on {windows}. {where}"
    )


def describe_frames(config: RunConfig) -> str:
    """Returns the memory that stacked image data need, estimated before they are loaded.

    Raises:
        DatasetError: If the store of the run cannot be read.
    """
    data = config.data
    if data.store is not None:
        store = open_data(data).store
        episodes, steps, words = store.num_episodes, store.num_steps, "data"
    else:
        episodes, steps = data.num_episodes, data.num_episodes * config.max_length
        words = "data, to be made if they are not there, of at most"
    spec = get_environment(config.environment, config.env).spec
    rows, frame = config.training.batch_size, prod(spec.observation_space.shape or ())
    single = frame * (config.window + data.frame_stack - 1)
    size = _size(store_bytes(spec, episodes, steps))
    return (
        f"{words} {episodes:,} episodes, {steps:,} steps: {size} on disk, mapped into memory, "
        "where the system keeps as much of it as there is room for. "
        f"A batch of {rows} windows: {_size(rows * single)} in memory and on its way to the "
        f"device, {_size(rows * frame * data.frame_stack * config.window)} of frames there, once "
        "stacked."
    )


def _size(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e9 else f"{number / 1e6:.1f} MB"


def describe_training(trainer: Trainer, module: LossModule, datamodule: Batches) -> list[str]:
    """Returns lines with the model, its horizons, the data and the device of a run."""
    from trainers.sources.online import OnlineData

    device = trainer.strategy.root_device
    parameters = sum(p.numel() for p in module.parameters() if p.requires_grad)
    recorded = None if isinstance(datamodule, OnlineData) else datamodule
    lines = [
        f"model: {parameters:,} parameters, precision {trainer.precision}",
        describe_horizon(module.config, module.model.tokenizer.tokens.count),
        datamodule.describe() if isinstance(datamodule, OnlineData) else _describe_data(datamodule),
        f"device: {_describe_device(device, trainer.world_size)}",
        "" if recorded is None else recorded.data_device_reason,
        unused_gpu(device),
    ]
    return [line for line in lines if line]


def _describe_data(datamodule: TrajectoryDataModule) -> str:
    store = datamodule.store
    data = f"{store.num_episodes:,} episodes, {store.num_steps:,} steps in {store.path}"
    if datamodule.num_episodes < store.num_episodes:
        data += f"; windows are cut from {datamodule.num_episodes:,} of the episodes"
    held_out = datamodule.held_out
    if len(held_out.excluded):
        data += f"; {len(held_out.excluded):,} are held out"
    elif held_out.share:
        data += f"; none is held out: data.held_out={held_out.share:g} of them is not one"
    return f"data: {data}"


def _describe_device(device: torch.device, processes: int) -> str:
    import torch

    threads = torch.get_num_threads()
    words = [str(device), f"{threads} thread{'s' if threads > 1 else ''}"]
    if device.type == "cuda":
        words[0] += f" ({torch.cuda.get_device_name(device)})"
    if processes > 1:
        words.append(f"{processes} processes")
    return ", ".join(words)


def unused_gpu(device: torch.device) -> str:
    """Returns a note if training runs on the CPU although there is a GPU; else an empty text."""
    import torch

    if device.type != "cpu":
        return ""
    if torch.cuda.is_available():
        return (
            f"note: a GPU is here ({torch.cuda.get_device_name(0)}) and is not used; "
            "--training.accelerator gpu trains on it."
        )
    if torch.backends.mps.is_available():
        return "note: Apple's GPU is not used; --training.accelerator mps trains on it."
    if has_gpu_driver():
        return (
            f"note: a GPU seems to be here, but PyTorch {torch.__version__} finds none; "
            f"`{command('doctor', 'trainer')}` tells more."
        )
    return ""
