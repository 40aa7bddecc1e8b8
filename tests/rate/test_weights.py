"""Saved models: complete, no code is run, and damage is named."""

from __future__ import annotations

import errno
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from rate import renamed
from rate.config import Decoding
from rate.errors import WeightsError
from rate.policy import Policy
from rate.weights import DESCRIPTION, WEIGHTS, SavedModel, find_models, load_model, save_model
from tests.digests import remove_from_model, renew_model
from tests.factories import MODELS, SPACES, K, draw, make_batch, make_model, make_spec


def stored(folder: Path, name: str = "rate", spaces: str = "vector_to_discrete") -> SavedModel:
    saved = SavedModel(
        make_model(name, spaces), make_spec(spaces), Decoding("sample", 2.0, 3), {"step": 7}
    )
    save_model(saved, folder)
    return saved


def actions_of(saved: SavedModel) -> np.ndarray[Any, Any]:
    policy = Policy(saved.model, num_envs=3, target_return=saved.spec.target_return)
    observations = [draw(saved.spec.observation_space, 3, seed=t) for t in range(2 * K + 1)]
    as_arrays = [
        {k: v.numpy() for k, v in o.items()} if isinstance(o, dict) else o.numpy()
        for o in observations
    ]
    return np.stack([policy.act(o, np.full(3, 0.25)) for o in as_arrays])


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_acts_the_same(name: str, tmp_path: Path) -> None:
    saved = stored(tmp_path / "model", name)
    loaded = load_model(tmp_path / "model")
    assert loaded.model.config == saved.model.config
    assert (loaded.decoding, loaded.extra) == (saved.decoding, saved.extra)
    assert not loaded.model.training
    batch = make_batch(saved.model)
    with torch.no_grad():
        assert torch.equal(loaded.model(batch)[0], saved.model(batch)[0])


@pytest.mark.parametrize("name", ["rate", "gtrxl", "post_norm"])
def test_weights_are_read_by_the_names_that_they_had_before(name: str, tmp_path: Path) -> None:
    saved = stored(tmp_path, name)
    current, former = load_file(tmp_path / WEIGHTS), {}
    for key, weight in current.items():
        for before, after in renamed.WEIGHTS.items():
            key = key.replace(after, before)
        former[key] = weight
    assert former.keys() != current.keys()
    save_file(former, tmp_path / WEIGHTS)
    renew_model(tmp_path)
    assert np.array_equal(actions_of(load_model(tmp_path)), actions_of(saved))


@pytest.mark.parametrize("kind", [str, Path])
def test_a_model_is_found_by_every_path_to_it(kind: type, tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name, step in (("last", 9), ("best", 5)):
        saved = SavedModel(make_model("rate"), make_spec(), extra={"step": step})
        save_model(saved, kind(run / "checkpoints" / name))
    last, best = (run / "checkpoints" / name for name in ("last", "best"))
    for path in (last, last / WEIGHTS, last / DESCRIPTION):
        assert load_model(kind(path)).extra == {"step": 9}
    for path in (run, run / "checkpoints", best, best / WEIGHTS, best / DESCRIPTION):
        assert load_model(kind(path)).extra == {"step": 5}
    assert find_models(kind(run)) == {"last": last, "best": best}
    (best / DESCRIPTION).unlink()
    assert load_model(kind(run)).extra == {"step": 9}


def test_paths_without_a_model_are_refused_by_reason(tmp_path: Path) -> None:
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    checkpoint.touch()
    for path, message in (
        (tmp_path / "nowhere", "there is no such file"),
        (tmp_path, "neither model.json nor checkpoints/last is in it"),
        (tmp_path / "run", "the run has saved no model yet"),
        (checkpoint, "it is neither model.safetensors nor model.json"),
    ):
        with pytest.raises(WeightsError, match=message) as caught:
            load_model(path)
        assert str(caught.value).startswith(f"{path} holds no model")


@pytest.mark.parametrize("spaces", SPACES)
def test_spaces_and_normalisation_are_saved(spaces: str, tmp_path: Path) -> None:
    saved = SavedModel(make_model("rate_cache", spaces), make_spec(spaces))
    if spaces == "vector_to_discrete":
        saved.model.tokenizer.observation.set_normalisation(torch.rand(3), torch.rand(3) + 1)
    save_model(saved, tmp_path)
    loaded = load_model(tmp_path)
    assert loaded.spec == saved.spec
    assert np.array_equal(actions_of(loaded), actions_of(saved))


def test_saving_again_replaces_and_leaves_no_drafts(tmp_path: Path) -> None:
    stored(tmp_path)
    saved = stored(tmp_path, "rmt")
    assert load_model(tmp_path).model.config == saved.model.config
    assert sorted(p.name for p in tmp_path.iterdir()) == [DESCRIPTION, WEIGHTS]


def test_extra_that_is_no_json_leaves_the_old_model_whole(tmp_path: Path) -> None:
    stored(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(TypeError):
        save_model(SavedModel(make_model("rmt"), make_spec(), extra={"bad": object()}), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs Linux's /proc")
@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_a_full_disk_leaves_the_old_model_whole(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = stored(tmp_path)
    before, sync = sorted(tmp_path.iterdir()), os.fsync

    def full(descriptor: int) -> None:
        if file in Path(f"/proc/self/fd/{descriptor}").readlink().name:
            os.truncate(f"/proc/self/fd/{descriptor}", 10)
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_model(saved, tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert load_model(tmp_path).extra == {"step": 7}


def test_weights_and_description_have_equal_permissions(tmp_path: Path) -> None:
    stored(tmp_path)
    modes = {(tmp_path / name).stat().st_mode for name in (WEIGHTS, DESCRIPTION)}
    assert len(modes) == 1


class Malicious:
    """Unpickling an instance creates the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_loading_runs_no_code(file: str, how: str, tmp_path: Path) -> None:
    stored(tmp_path / "model")
    target, trace = tmp_path / "model" / file, tmp_path / "it_ran"
    if how == "pickle":
        target.write_bytes(pickle.dumps(Malicious(trace)))
    else:
        torch.save({"weight": Malicious(trace)}, target)
    with pytest.raises(WeightsError, match=file):
        load_model(tmp_path / "model")
    assert not trace.exists()


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
def test_truncated_files_are_named(file: str, keep: float, tmp_path: Path) -> None:
    stored(tmp_path)
    content = (tmp_path / file).read_bytes()
    (tmp_path / file).write_bytes(content[: int(keep * len(content))])
    with pytest.raises(WeightsError, match=file):
        load_model(tmp_path)


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_missing_files_are_named(file: str, tmp_path: Path) -> None:
    stored(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(WeightsError, match=rf"{file}.* missing"):
        load_model(tmp_path)


@pytest.mark.parametrize("file", [WEIGHTS, DESCRIPTION])
def test_folders_in_place_of_files_are_named(file: str, tmp_path: Path) -> None:
    stored(tmp_path)
    (tmp_path / file).unlink()
    (tmp_path / file).mkdir()
    with pytest.raises(WeightsError, match=file):
        load_model(tmp_path)


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("hello")
    with pytest.raises(WeightsError, match="model"):
        load_model(tmp_path / "model")
    with pytest.raises(WeightsError, match="nowhere"):
        load_model(tmp_path / "nowhere")


def loaded_or_refusal(folder: Path) -> tuple[SavedModel | None, str]:
    try:
        return load_model(folder), ""
    except WeightsError as error:
        return None, str(error)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_in_the_header_never_leaves_a_traceback(seed: int, tmp_path: Path) -> None:
    """It is refused by name, or the file is still one of the same tensors."""
    saved = stored(tmp_path)
    remove_from_model(tmp_path)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    size = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(seed)
    content[rng.integers(size)] ^= 1 << rng.integers(8)
    (tmp_path / WEIGHTS).write_bytes(content)
    loaded, refusal = loaded_or_refusal(tmp_path)
    if loaded is None:
        assert WEIGHTS in refusal
    else:
        shapes = {key: value.shape for key, value in saved.model.state_dict().items()}
        assert {key: value.shape for key, value in loaded.model.state_dict().items()} == shapes


@pytest.mark.parametrize("seed", range(60))
def test_a_damaged_description_never_leaves_a_traceback(seed: int, tmp_path: Path) -> None:
    """A random byte changed: refused by name, or still a description."""
    stored(tmp_path, spaces=list(SPACES)[seed % len(SPACES)])
    remove_from_model(tmp_path)
    path, rng = tmp_path / DESCRIPTION, np.random.default_rng(seed)
    content = bytearray(path.read_bytes())
    content[rng.integers(len(content))] = rng.choice(list(b'019-"x{}[],.eE\xff'))
    path.write_bytes(content)
    loaded, refusal = loaded_or_refusal(tmp_path)
    assert loaded is not None or str(tmp_path) in refusal


@pytest.mark.parametrize(
    "change",
    [
        {"format": 3},
        {"format": None},
        {"model": None},
        {"model": {"d_model": 16, "colour": "red"}},
        {"model": {"d_model": 0}},
        {"model": {"d_model": 10**12}},
        {"environment": []},
        {"environment": {}},
        {"decoding": {"method": "beam"}},
        {"decoding": None},
    ],
    ids=str,
)
def test_invalid_descriptions_are_refused(change: Any, tmp_path: Path) -> None:
    stored(tmp_path)
    path = tmp_path / DESCRIPTION
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    renew_model(tmp_path)
    with pytest.raises(WeightsError, match=DESCRIPTION):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "space",
    [
        {"type": "Discrete", "n": 0, "start": 0},
        {"type": "Discrete", "n": 4},
        {"type": "Text"},
        {"type": "Box", "shape": [3], "dtype": "uint8", "low": 0, "high": 300},
        {"type": "Box", "shape": [3], "dtype": "nonsense", "low": 0, "high": 1},
        [],
    ],
    ids=str,
)
def test_invalid_spaces_are_refused(space: Any, tmp_path: Path) -> None:
    stored(tmp_path)
    path = tmp_path / DESCRIPTION
    description = json.loads(path.read_text())
    description["environment"]["observation_space"] = space
    path.write_text(json.dumps(description))
    renew_model(tmp_path)
    with pytest.raises(WeightsError, match=DESCRIPTION):
        load_model(tmp_path)


def test_deeply_nested_json_is_refused(tmp_path: Path) -> None:
    stored(tmp_path)
    (tmp_path / DESCRIPTION).write_text("[" * 200_000)
    with pytest.raises(WeightsError, match=DESCRIPTION):
        load_model(tmp_path)


@pytest.mark.parametrize("change", ["less", "more", "shape"])
def test_weights_of_another_model_are_refused(change: str, tmp_path: Path) -> None:
    stored(tmp_path)
    weights = load_file(tmp_path / WEIGHTS)
    if change == "less":
        del weights["backbone.memory"]
    elif change == "more":
        weights["stowaway"] = torch.zeros(1)
    else:
        weights["backbone.memory"] = weights["backbone.memory"][:1].clone()
    save_file(weights, tmp_path / WEIGHTS)
    renew_model(tmp_path)
    with pytest.raises(WeightsError, match=rf"{WEIGHTS} does not fit"):
        load_model(tmp_path)
