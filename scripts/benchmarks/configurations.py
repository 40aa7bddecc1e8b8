"""Configurations of the benchmark: shapes of an environment, sizes of a model, and their run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rate.architecture import SEGMENTS, WINDOW, make_config, settings_of
from rate.config import ModelConfig
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from trainers.config import (
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    RunConfig,
    TrainingConfig,
    Window,
)
from trainers.config_files import config_from_dict
from trainers.config_learning import OptimizerConfig
from trainers.preset_files import load_preset

_HAS_TENSORBOARD = find_spec("tensorboard") is not None
MODELS = ("rate", "rmt", "trxl", "dtxl", "dt_relative", "dt")


@dataclass(frozen=True)
class Published:
    """A measurement of the public code's training step: float32, data on the device.

    Attributes:
        timesteps_per_second: Environment steps per second.
        memory: Peak memory of the device in GiB; None where it was not measured.
        device: `cuda` is one H100 with 80 GB, `cpu` four shared cores.
        batch_size: Windows in its batch; None for the configuration's own.
    """

    timesteps_per_second: float
    memory: float | None
    device: str = "cuda"
    batch_size: int | None = None


@dataclass(frozen=True)
class Configuration:
    """Shapes of an environment, and the model that is trained on them.

    Attributes:
        name: On the command line.
        environment: The public code's name of the environment, which selects its encoders.
        spec: Observation and action space; its name is that of the folder of presets.
        model: Architecture of the configuration's own model.
        own: Name of that model.
        segments: N, segments of a training window.
        batch_size: Windows in a batch on a GPU.
        cpu_batch_size: Windows in a batch on a CPU.
        episode_length: Steps of an episode of the data.
        epoch: Batches in an epoch of the published data.
        optimizer: AdamW's settings.
        published: Measurements of the public code.
        num_envs: Episodes rolled out side by side on a GPU.
        cpu_num_envs: The same on a CPU.
        simulator: Registered environment whose simulator can be timed, and the length of its
            episodes.
        collected_in: Further environments and lengths in which the collector is timed, with this
            model for their spaces.
    """

    name: str
    environment: str
    spec: EnvironmentSpec
    model: ModelConfig
    own: str
    segments: int
    batch_size: int
    cpu_batch_size: int
    episode_length: int
    epoch: int
    optimizer: OptimizerConfig
    published: tuple[Published, ...] = ()
    num_envs: int = 100
    cpu_num_envs: int = 100
    simulator: tuple[str, int] | None = None
    collected_in: tuple[tuple[str, int], ...] = ()

    @property
    def window(self) -> int:
        """Steps of a training window."""
        return self.model.context_length * self.segments

    def with_model(self, name: str) -> Configuration:
        """The same shapes with another model.

        Args:
            name: One of `MODELS`, in the size that the public code derives from this one. Any other
                model is that of the environment's preset of this name, such as `gru`.

        Raises:
            ConfigError: If there is no such model.
        """
        if name == self.own:
            return self
        if name not in MODELS:
            return self._with_preset(name)
        settings = {**asdict(make_config()), **asdict(self.model), "position": "relative"}
        if settings["block"] == "gpt":
            settings["block"] = "trxl"
        tokens, cache = settings["num_memory_tokens"] or 15, settings["cache_length"]
        long = {"context_length": self.window}  # one segment as long as the window
        none: dict[str, Any] = {"num_memory_tokens": 0, "valve": "none"}
        changes: dict[str, dict[str, Any]] = {
            "rate": {"num_memory_tokens": tokens, "valve": "cross_attention"},
            "rmt": {"num_memory_tokens": tokens, "valve": "none", "cache_length": 0},
            "trxl": {**none, "cache_length": cache or 3 * self.window},
            "dtxl": {**none, **long, "cache_length": cache or 3 * self.window},
            "dt_relative": long,
            "dt": {**long, "block": "gpt", "position": "timestep"},
        }
        backbone = WINDOW if name in ("dt", "dt_relative") else SEGMENTS
        segments = 1 if name in ("dt", "dt_relative", "dtxl") else max(self.segments, 3)
        return replace(
            self,
            model=make_config(**settings_of(backbone, {**settings, **changes[name]})),
            own=name,
            segments=segments,
            published=(),  # measured with the configuration's own model
        )

    def _with_preset(self, name: str) -> Configuration:
        preset = load_preset(self.spec.name, name)
        model = make_config(**preset["model"])
        segments = preset.get("training", {}).get("segments", TrainingConfig().segments)
        length = max(self.episode_length, segments * model.context_length)
        return replace(
            self, model=model, own=name, segments=segments, episode_length=length, published=()
        )

    def published_for(self, device: str, batch_size: int) -> Published | None:
        """The measurement of the public code on this kind of device at this batch size."""
        for published in self.published:
            size = published.batch_size or self.batch_size
            if (published.device, size) == (device, batch_size):
                return published
        return None

    def run_config(
        self, store: Path, device: str, batch_size: int, settings: dict[str, Any]
    ) -> RunConfig:
        """The run whose training is measured.

        Args:
            store: The synthetic data.
            device: `cpu` or `cuda`.
            batch_size: Windows in a batch.
            settings: Settings from the command line: dotted names to values.

        Raises:
            ConfigError: If a setting does not exist or is not valid.
        """
        window: Window = "random" if self.episode_length > self.window else "start"
        config = RunConfig(
            name=self.own,
            model=self.model,
            data=DataConfig(store=str(store), window=window),
            training=TrainingConfig(
                segments=self.segments,
                batch_size=batch_size,
                max_steps=1_000_000,  # the budget ends earlier
                accelerator="gpu" if device == "cuda" else "cpu",
                precision="bf16-mixed" if device == "cuda" else "32-true",
                compile="auto" if device == "cuda" else "never",
                cuda_graphs="auto" if device == "cuda" else "never",
                checkpoint_every_n_steps=1_000_000,
            ),
            optimizer=self.optimizer,
            evaluation=EvaluationConfig(every_n_steps=0),
            logging=LoggingConfig(progress=False, tensorboard=_HAS_TENSORBOARD),
        )
        return _with_settings(config, settings)


def _with_settings(config: RunConfig, settings: dict[str, Any]) -> RunConfig:
    """Returns a run with changed settings, by their dotted names."""
    values = asdict(config)
    for name, value in settings.items():
        *path, last = name.split(".")
        part: Any = values
        for key in path:
            part = part.get(key) if isinstance(part, dict) else None
        if not isinstance(part, dict):
            raise ConfigError(f"--set has {name}; write it as training.precision or model.block.")
        part[last] = value
    return config_from_dict(values)
