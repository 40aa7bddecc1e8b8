"""Trained models on disk: safetensors and JSON, with everything needed to act.

A model is a folder of two files. `model.safetensors` holds the weights; `model.json` holds the
architecture, the environment's spaces and target return, and how actions are decoded. Neither can
carry code. `model.json` also holds the SHA-256 of the weights and of itself, which are checked when
a model is read.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save
from torch import Tensor

from rate.allocation import AllocationLimit
from rate.architecture import make_config
from rate.config import Decoding
from rate.envs.spec import EnvironmentSpec
from rate.errors import WeightsError, parsing
from rate.files import ensure_folder, file_sha256, load_json, regular_size, write_atomic
from rate.model import SequenceModel
from rate.renamed import current_weights
from rate.trust import require_model_code

WEIGHTS, DESCRIPTION = "model.safetensors", "model.json"
CHECKPOINTS = "checkpoints"  # the folder of a run that its models are in, as `last` and `best`
FORMAT = 2
WEIGHTS_DIGEST, OWN_DIGEST = "weights_sha256", "sha256"  # in the description
_FORMER_PAIR = "before"  # in the description while the weights are being replaced
_READ = (1, FORMAT)  # 1 had no backbones: `current_names` and `make_config` translate
_FORMER = "embed_steps."  # prefix of the tokenizer's weights in format 1
_SCALES = (".std", ".unit")  # buffers that are divisors
# Bytes and tensors that a model may allocate beyond four times its weights: for buffers.
_MOST_MORE, _MOST_OTHERS = 1 << 26, 200


@dataclass(frozen=True)
class SavedModel:
    """A trained model and what it needs to act.

    Attributes:
        model: The model, in evaluation mode when loaded.
        spec: The environment it was trained for, with the target return.
        decoding: How its predictions become actions.
        extra: Any JSON values to save with it (training step, scores).
        trained_range: The least and the greatest return-to-go of its training data, if known.
    """

    model: SequenceModel
    spec: EnvironmentSpec
    decoding: Decoding = field(default_factory=Decoding)
    extra: dict[str, Any] = field(default_factory=dict)
    trained_range: tuple[float, float] | None = None


def save_model(saved: SavedModel, folder: Path | str) -> None:
    """Write a model into `folder`, where a model may be: a reader finds the one or the other.

    Raises:
        OSError: If it cannot be written, for example on a full disk. What was there before is.
        ValueError: If the description does not fit in JSON. Nothing has been written.
    """
    folder = Path(folder)
    ensure_folder(folder)
    weights = {name: t.detach().contiguous() for name, t in saved.model.state_dict().items()}
    content = save(weights)  # safetensors' `save_file` makes files that only their owner may read
    description = {
        "format": FORMAT,
        "model": asdict(saved.model.config),
        "environment": saved.spec.to_dict(),
        "decoding": asdict(saved.decoding),
        "trained_range": saved.trained_range,
        "extra": saved.extra,
        WEIGHTS_DIGEST: hashlib.sha256(content).hexdigest(),
    }
    text = sealed(description)  # fails before any writing
    if (before := _intact(folder)) is not None:
        write_atomic(folder / DESCRIPTION, sealed({**description, _FORMER_PAIR: before}))
    write_atomic(folder / WEIGHTS, content)
    write_atomic(folder / DESCRIPTION, text)


def sealed(description: dict[str, Any]) -> str:
    """Returns the text of a description with its own SHA-256.

    Raises:
        ValueError: If it has NaN or infinity, which are not valid JSON.
    """
    whole = {**description, OWN_DIGEST: _digest(description)}
    return json.dumps(whole, indent=2, allow_nan=False) + "\n"


def _digest(description: Mapping[str, Any]) -> str:
    """The SHA-256 of a description as JSON without spaces, without the digest in it."""
    rest = {key: value for key, value in description.items() if key != OWN_DIGEST}
    return hashlib.sha256(json.dumps(rest, separators=(",", ":")).encode()).hexdigest()


def _intact(folder: Path) -> dict[str, Any] | None:
    """The description of the model in a folder, if there is one whose weights have a digest."""
    with suppress(WeightsError):
        if WEIGHTS_DIGEST in (found := read_description(folder)):
            return found
    return None


def load_model(path: Path | str) -> SavedModel:
    """Read a model written by `save_model`.

    Args:
        path: The model's folder or one of its two files, a run, or a run's `checkpoints`. Of a run
            it is the `best` model, or the `last` one where none was chosen.

    Raises:
        ConfigError: If it names code that the user has not named before; see `rate.trust`.
        WeightsError: If there is none, a file is missing, damaged or of another format, or a scale
            in it is not a finite number above 0; the message names it.
    """
    models = find_models(path)
    folder = models.get("best") or next(iter(models.values()))
    description, path = read_description(folder), folder / WEIGHTS
    require_model_code(description["model"])
    size = _weights_size(path)
    with parsing(WeightsError, path, "is damaged or no safetensors file"):
        weights = load_file(path)
    with parsing(WeightsError, folder / DESCRIPTION, "describes no model"):
        config = make_config(**description["model"])
        spec = EnvironmentSpec.from_dict(description["environment"])
        decoding = Decoding(**description["decoding"])
        trained_range = _range(description.get("trained_range"))
        _finite(spec.target_return)
        with AllocationLimit(4 * size + _MOST_MORE, 4 * len(weights) + _MOST_OTHERS):
            model = SequenceModel(config, spec.observation_space, spec.action_space)
    with parsing(WeightsError, path, f"does not fit {folder / DESCRIPTION}"):
        model.load_state_dict(current_names(weights, model.state_dict()))
    _check_scales(model, path)
    extra = description.get("extra", {})
    return SavedModel(model.eval(), spec, decoding, extra, trained_range)


def _weights_size(path: Path) -> int:
    try:
        return regular_size(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is missing.") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _finite(target_return: float) -> None:
    if not math.isfinite(target_return):
        raise ValueError(f"the target return is {target_return}")


def _range(numbers: Any) -> tuple[float, float] | None:
    """Two numbers of a description, or None; a `ValueError` or `TypeError` for anything else."""
    if numbers is None:
        return None
    low, high = map(float, numbers)
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"trained_range is {numbers}")
    return low, high


def _check_scales(model: SequenceModel, path: Path) -> None:
    for name, values in model.named_buffers():
        if name.endswith(_SCALES) and not (values.isfinite() & (values > 0)).all():
            raise WeightsError(
                f"{path}: {name} has a scale that is not a finite number above 0; no training "
                "wrote that. Take another checkpoint, or train again."
            )


def current_names(weights: Mapping[str, Tensor], model: Collection[str]) -> dict[str, Tensor]:
    """Weights of a file by their current names, as `current_weights`; of format 1 as well.

    Args:
        weights: By the names in the file.
        model: The names of the weights of the model that they are for.
    """
    if any(name.startswith(_FORMER) for name in weights):
        weights = {_with_part(name): weight for name, weight in weights.items()}
    return current_weights(weights, model)


def _with_part(name: str) -> str:
    """The name of a weight of format 1, where a model was not yet tokenizer, backbone and head."""
    if name.startswith(_FORMER):
        return f"tokenizer.{name.removeprefix(_FORMER)}"
    return name if name.startswith("head.") else f"backbone.{name}"


def find_models(path: Path | str) -> dict[str, Path]:
    """The folders of the models at a path, which is as for `load_model`, by their names.

    Of a run these are `last` and `best`, as far as they are there.

    Raises:
        WeightsError: If there are none; says what the path is.
    """
    path = Path(path)
    folder = path.parent if path.name in (WEIGHTS, DESCRIPTION) else path
    if any((folder / name).is_file() for name in (WEIGHTS, DESCRIPTION)):
        return {folder.name: folder}
    for place in (folder / CHECKPOINTS, folder):
        names = [name for name in ("last", "best") if (place / name / DESCRIPTION).is_file()]
        if names:
            return {name: place / name for name in names}
    what = "there is no such file or folder"
    if path.is_dir():
        what = f"neither {DESCRIPTION} nor {CHECKPOINTS}/last is in it"
        if (path / CHECKPOINTS).is_dir():
            what = "the run has saved no model yet (what it goes on from is its training state)"
    elif path.exists():
        what = f"it is neither {WEIGHTS} nor {DESCRIPTION}"
    raise WeightsError(
        f"{path} holds no model: {what}. Give the folder of a run or of a saved model, for example "
        "runs/<run> or runs/<run>/checkpoints/best."
    )


def is_intact(folder: Path) -> bool:
    """Whether the model in a folder is as it was saved, as far as its digests say."""
    try:
        read_description(folder)
    except WeightsError:
        return False
    return True


def read_description(folder: Path) -> dict[str, Any]:
    """What `model.json` says: `model`, `environment`, `decoding` and `extra`, as plain types.

    If a process was killed while it replaced a model, this describes the weights that are there.
    Warns if the model was saved by a version without digests.

    Raises:
        WeightsError: If the file is missing, damaged or of another format, or if it or the weights
            were altered after they were saved.
    """
    path = folder / DESCRIPTION
    try:
        description = load_json(path)
    except FileNotFoundError as error:
        raise WeightsError(f"{folder} holds no model: {DESCRIPTION} is missing.") from error
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    if not isinstance(description, dict) or description.get("format") not in _READ:
        raise WeightsError(f"{path} is not of format {FORMAT}; it was made by another version.")
    if description.get(OWN_DIGEST, found := _digest(description)) != found:
        raise _altered(path, f"remove {OWN_DIGEST} from it if you did so")
    return _of_weights(description, folder)


def _of_weights(description: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The description, or the one before it, that has the digest of the weights in the folder."""
    if WEIGHTS_DIGEST not in description:
        warnings.warn(
            f"{folder} is of a version that kept no digests: whether {WEIGHTS} is as it was saved "
            "cannot be checked.",
            stacklevel=4,
        )
        return description
    _weights_size(folder / WEIGHTS)
    digest = file_sha256(folder / WEIGHTS)
    former: dict[str, Any] | None = description.pop(_FORMER_PAIR, None)
    for candidate in (description, former):
        if candidate is not None and candidate[WEIGHTS_DIGEST] == digest:
            return candidate
    raise _altered(folder / WEIGHTS, "copy both files of a model together")


def _altered(path: Path, advice: str) -> WeightsError:
    return WeightsError(
        f"{path} is damaged or was altered after it was saved: its SHA-256 is not the one in "
        f"{DESCRIPTION}. Take another checkpoint, or train again; {advice}."
    )
