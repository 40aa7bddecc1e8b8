"""The registries of backbones and tokenizers, and the settings of each backbone.

Both are found by name, by import path (`my_package.cells:MyCell`), or by the entry-point groups
`rate.backbones` and `rate.tokenizers` of installed packages. PyTorch is imported only when a class
is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from importlib import import_module
from typing import TYPE_CHECKING, Any

from rate.backbones import cell_settings as cells
from rate.backbones import public_settings as public
from rate.backbones import settings as ours
from rate.backbones import window_settings as windows
from rate.config import ModelConfig
from rate.registry import Registry

if TYPE_CHECKING:
    from rate.backbones.base import Backbone
    from rate.tokenizers import Tokenizer

SEGMENTS, WINDOW = "segment_transformer", "window_transformer"

BACKBONES: Registry[type[Backbone[Any]]] = Registry(
    "model.backbone",
    "rate.backbones",
    {
        SEGMENTS: "rate.backbones.segment_transformer:SegmentTransformer",
        WINDOW: "rate.backbones.window_transformer:WindowTransformer",
        "lstm": "rate.backbones.recurrent:LSTM",
        "gru": "rate.backbones.recurrent:GRU",
        "elmur": "rate.backbones.elmur:ELMUR",
        "public_rate": "rate.backbones.public_rate:PublicRATE",
        "min_gru": "rate.backbones.min_gru:MinGRU",
        "gated_deltanet": "rate.backbones.gated_deltanet:GatedDeltaNet",
        "mlstm": "rate.backbones.mlstm:MLSTM",
        "slstm": "rate.backbones.slstm:SLSTM",
        "nbrc": "rate.backbones.nbrc:NBRC",
        "ffm": "rate.backbones.ffm:FFM",
        "mlp": "rate.backbones.mlp:MLP",
        "mamba2": "rate.backbones.mamba2:Mamba2",
        "shm": "rate.backbones.shm:SHM",
        "gpt2": "rate.backbones.gpt2:GPT2",
        "lsdt": "rate.backbones.lsdt:LSDT",
    },
    lambda found: _is_a(found, "rate.backbones.base", "Backbone"),
    "a subclass of rate.backbones.base.Backbone",
)
TOKENIZERS: Registry[type[Tokenizer]] = Registry(
    "model.tokenizer",
    "rate.tokenizers",
    {
        "triples": "rate.tokenizers:TripleTokenizer",
        "pairs": "rate.tokenizers:PairTokenizer",
        "observations": "rate.tokenizers:ObservationTokenizer",
    },
    lambda found: _is_a(found, "rate.tokenizers", "Tokenizer"),
    "a subclass of rate.tokenizers.Tokenizer",
)
_SETTINGS: dict[str, type[ModelConfig]] = {
    kind.backbone: kind
    for kind in (
        ours.SegmentTransformerConfig,
        ours.WindowTransformerConfig,
        cells.LSTMConfig,
        cells.GRUConfig,
        ours.ELMURConfig,
        public.PublicRATEConfig,
        cells.MinGRUConfig,
        cells.GatedDeltaNetConfig,
        cells.MLSTMConfig,
        cells.SLSTMConfig,
        cells.NBRCConfig,
        cells.FFMConfig,
        cells.MLPConfig,
        cells.Mamba2Config,
        cells.SHMConfig,
        windows.GPT2Config,
        windows.LSDTConfig,
    )
}


def _is_a(found: Any, module: str, name: str) -> bool:
    return isinstance(found, type) and issubclass(found, getattr(import_module(module), name))


def make_config(**settings: Any) -> ModelConfig:
    """The settings of a model, as the dataclass of the backbone that they name.

    Raises:
        ConfigError: If there is no such backbone, or a setting has a value that does not work.
        TypeError: If the backbone has no such setting.
    """
    return config_class(settings)(**current(settings))


def config_class(settings: Mapping[str, Any]) -> type[ModelConfig]:
    """The dataclass of the settings of the backbone that some settings name.

    Raises:
        ConfigError: If there is no such backbone, or no such tokenizer.
    """
    tokenizer = settings.get("tokenizer", ModelConfig.tokenizer)
    if tokenizer not in TOKENIZERS.own_names():
        TOKENIZERS.get(tokenizer)
    return _settings(current(settings).get("backbone", SEGMENTS))


def _settings(backbone: str) -> type[ModelConfig]:
    return _SETTINGS[backbone] if backbone in _SETTINGS else BACKBONES.get(backbone).Config


def settings_of(backbone: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of the settings of any model those that a backbone has as well, and its name.

    Raises:
        ConfigError: If there is no such backbone.
    """
    known = {field.name for field in fields(_settings(backbone))}
    shared = {name: value for name, value in settings.items() if name in known}
    return {**shared, "backbone": backbone}


def owner_of(setting: str, config: type[ModelConfig]) -> str | None:
    """The first of our backbones that has a setting `model.NAME` which `config` has not."""
    section, _, name = setting.partition(".")
    if section != "model" or name in {field.name for field in fields(config)}:
        return None
    known = (
        backbone
        for backbone, kind in _SETTINGS.items()
        if name in {field.name for field in fields(kind)}
    )
    return next(known, None)


def current(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model as they are written today.

    Until backbones had names, `context` chose between the two there were, and a window had the
    settings of memory as well, none of which did anything there.
    """
    settings = dict(settings)
    if "context" not in settings or "backbone" in settings:
        return settings
    backbone = WINDOW if settings.pop("context") == "window" else SEGMENTS
    known, more = (fields(_settings(name)) for name in (backbone, SEGMENTS))
    of_memory = {field.name for field in more} - {field.name for field in known}
    remaining = {name: value for name, value in settings.items() if name not in of_memory}
    return {**remaining, "backbone": backbone}
