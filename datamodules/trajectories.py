"""The LightningDataModule: batches of a store, in an order that depends on their index alone.

With Lightning:
- The loader has a length, so that no batch is prefetched; see `datamodules.batch_stream`.
- The index of the next batch is the trainer's count of processed batches, which Lightning saves,
  restores, and raises after a batch's step. There is no second counter that could disagree.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningDataModule

from datamodules.batch_stream import BatchStream
from datamodules.compatibility import check_actions, check_task, privileged_state, single_frames
from datamodules.consecutive import ConsecutiveSampler
from datamodules.data_device import DataDevice, choose_data_device
from datamodules.episodes import DatasetError
from datamodules.formats import find_store
from datamodules.held_out import HeldOut
from datamodules.prefetch import Prefetcher
from datamodules.sampler import Mode, Sampling, WindowSampler
from datamodules.step_arrays import StepArrays
from rate.batch import Batch, stack_frames
from rate.envs.spec import EnvironmentSpec

# The version of how random windows are placed: a run is not resumed in another order.
_RANDOM_WINDOWS = 2


class TrajectoryDataModule(LightningDataModule):
    """Training batches from a store.

    Args:
        store_path: The store's directory.
        batch_size: The number of windows in a batch over all processes, which must divide it.
        context_length: Steps `K` of a segment.
        segments: Segments `N` of a window, which has `N * K` steps.
        seed: The seed of the order of the data.
        mode: See `WindowSampler`.
        batches_per_epoch: The length of Lightning's epochs; by default one pass over the episodes.
            It changes no batch.
        spec: The environment of the model, if the data are to be checked against it. Its
            observations may be one key of the data's, or stacked frames of it.
        min_return: Sample only episodes of at least this return.
        min_length: Sample only episodes of at least so many steps.
        sampling: See `WindowSampler`.
        with_privileged_state: Whether batches have the privileged state, which data of our
            collectors have as the part `privileged` of their observations.
        with_last_observations: Whether batches have `Batch.following`.
        data_device: Where batches are gathered; see `set_data_device`.
        held_out: The share of the episodes to hold out; see `held_out_episodes`.

    Attributes:
        held_out: These episodes, in windows of `N` segments whatever the stage of a curriculum.
        data_device_reason: Where batches are gathered and why, in one line; empty until
            `set_data_device` has chosen.

    Raises:
        DatasetError: If the store is damaged, is of another environment, or has no episodes that
            are long enough for the window and within the limits.
        ValueError: If another argument makes no sense.
    """

    def __init__(
        self,
        store_path: Path | str,
        batch_size: int,
        context_length: int,
        segments: int,
        seed: int,
        mode: Mode = "start",
        batches_per_epoch: int | None = None,
        spec: EnvironmentSpec | None = None,
        min_return: float | None = None,
        min_length: int | None = None,
        sampling: Sampling = "episodes",
        with_privileged_state: bool = False,
        with_last_observations: bool = False,
        data_device: DataDevice = "host",
        held_out: float = 0.0,
    ) -> None:
        super().__init__()
        counts = {"context_length": context_length, "segments": segments}
        for name, count in {**counts, "batches_per_epoch": batches_per_epoch}.items():
            if count is not None and count < 1:
                raise ValueError(f"{name} ({count}) must be at least 1")
        self.store = find_store(store_path, background=True)
        privileged = privileged_state(self.store) if with_privileged_state else None
        self.frame_stack = 1 if spec is None else spec.frame_stack
        if spec is not None:
            check_task(self.store, spec)
            self.store = self.store.observing(single_frames(self.store, spec))
            check_actions(self.store, spec)
        self.batch_size, self.context_length, self.segments = batch_size, context_length, segments
        self.seed, self.mode = seed, mode
        self.min_return, self.min_length, self.sampling = min_return, min_length, sampling
        self.arrays = StepArrays.of(self.store, privileged, with_last=with_last_observations)
        self.data_device, self.data_device_reason = data_device, ""
        self._prefetcher: Prefetcher | None = None
        self._stage: tuple[int, int] | None = None
        self._batches_done = 0
        window, limits = segments * context_length, (min_return, min_length)
        self.held_out = HeldOut(self.store, held_out, window, mode, *limits, self.frame_stack)
        # Made now for its checks; `setup` makes it again once the processes are known.
        self._sampler = self.make_sampler(None)
        self._processes = (0, 1)
        self.num_episodes = self._sampler.num_episodes
        self.batches_per_epoch = batches_per_epoch or max(1, self.num_episodes // batch_size)

    @property
    def batches_done(self) -> int:
        """The number of batches whose training step is over, and so the index of the next batch."""
        if self.trainer is None:
            return self._batches_done
        progress: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return int(progress.processed)

    @property
    def stage(self) -> tuple[int, int] | None:
        """The curriculum's `(segments, start_step)`, or None without one."""
        return self._stage

    def held_out_batches(
        self,
        device: torch.device,
        size: int,
        limit: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> Iterator[Batch]:
        """Yields the first held-out windows of a fixed order, on a device; see `HeldOut`."""
        self.store.check()
        source = self.held_out.batches(self.arrays, size, limit, rank, world_size)
        for index in range(len(source)):
            yield self.on_after_batch_transfer(source.batch(index).to(device), 0)

    def make_sampler(
        self, curriculum_segments: int | None, rank: int = 0, world_size: int = 1
    ) -> WindowSampler:
        """Returns the sampler of a curriculum stage; with None that of plain training.

        Calling it for every stage before training finds the errors of all stages at once.

        Raises:
            DatasetError: If the store cannot serve the stage.
            ValueError: If the processes do not divide the batch.
        """
        if self.batch_size % world_size:
            raise ValueError(
                f"batch_size {self.batch_size} counts the windows of all processes, and "
                f"{world_size} processes do not divide it; "
                f"use {max(1, self.batch_size // world_size) * world_size}"
            )
        window = (curriculum_segments or self.segments) * self.context_length
        # A stage of a curriculum samples the episodes that fit into its window whole. With random
        # windows the last stage samples the longer ones as well.
        is_last = self.mode == "random" and curriculum_segments == self.segments
        limit = None if curriculum_segments is None or is_last else window
        sampler = ConsecutiveSampler if self.mode == "consecutive" else WindowSampler
        return sampler(
            self.store,
            batch_size=self.batch_size // world_size,
            window=window,
            seed=self.seed,
            mode=self.mode,
            rank=rank,
            world_size=world_size,
            max_episode_length=limit,
            stream=curriculum_segments or 0,
            spare=self.context_length - 1 if self.segments > 1 else 1,
            min_return=self.min_return,
            min_length=self.min_length,
            sampling=self.sampling,
            frame_stack=self.frame_stack,
            arrays=self.arrays,
            held_out=self.held_out.excluded,
        )

    def set_curriculum(self, segments: int, start_step: int) -> None:
        """Trains from now on with windows of `segments` segments, of episodes that fit in them.

        It applies from the next batch on, as Lightning has not prefetched any. Checkpoints contain
        the stage. Calling it again with the same arguments, for example after a resume, changes
        nothing.

        Args:
            segments: Segments of a window in this stage.
            start_step: The number of batches (`batches_done`) at which the stage begins.

        Raises:
            DatasetError: If the store cannot serve the stage.
        """
        if segments < 1 or start_step < 0:
            raise ValueError(f"a stage of {segments} segments from batch {start_step} on")
        if self._stage != (segments, start_step):
            self._sampler = self.make_sampler(segments, *self._processes)
            self._stage = (segments, start_step)

    def next_batch(self) -> Batch:
        """Returns the next batch of this process."""
        index = self.batches_done - (self._stage[1] if self._stage else 0)
        if self._prefetcher is not None:
            return self._prefetcher.batch(self._sampler, index)
        return self._sampler.batch(index)

    def setup(self, stage: str) -> None:
        """Chooses the data device; checks that the processes divide the batch."""
        if self.trainer is None:
            return
        self.set_data_device(self.trainer.strategy.root_device)
        self._processes = (self.trainer.global_rank, self.trainer.world_size)
        self._sampler = self.make_sampler(self._stage[0] if self._stage else None, *self._processes)

    def set_data_device(self, device: torch.device) -> None:
        """Gathers batches on a device if the data fit there, else prefetches them.

        On a CPU the data stay in memory-mapped files, which the page cache keeps in memory.

        Raises:
            DatasetError: If the data must be on the device, and do not fit.
        """
        self.close()
        if device.type == "cpu" and self.data_device != "device":
            return
        choice = choose_data_device(self.arrays.nbytes, device, self.data_device)
        self.data_device_reason = choice.reason
        if not choice.on_device:
            self._prefetcher = Prefetcher(device)
        elif self.arrays.device != device:
            self.arrays = self.arrays.to(device)

    def teardown(self, stage: str) -> None:
        """Ends training; raises if the data were altered."""
        self.close()
        self.store.check()

    def on_exception(self, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Stops the prefetching thread, if there is one."""
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Stacks the single frames that were sent to the device into observations."""
        if self.frame_stack == 1 or isinstance(batch.observations, dict):
            return batch
        return replace(batch, observations=stack_frames(batch.observations, self.frame_stack))

    def train_dataloader(self) -> BatchStream:
        return BatchStream(self.next_batch, self.batches_per_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Returns the stage, and all that the order of the data depends on."""
        self.store.check(wait=False)
        # Settings of None are left out, as in checkpoints from before they existed.
        identity = {key: value for key, value in self._identity().items() if value is not None}
        return {**identity, "batches_done": self.batches_done, "stage": self._stage}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint.

        Raises:
            DatasetError: If the data, or a setting that their order depends on, are others than in
                the checkpoint. The message names it.
        """
        for key, value in self._identity().items():
            if state_dict.get(key) != value:
                raise DatasetError(
                    f"{self.store.path}: the checkpoint was made with {key} = "
                    f"{state_dict.get(key)!r}, but it is now {value!r}: the order of the data "
                    "would be another. Resume with the same data and settings, or start a new run "
                    "from the weights (--init RUN, under another --logging.name)"
                )
        self._batches_done = int(state_dict["batches_done"])
        stage = state_dict["stage"]
        self._stage = None if stage is None else (int(stage[0]), int(stage[1]))
        self._sampler = self.make_sampler(stage[0] if stage else None, *self._processes)

    def _identity(self) -> dict[str, Any]:
        """Returns all that batch `i` depends on besides `i` and the stage."""
        return {
            "data": self.store.fingerprint,
            "batch_size": self.batch_size,
            "context_length": self.context_length,
            "segments": self.segments,
            "seed": self.seed,
            "mode": self.mode,
            "random_windows": _RANDOM_WINDOWS if self.mode == "random" else None,
            "min_return": self.min_return,
            "min_length": self.min_length,
            "sampling": None if self.sampling == "episodes" else self.sampling,
            "frame_stack": None if self.frame_stack == 1 else self.frame_stack,
            "held_out": self.held_out.share if len(self.held_out.excluded) else None,
        }
