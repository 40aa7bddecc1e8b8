"""Trained models from elsewhere: the Hugging Face hub, a folder in its place, or this package.

Only `model.safetensors` and `model.json` are fetched. Neither can carry code, and both are checked
against their digests when they are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from rate.advice import install
from rate.config import ReturnToGo
from rate.errors import ConfigError, WeightsError
from rate.messages import did_you_mean
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, find_models

PRETRAINED = Path(__file__).parent / "pretrained"  # a folder for each model of the package
EXTRA = "hub"  # of this project, which installs huggingface_hub
CARD = "README.md"
_ACTING = "acting"  # in the `extra` of a model
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


@dataclass(frozen=True)
class Acting:
    """How a published model is to act, beside its decoding and its target return.

    Attributes:
        return_to_go: The return-to-go after the first step; see `rate.policy.Policy`.
        recompute_window: See `rate.backbones.window_transformer.WindowTransformer.make_decoder`.
    """

    return_to_go: ReturnToGo
    recompute_window: bool = True

    @classmethod
    def of(cls, saved: SavedModel) -> Acting:
        """Returns what a saved model says; the usual settings if it says nothing.

        Raises:
            WeightsError: If it says what is unknown.
        """
        try:
            usual: ReturnToGo = "decrease" if saved.trained_range is None else "clamp"
            acting = cls(**{"return_to_go": usual, **saved.extra.get(_ACTING, {})})
        except (AttributeError, TypeError) as error:
            raise WeightsError(
                f"{_ACTING} in {DESCRIPTION} has unknown settings: {error}"
            ) from error
        if acting.return_to_go not in get_args(ReturnToGo):
            raise WeightsError(f"{_ACTING} in {DESCRIPTION} has return_to_go={acting.return_to_go}")
        return acting

    def extra(self) -> dict[str, object]:
        """Returns the entry of `SavedModel.extra` that `of` reads."""
        return {_ACTING: asdict(self)}


def pretrained_names() -> list[str]:
    """Returns the names of the models in this package."""
    return sorted(path.parent.name for path in PRETRAINED.glob(f"*/{DESCRIPTION}"))


def check_name(name: str) -> None:
    """Check the name of a model on a hub.

    Raises:
        ConfigError: If it is not OWNER/NAME.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name!r} is no name of a model on a hub, which is OWNER/NAME, of letters, digits, "
            "dots, dashes and underscores."
        )


def fetch_model(
    source: Path | str, *, hub: Path | str | None = None, revision: str | None = None
) -> Path:
    """Returns the folder of a model, which is downloaded if it is on the Hugging Face hub.

    Args:
        source: The folder of a run or of a model; the name of a model in this package; or
            OWNER/NAME on the hub.
        hub: A folder in place of the Hugging Face hub, with a folder OWNER/NAME for each model.
        revision: A branch, tag or commit on the hub; None is the newest.

    Raises:
        ConfigError: If there is no such model, or huggingface_hub is not installed.
        WeightsError: If what is there holds no model.
    """
    name, known = str(source), pretrained_names()
    if hub is not None:
        check_name(name)
        return _last(Path(hub) / name)
    if isinstance(source, Path) or Path(name).exists():
        return _last(Path(source))
    if name in known:
        return PRETRAINED / name
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{name} is no folder, no model of this package ({', '.join(known)}), and no OWNER/NAME"
            f" on the Hugging Face hub.{did_you_mean(name, known)}"
        )
    return _download(name, revision)


def _last(path: Path) -> Path:
    """Returns the folder of the last weights at a path, as `Run.policy` takes."""
    return next(iter(find_models(path).values()))


def _download(name: str, revision: str | None) -> Path:
    with _hub_errors(f"{name} could not be fetched from"):
        from huggingface_hub import snapshot_download

        folder = snapshot_download(name, revision=revision, allow_patterns=[WEIGHTS, DESCRIPTION])
    return _last(Path(folder))


def upload(folder: Path, name: str, *, private: bool, message: str) -> str:
    """Uploads the model and the card in a folder to the Hugging Face hub; returns their address.

    Raises:
        ConfigError: If huggingface_hub is not installed, or the hub refuses it.
    """
    with _hub_errors(f"{name} could not be written (`hf auth login` stores a token) to"):
        from huggingface_hub import HfApi

        api = HfApi()
        address = str(api.create_repo(name, private=private, exist_ok=True))
        api.upload_folder(
            repo_id=name,
            folder_path=folder,
            allow_patterns=[WEIGHTS, DESCRIPTION, CARD],
            commit_message=message,
        )
    return address


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Context of using the client of the hub, which is imported in it.

    Raises:
        ConfigError: If the client is missing, or for any error of the hub or the network.
    """
    try:
        from huggingface_hub.errors import HfHubHTTPError
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"The Hugging Face hub needs {error.name}, which is not installed. Install it with: "
            f"{install(EXTRA)}"
        ) from error
    # Its base class is the error of the HTTP library, which is another one in each major version.
    bases = (base for base in HfHubHTTPError.__bases__ if issubclass(base, Exception))
    known: tuple[type[Exception], ...] = (*bases, OSError, ValueError)
    try:
        yield
    except known as error:
        raise ConfigError(f"{what} the Hugging Face hub: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
