"""Data sets of Hugging Face's `datasets` that were saved to the disk (`save_to_disk`).

`state.json` names the Arrow files. The columns are those of the Decision Transformer
(`observations`, `actions`, `rewards`, `dones`), with a row for each episode or each step. A folder
of several splits has `dataset_dict.json`, and `train` is read. The package is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.tables import open_table
from datamodules.source import Source

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_hf_dataset(path: Path) -> bool:
    """Whether a path is a folder that `save_to_disk` made."""
    return (path / _SPLITS).is_file() or (
        (path / _STATE).is_file() and (path / "dataset_info.json").is_file()
    )


def open_hf_dataset(path: Path, options: Options | None = None) -> Source:
    """A folder as a source.

    Raises:
        DatasetError: If it is damaged, files are missing, or its columns are not those of
            trajectories.
    """
    folder, notes = path, []
    if (path / _SPLITS).is_file():
        names = [_name(name, path / _SPLITS) for name in _read(path / _SPLITS).get("splits", [])]
        if not names:
            raise DatasetError(f"{path / _SPLITS}: there are no splits")
        chosen = "train" if "train" in names else names[0]
        folder = path / chosen
        others = [name for name in names if name != chosen]
        if others:
            notes.append(f"only the split {chosen} is read; {', '.join(others)} are left out")
    state = _read(folder / _STATE)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DatasetError(
            f"{folder}: the rows were chosen or shuffled without being written anew; load it, "
            "call flatten_indices(), and save it again"
        )
    try:
        files = [folder / _name(item["filename"], folder / _STATE) for item in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{folder / _STATE}: damaged ({error!r}); get it again") from error
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DatasetError(
            f"{folder}: there is no {', '.join(missing) or 'data file'}, so that the data are not "
            "whole; get the folder again"
        )
    return open_table("huggingface", path, tuple(files), options, tuple(notes), (folder / _STATE,))


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: missing or damaged ({error}); get it again") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{file}: not the description of a data set")
    return found


def _name(name: Any, file: Path) -> str:
    """The name of a file or folder beside another.

    Raises:
        DatasetError: If it leads elsewhere.
    """
    if not isinstance(name, str) or name in ("", ".", "..") or "/" in name or "\\" in name:
        raise DatasetError(f"{file} names {name!r}, which is not in its folder; it is not read")
    return name
