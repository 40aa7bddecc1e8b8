"""The settings of recurrent networks, of recurrent cells in residual layers, and of the MLP.

As in `rate.backbones.settings`, nothing here imports PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from rate.config import ModelConfig
from rate.errors import ConfigError


@dataclass(frozen=True)
class RecurrentConfig(ModelConfig):
    """The settings of a recurrent network.

    Attributes:
        num_layers: Layers of cells, each of `d_model` units.
        interleaved: Read the tokens of a step one after another, as DLSTM, DGRU and DMamba of the
            public RATE code do, instead of all at once.
    """

    num_layers: int = 1
    interleaved: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("num_layers", 1)


@dataclass(frozen=True)
class LSTMConfig(RecurrentConfig):
    """The settings of an LSTM."""

    backbone: str = "lstm"


@dataclass(frozen=True)
class GRUConfig(RecurrentConfig):
    """The settings of a GRU."""

    backbone: str = "gru"


@dataclass(frozen=True)
class RecurrentLayersConfig(RecurrentConfig):
    """The settings of layers of a recurrent cell.

    Attributes:
        num_layers: Number of layers.
        d_ff: Inner width of the gated feed-forward layers; None is `2 * d_model`.
    """

    num_layers: int = 2
    d_ff: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.d_ff is not None:
            self.check_count("d_ff", 1)

    @property
    def ff_width(self) -> int:
        return self.d_ff if self.d_ff is not None else 2 * self.d_model


@dataclass(frozen=True)
class HeadsConfig(RecurrentLayersConfig):
    """The settings of layers of a cell with heads.

    Attributes:
        num_heads: Heads, each with a memory of its own.
    """

    num_heads: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_divides("num_heads")


@dataclass(frozen=True)
class MinGRUConfig(RecurrentLayersConfig):
    """The settings of minGRU."""

    backbone: str = "min_gru"


@dataclass(frozen=True)
class GatedDeltaNetConfig(HeadsConfig):
    """The settings of Gated DeltaNet."""

    backbone: str = "gated_deltanet"


@dataclass(frozen=True)
class MLSTMConfig(HeadsConfig):
    """The settings of mLSTM."""

    backbone: str = "mlstm"


@dataclass(frozen=True)
class SLSTMConfig(HeadsConfig):
    """The settings of sLSTM."""

    backbone: str = "slstm"


@dataclass(frozen=True)
class NBRCConfig(RecurrentLayersConfig):
    """The settings of nBRC."""

    backbone: str = "nbrc"


@dataclass(frozen=True)
class FFMConfig(RecurrentLayersConfig):
    """The settings of Fast and Forgetful Memory.

    Attributes:
        memory_size: m, traces.
        context_size: c, frequencies of each trace.
    """

    backbone: str = "ffm"
    memory_size: int = 32
    context_size: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("memory_size", 1)
        self.check_count("context_size", 1)


@dataclass(frozen=True)
class MLPConfig(RecurrentLayersConfig):
    """The settings of an MLP."""

    carries_state: ClassVar[bool] = False

    backbone: str = "mlp"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.interleaved:
            raise ConfigError(
                "model.interleaved=true is for recurrent backbones, and model.backbone=mlp sees "
                "one step; set model.interleaved=false."
            )

    def information_horizon(self, tokens_per_step: int, *, exact: bool = True) -> int | None:
        """The step itself."""
        return 1


@dataclass(frozen=True)
class Mamba2Config(HeadsConfig):
    """The settings of Mamba-2.

    Attributes:
        state_size: N, the rows of the matrix of a head.
    """

    backbone: str = "mamba2"
    state_size: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("state_size", 1)


@dataclass(frozen=True)
class SHMConfig(RecurrentLayersConfig):
    """The settings of Stable Hadamard Memory.

    Attributes:
        memory_size: m, rows and columns of the memory.
        calibrations: L, the vectors theta of which every step takes one.
    """

    backbone: str = "shm"
    memory_size: int = 24
    calibrations: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_count("memory_size", 1)
        self.check_count("calibrations", 1)
