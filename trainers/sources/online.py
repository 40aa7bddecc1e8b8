"""The LightningDataModule of a run in an environment: acts, keeps unrolls, and makes batches.

Before every `online.updates`-th batch the model acts for one unroll in every environment. A rule
that learns from its own policy is given these unrolls. Others are given samples of the replay, of
which the newest unrolls are part, and of recorded data, if there are any.

Everything is a function of the seed, of the number of the batch and of the weights. A resumed run
collects the same episodes and samples the same batches as one that was not interrupted.
"""

from __future__ import annotations

import resource
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from lightning.pytorch import LightningDataModule

from datamodules.batch_stream import BatchStream
from datamodules.trajectories import TrajectoryDataModule
from rate.batch import Batch
from rate.errors import ConfigError
from rate.model import SequenceModel
from trainers.config import RunConfig
from trainers.environment import Environment
from trainers.environment_errors import environment_errors
from trainers.sequence import SequenceTrainer
from trainers.sources.exploration import Exploration, check_exploration, exploration_of
from trainers.sources.replay import SequenceReplay, batch_of, named_parts
from trainers.sources.rows import Array
from trainers.sources.unrolls import UnrollCollector
from trainers.working_folder import REPLAY

_EPOCH = 1000  # batches; it changes none


class OnlineData(LightningDataModule):
    """Batches of unrolls.

    Args:
        config: The run.
        environment: What is acted in.
        folder: The folder of the run, in which the replay has its files.
        data: Recorded data, a share of every batch; None without.

    Attributes:
        replay: The newest unrolls; None for a rule that learns from its own policy alone.
    """

    def __init__(
        self,
        config: RunConfig,
        environment: Environment,
        folder: Path,
        data: TrajectoryDataModule | None = None,
    ) -> None:
        super().__init__()
        self.config, self.environment, self.data = config, environment, data
        online, loss, training = config.online, config.loss, config.training
        self.num_envs = training.batch_size if loss.on_policy else online.num_envs
        self.replay: SequenceReplay | None = None
        if not loss.on_policy:
            rounds = -(-training.checkpoint_every_n_steps // online.updates) + 1
            spare = 2 * rounds * self.num_envs  # the checkpoint before the last is whole as well
            self.replay = SequenceReplay(
                folder / REPLAY,
                online.capacity,
                spare,
                training.seed,
                online.priority_exponent,
                online.importance_exponent,
            )
        self._sampler = None if data is None else data.make_sampler(None)
        self._collector: UnrollCollector | None = None
        self._loaded: dict[str, Any] | None = None
        self._newest: Batch | None = None  # the unrolls of a rule without a replay
        self._sampled: Array | None = None  # the unrolls of the last batch, with priorities

    @property
    def module(self) -> SequenceTrainer:
        """The module that is trained, whose model acts."""
        return cast("SequenceTrainer", cast("Any", self.trainer).lightning_module)

    @property
    def batches_done(self) -> int:
        """The number of batches whose training step is over, and so the index of the next batch."""
        progress: Any = cast("Any", self.trainer).fit_loop.epoch_loop.batch_progress.total
        return int(progress.processed)

    @property
    def collector(self) -> UnrollCollector:
        """The collector, which is made when it is first needed, with the model on its device."""
        if self._collector is None:
            self._collector = self._make_collector()
            if self._loaded is not None:
                with environment_errors(self.environment.spec.name):
                    self._collector.load_state_dict(self._loaded)
                self._loaded = None
        return self._collector

    def _make_collector(self) -> UnrollCollector:
        config, model = self.config, self.module.model
        online, loss = config.online, config.loss
        kind = exploration_of(online, loss, model.head)
        if reason := check_exploration(kind, model.head):
            raise ConfigError(reason)
        env = self.environment.make_vector(self.num_envs, config.data.max_length)
        return UnrollCollector(
            env,
            model,
            config.window - 1,
            Exploration(kind, online, model.head),
            online.epsilon_at,
            config.training.seed,
            overlap=getattr(loss, "burn_in", 0),
            stored_state=loss.on_policy or online.stored_state,
            with_behaviour=loss.corrects_for_lag,
        )

    def next_batch(self) -> Batch:
        """Returns the next batch, after acting if it is time to."""
        index, online = self.batches_done, self.config.online
        self._tell_priorities()
        if index % online.updates == 0:
            self._collect()
        if self.replay is None:
            if self._newest is None:
                raise RuntimeError("no unroll was collected before the first batch")
            return self._newest
        size, recorded = self.config.training.batch_size, self._recorded(index)
        if recorded is not None:
            size -= recorded.batch_size
        batch, self._sampled = self.replay.sample(index, size)
        if recorded is None:
            return batch
        return Batch.joined([batch, _like(recorded, batch, self.module.model)])

    def _collect(self) -> None:
        """Acts for an unroll in every environment, and until there are enough to begin."""
        with environment_errors(self.environment.spec.name):
            while True:
                self._newest = self.collector.collect()
                if self.replay is None:
                    return
                self.replay.add(self._newest)
                if self.replay.count >= self.config.online.begin_after:
                    return

    def _recorded(self, index: int) -> Batch | None:
        """Returns the windows of recorded data in a batch."""
        if self.data is None or self._sampler is None:
            return None
        return self.data.on_after_batch_transfer(self._sampler.batch(index), 0)

    def _tell_priorities(self) -> None:
        """Tells the replay the errors of the last batch."""
        found = self.module.priorities
        if self.replay is None or self._sampled is None or found is None:
            return
        self.replay.update(self._sampled, found[: len(self._sampled)])
        self._sampled = None

    def metrics(self) -> dict[str, float]:
        """Returns the counts of steps and episodes, and the results of the newest episodes."""
        found = self.collector.account.metrics()
        if self.collector.exploration.kind == "epsilon":
            found["epsilon"] = self.collector.epsilon
        return {f"online/{name}": value for name, value in found.items()}

    def describe(self) -> str:
        """Returns a line on what is acted in and what is kept."""
        online, steps = self.config.online, self.config.window - 1
        text = f"{self.num_envs} environments, unrolls of up to {steps} steps"
        if self.replay is not None:
            text += f"; a replay of {online.capacity:,} unrolls"
        if self.data is not None:
            text += f"; {self.data.batch_size} windows of a batch are from {self.data.store.path}"
        return f"online: {text}"

    def note(self) -> str:
        """Returns the state of acting in a few words, for a progress display."""
        account = self.collector.account
        known = account.metrics()
        words = [f"return {known['return']:.3g}"] if "return" in known else []
        words += [f"{account.episodes:,} episodes", f"{account.steps:,} env steps"]
        if self.replay is not None:
            words.append(f"replay {len(self.replay):,}")
        return "  ".join([*words, f"{_memory() / 1e9:.1f} GB"])

    def train_dataloader(self) -> BatchStream:
        return BatchStream(self.next_batch, _EPOCH)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of acting, and what belongs to the files of the replay."""
        self._tell_priorities()
        state = {"collector": self.collector.state_dict()}
        if self.replay is not None:
            return {**state, "replay": self.replay.state_dict()}
        if self._newest is not None and self.config.online.updates > 1:
            state["newest"] = named_parts(self._newest)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues from a checkpoint.

        Raises:
            TrainingError: If a file of the replay is missing or another.
        """
        self._loaded = state_dict["collector"]
        if self.replay is not None:
            self.replay.load_state_dict(state_dict["replay"])
        elif "newest" in state_dict:
            self._newest = batch_of(state_dict["newest"])

    def teardown(self, stage: str) -> None:
        self.close()

    def on_exception(self, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        """Closes the environments."""
        if self._collector is not None:
            self._collector.env.close()


def _like(recorded: Batch, batch: Batch, model: SequenceModel) -> Batch:
    """Returns windows of recorded data with the parts of unrolls: from the initial state."""
    changes: dict[str, Any] = {}
    if batch.initial is not None:
        first = model.initial_state(recorded.batch_size).detach().tensors()
        kinds = {name: tensor.dtype for name, tensor in batch.initial.items()}
        changes["initial"] = {name: first[name].cpu().to(kind) for name, kind in kinds.items()}
    if batch.importance is not None:
        changes["importance"] = torch.ones(recorded.batch_size)
    return replace(recorded, **changes)


def _memory() -> int:
    """Returns the most memory that this process has had, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
