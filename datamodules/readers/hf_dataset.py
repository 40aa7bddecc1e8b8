"""Hugging Face `datasets` that were saved with `save_to_disk`.

`state.json` names the Arrow files. The columns are those of the Decision Transformer
(`observations`, `actions`, `rewards`, `dones`), with a row per episode or per step. A folder with
several splits has `dataset_dict.json`; `train` is read. The package `datasets` is not needed.
"""

from __future__ import annotations

from pathlib import Path

from datamodules.episodes import DatasetError
from datamodules.options import Options
from datamodules.readers.json_files import plain_name, read_json
from datamodules.readers.tables import open_table
from datamodules.source import Source

_STATE, _SPLITS = "state.json", "dataset_dict.json"


def is_hf_dataset(path: Path) -> bool:
    """Whether a path is a folder that `save_to_disk` wrote."""
    return (path / _SPLITS).is_file() or (
        (path / _STATE).is_file() and (path / "dataset_info.json").is_file()
    )


def open_hf_dataset(path: Path, options: Options | None = None) -> Source:
    """Opens a folder as a source.

    Raises:
        DatasetError: If it is damaged, files are missing, or its columns are not those of
            trajectories.
    """
    folder, notes, what = path, [], "a data set"
    if (path / _SPLITS).is_file():
        splits = read_json(path / _SPLITS, what).get("splits", [])
        names = [plain_name(name, path / _SPLITS) for name in splits]
        if not names:
            raise DatasetError(f"{path / _SPLITS}: there are no splits")
        chosen = "train" if "train" in names else names[0]
        folder = path / chosen
        others = [name for name in names if name != chosen]
        if others:
            notes.append(f"only the split {chosen} is read; {', '.join(others)} are left out")
    state = read_json(folder / _STATE, what)
    if state.get("_indices_files") or state.get("_indices_data_files"):
        raise DatasetError(
            f"{folder}: the rows were chosen or shuffled without being written anew; load it, "
            "call flatten_indices(), and save it again"
        )
    try:
        listed = [item["filename"] for item in state["_data_files"]]
    except (KeyError, TypeError) as error:
        raise DatasetError(f"{folder / _STATE}: damaged ({error!r}); get it again") from error
    files = [folder / plain_name(name, folder / _STATE) for name in listed]
    missing = [file.name for file in files if not file.is_file()]
    if missing or not files:
        raise DatasetError(
            f"{folder}: there is no {', '.join(missing) or 'data file'}, so that the data are not "
            "whole; get the folder again"
        )
    return open_table("huggingface", path, tuple(files), options, tuple(notes), (folder / _STATE,))
