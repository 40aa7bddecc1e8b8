"""Settings of the training loop and of the devices it runs on, validated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rate.errors import ConfigError
from trainers.checks import at_least, choice
from trainers.config_learning import BEHAVIOUR_CLONING

DataDevice = Literal["auto", "host", "device"]
_Ddp = Literal["ddp", "ddp_find_unused_parameters_false", "ddp_find_unused_parameters_true"]
Strategy = Literal["auto", "single_device", _Ddp, "fsdp2"]
FSDP2 = "fsdp2"
WhenMissing = Literal["refuse", "fresh"]
When = Literal["never", "auto", "always"]  # YAML takes "on" and "off" for booleans


@dataclass(frozen=True)
class TrainingConfig:
    """The optimisation loop and the hardware it runs on.

    Attributes:
        objective: The learning rule: `behaviour_cloning`; `cql`, `iql`, `ddqn`, `r2d2`,
            `sac_discrete` or `td3_bc`, which learn values from rewards; `a2c` or `vtrace`, online
            alone; or the import path of your own, `module:Attribute`. Its settings are the section
            `loss`.
        segments: N, segments of K steps in a training window (`--sections`, `--max_n_final`).
        bptt_segments: Segments the gradient flows back through; None is all of them. 0 is the
            published detached recipe: memory is cut at every border and the optimiser steps once
            per segment.
        batch_size: Windows in a batch, over all devices.
        max_steps: Optimiser steps.
        seed: Seeds weights, batches, dropout and noise.
        accelerator: `cpu`, `gpu` or `auto`, as Lightning has it.
        devices: Number of devices; those of each node, where there are several.
        nodes: Number of machines, on each of which a launcher (`torchrun`, `srun`) starts us.
        strategy: How several devices share the work. `ddp`: each has the whole model. `fsdp2`: each
            has a part of the backbone's parameters, gradients and moments. `auto` takes `ddp`.
        precision: Lightning's precision, for example `bf16-mixed`.
        threads: CPU threads of a process; None chooses.
        log_every_n_steps: Steps between two rows of metrics.
        checkpoint_every_n_steps: Steps between two checkpoints of the training state.
        checkpoint_segments: Compute each segment's activations again when its gradient is due, and
            keep nothing but its state: memory for long windows, at the price of a second forward.
        data_device: Where batches are gathered: from data that are on the `device`, or from the
            `host`'s files while the device computes. `auto` looks whether they fit.
        compile: Compile the model (`torch.compile`). `auto` does on a GPU, and does without where
            that fails.
        cuda_graphs: Record an optimiser step once and launch it as a whole. `auto` does on a GPU,
            unless another setting is in the way (see `graph_obstacle`), and does without where that
            fails or comes to something else than a plain step.
        init: Weights that a new run begins with (`--init`): the folder of a run or of a saved
            model, or a file of weights. Scales of observations and actions come with them; the
            optimiser, and the count of steps, begin anew.
        init_missing: What to do where those weights are not all that the model has, or have other
            shapes: `refuse`, or leave `fresh` what does not fit (`--init_missing`).
    """

    objective: str = BEHAVIOUR_CLONING
    segments: int = 3
    bptt_segments: int | None = None
    batch_size: int = 32
    max_steps: int = 500
    seed: int = 1
    accelerator: str = "cpu"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    threads: int | None = None
    log_every_n_steps: int = 10
    checkpoint_every_n_steps: int = 100
    checkpoint_segments: bool = False
    data_device: DataDevice = "auto"
    compile: When = "auto"
    cuda_graphs: When = "auto"
    init: str | None = None
    init_missing: WhenMissing = "refuse"

    def __post_init__(self) -> None:
        choice("training.strategy", self.strategy, Strategy)
        choice("training.data_device", self.data_device, DataDevice)
        choice("training.compile", self.compile, When)
        choice("training.cuda_graphs", self.cuda_graphs, When)
        choice("training.init_missing", self.init_missing, WhenMissing)
        names = ("segments", "batch_size", "max_steps", "devices", "nodes")
        for name in (*names, "log_every_n_steps", "checkpoint_every_n_steps"):
            at_least(f"training.{name}", getattr(self, name), 1)
        if self.bptt_segments is not None:
            at_least("training.bptt_segments", self.bptt_segments, 0)
        if self.threads is not None:
            at_least("training.threads", self.threads, 1)
        if self.batch_size % (self.devices * self.nodes):
            nodes = f" x training.nodes={self.nodes}" if self.nodes > 1 else ""
            raise ConfigError(
                f"training.batch_size={self.batch_size} is over all devices and must be a "
                f"multiple of training.devices={self.devices}{nodes}."
            )
        if self.cuda_graphs == "always" and self.graph_obstacle:
            raise ConfigError(
                f"training.cuda_graphs=always does not go with {self.graph_obstacle}. Set "
                "training.cuda_graphs=auto, or change that."
            )
        if self.strategy == FSDP2 and (obstacle := self._sharding_obstacle):
            raise ConfigError(
                f"training.strategy=fsdp2 shards the model, which does not go with {obstacle}. "
                "Change that, or use training.strategy=ddp."
            )

    @property
    def _sharding_obstacle(self) -> str | None:
        """What prevents sharding; None if nothing does."""
        found = {
            "training.bptt_segments=0, the published recipe": self.bptt_segments == 0,
            "training.compile=always": self.compile == "always",
            "training.checkpoint_segments=true": self.checkpoint_segments,
            f"training.precision={self.precision}, whose gradients are rescaled": (
                self.precision.startswith("16")
            ),
        }
        return next((what for what, is_there in found.items() if is_there), None)

    @property
    def is_sharded(self) -> bool:
        """Whether each process keeps a part of the model."""
        return self.strategy == FSDP2

    @property
    def graph_obstacle(self) -> str | None:
        """The setting that prevents the recording of a step as a CUDA graph; None if none does."""
        return next(
            (
                f"training.{setting}"
                for setting, in_the_way in {
                    "accelerator=cpu": self.accelerator == "cpu",
                    f"devices={self.devices}": self.devices > 1,  # they wait for each other
                    f"nodes={self.nodes}": self.nodes > 1,
                    f"strategy={FSDP2}": self.strategy == FSDP2,
                    "bptt_segments=0": self.bptt_segments == 0,  # several steps in a batch
                    "checkpoint_segments=true": self.checkpoint_segments,  # reads the generator
                    f"precision={self.precision}": self.precision.startswith("16"),  # rescaled
                }.items()
                if in_the_way
            ),
            None,
        )
