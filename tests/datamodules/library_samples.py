"""Small data sets in the formats of other libraries, written as these libraries do."""

from __future__ import annotations

import io
import json

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.datamodules.samples import LENGTHS, columns
from tests.datamodules.tfrecords import example, record

FPS = 10


def write_d3rlpy(path, lengths=LENGTHS, change=None):
    """Writes a d3rlpy 2 replay buffer; even episodes are terminated."""
    arrays = {
        "columns": np.array([b"observations", b"actions", b"rewards", b"terminated"]),
        "num_episodes": len(lengths),
        "version": "2.1",
    }
    for number, length in enumerate(lengths):
        part = columns(length, number)
        arrays[f"observations_{number}"] = part["observations"]
        arrays[f"actions_{number}"] = part["actions"]
        arrays[f"rewards_{number}"] = part["rewards"][:, None]
        arrays[f"terminated_{number}"] = bool(part["terminals"][-1])
    if change is not None:
        change(arrays)
    with h5py.File(path, "w") as file:
        for key, array in arrays.items():
            file[key] = array
    return path


def write_robomimic(path, lengths=LENGTHS, change=None):
    """Writes robomimic demonstrations with two sensors and a list of demonstrations."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "Lift", "type": 1})
        for number, length in enumerate(lengths, start=8):  # so that 10 follows 9
            part = columns(length, number)
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = length
            demo["actions"], demo["rewards"] = part["actions"], part["rewards"]
            demo["dones"] = part["terminals"].astype(np.int64)
            demo["states"] = np.zeros((length, 5))
            for group, rows in (("obs", "observations"), ("next_obs", "next_observations")):
                demo[f"{group}/arm"] = part[rows][:, :3]
                demo[f"{group}/object"] = part[rows][:, 3:]
        file["mask/train"] = np.array([b"demo_8"])
        if change is not None:
            change(file)
    return path


def step_type(shape=(), dtype="float32", **more):
    """Returns a tensor in `features.json`."""
    sizes = {"dimensions": [str(size) for size in shape]} if shape else {}
    return {
        "pythonClassName": "tensorflow_datasets.core.features.tensor_feature.Tensor",
        "tensor": {"shape": sizes, "dtype": dtype, "encoding": "none", **more},
    }


def dictionary(**features):
    return {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {"features": features},
    }


def image_type(shape=(8, 6, 3)):
    return {
        "pythonClassName": "tensorflow_datasets.core.features.image_feature.Image",
        "image": {
            "shape": {"dimensions": [str(size) for size in shape]},
            "dtype": "uint8",
            "encodingFormat": "png",
        },
    }


def series(feature, length=-1, kind="dataset_feature.Dataset"):
    return {
        "pythonClassName": f"tensorflow_datasets.core.features.{kind}",
        "sequence": {"feature": feature, "length": str(length)},
    }


STEP = {
    "observation": step_type((11,)),
    "action": step_type((3,)),
    "reward": step_type(),
    "discount": step_type(),
    "is_first": step_type(dtype="bool"),
    "is_last": step_type(dtype="bool"),
    "is_terminal": step_type(dtype="bool"),
}


def rlds_episode(length, number):
    """Returns the steps of an episode, one more than actions; even episodes are terminated."""
    part = columns(length, number)
    last = np.arange(length + 1) == length
    return {
        "observation": np.concatenate([part["observations"], part["next_observations"][-1:]]),
        "action": np.concatenate([part["actions"], np.full((1, 3), 99)]),  # not defined
        "reward": np.append(part["rewards"], 99),
        "discount": np.ones(length + 1) - last * (number % 2 == 0),
        "is_first": np.arange(length + 1) == 0,
        "is_last": last,
        "is_terminal": last & (number % 2 == 0),
    }


def write_rlds(folder, lengths=LENGTHS, step=STEP, make=rlds_episode, information=None):
    """Writes a TensorFlow Datasets data set: one shard for the first episode, one for the rest."""
    folder.mkdir()
    features = dictionary(steps=series(dictionary(**step)), episode_id=step_type(dtype="int64"))
    (folder / "features.json").write_text(json.dumps(features))
    shards = [[0], list(range(1, len(lengths)))]
    metadata = {
        "name": "some_data",
        "fileFormat": "tfrecord",
        "splits": [{"name": "train", "shardLengths": [str(len(shard)) for shard in shards]}],
    }
    (folder / "dataset_info.json").write_text(json.dumps({**metadata, **(information or {})}))
    for index, numbers in enumerate(shards):
        data = b"".join(record(rlds_record(make(lengths[number], number))) for number in numbers)
        (folder / f"some_data-train.tfrecord-{index:05d}-of-00002").write_bytes(data)
    return folder


def rlds_record(steps):
    """Returns the message of an episode: each feature is a flat list."""
    flat = {"episode_id": [0]}
    for name, values in steps.items():
        if isinstance(values, np.ndarray):
            kind = float if values.dtype.kind == "f" else int
            values = [kind(value) for value in values.ravel()]
        flat[f"steps/{name}"] = values
    return example(flat)


def write_torchrl(folder, lengths=LENGTHS, change=None):
    """Writes a memory-mapped TensorDict."""
    parts = [columns(length, number) for number, length in enumerate(lengths)]
    whole = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    last = np.concatenate([np.arange(length) == length - 1 for length in lengths])
    tensors = {
        "observation": whole["observations"],
        "action": whole["actions"],
        "next/observation": whole["next_observations"],
        "next/reward": whole["rewards"][:, None],
        "next/terminated": whole["terminals"][:, None],
        "next/truncated": (last & ~whole["terminals"])[:, None],
        "next/done": last[:, None],
    }
    if change is not None:
        change(tensors)
    return write_tensors(folder, tensors)


def write_tensors(folder, tensors, batch=1):
    """Writes tensors by path, as `TensorDict.memmap` does."""
    folder.mkdir(parents=True)
    rows = next(iter(tensors.values())).shape[:batch]
    meta = {"shape": list(rows), "device": "cpu", "_type": "<class 'tensordict._td.TensorDict'>"}
    groups = {}
    for name, array in tensors.items():
        group, _, rest = name.partition("/")
        if rest:
            groups.setdefault(group, {})[rest] = array
            meta[group] = {"type": "TensorDict"}
            continue
        kind = f"torch.{array.dtype}"
        meta[name] = {"device": "cpu", "shape": list(array.shape), "dtype": kind}
        (folder / f"{name}.memmap").write_bytes(array.tobytes())
    (folder / "meta.json").write_text(json.dumps(meta))
    for group, inner in groups.items():
        write_tensors(folder / group, inner, batch)
    return folder


def table_rows(lengths=LENGTHS, flat=False):
    """Returns rows with the Decision Transformer's columns: a row is an episode or a step."""
    parts = []
    for number, length in enumerate(lengths):
        part = columns(length, number)
        part["dones"] = part.pop("terminals")
        del part["next_observations"]
        if flat:
            part["timeouts"] = (np.arange(length) == length - 1) & ~part["dones"]
        parts.append({key: array.tolist() for key, array in part.items()})
    if flat:
        parts = [
            {key: value[i] for key, value in p.items()}
            for p in parts
            for i in range(len(p["dones"]))
        ]
    return parts


def write_hf_dataset(folder, lengths=LENGTHS, flat=False):
    """Writes a data set as `save_to_disk` does, in two files."""
    folder.mkdir()
    parts = table_rows(lengths, flat)
    half = len(parts) // 2
    names = [f"data-{index:05d}-of-00002.arrow" for index in range(2)]
    for name, rows in zip(names, (parts[:half], parts[half:]), strict=True):
        table = pa.Table.from_pylist(rows)
        with pa.ipc.new_stream(str(folder / name), table.schema) as writer:
            writer.write_table(table, max_chunksize=3)
    state = {"_data_files": [{"filename": name} for name in names], "_split": "train"}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text(json.dumps({"features": {}}))
    return folder


def write_parquet(path, lengths=LENGTHS, flat=False):
    pq.write_table(pa.Table.from_pylist(table_rows(lengths, flat)), path, row_group_size=2)
    return path


def lerobot_rows(length, number, first, pictures=False):
    part = columns(length, number)
    rows = {
        "observation.state": part["observations"].tolist(),
        "action": part["actions"].tolist(),
        "next.reward": part["rewards"],
        "next.done": part["terminals"],
        "timestamp": (np.arange(length) / FPS).astype(np.float32),
        "frame_index": np.arange(length),
        "episode_index": np.full(length, number),
        "index": np.arange(length) + first,
        "task_index": np.zeros(length, np.int64),
    }
    if pictures:
        rows["observation.images.hand"] = [
            {"bytes": png_bytes(picture(number, step)), "path": None} for step in range(length)
        ]
    return pa.table(rows)


def picture(number, step):
    return np.random.default_rng([number, step]).integers(0, 256, (8, 6, 3), dtype=np.uint8)


def png_bytes(pixels):
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def lerobot_info(version, pictures=False):
    def kind(dtype, shape):
        return {"dtype": dtype, "shape": shape, "names": None}

    number = {"v2.1": "episode_chunk:03d", "v3.0": "chunk_index:03d"}[version]
    file = {"v2.1": "episode_{episode_index:06d}", "v3.0": "file-{file_index:03d}"}[version]
    features = {
        "observation.state": kind("float32", [11]),
        "action": kind("float32", [3]),
        "next.reward": kind("float32", [1]),
        "next.done": kind("bool", [1]),
        **{name: kind("int64", [1]) for name in ("frame_index", "episode_index", "index")},
        "timestamp": kind("float32", [1]),
        "task_index": kind("int64", [1]),
    }
    if pictures:
        features["observation.images.hand"] = kind("image", [8, 6, 3])
    return {
        "codebase_version": version,
        "fps": FPS,
        "total_tasks": 1,
        "chunks_size": 2,
        "data_path": f"data/chunk-{{{number}}}/{file}.parquet",
        "video_path": f"videos/{{video_key}}/chunk-{{{number}}}/{file}.mp4",
        "features": features,
    }


def write_lerobot_2(folder, lengths=LENGTHS, pictures=False, change=None):
    """Writes LeRobot v2.1: a file for each episode."""
    info = lerobot_info("v2.1", pictures)
    if change is not None:
        change(info)
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    lines = []
    for number, length in enumerate(lengths):
        file = folder / f"data/chunk-{number // 2:03d}/episode_{number:06d}.parquet"
        file.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(lerobot_rows(length, number, sum(lengths[:number]), pictures), file)
        lines.append(json.dumps({"episode_index": number, "tasks": ["go"], "length": length}))
    (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def write_lerobot_3(folder, lengths=LENGTHS, pictures=False, change=None, clips=None):
    """Writes LeRobot v3: the first two episodes share a file, and so do the others."""
    info = lerobot_info("v3.0", pictures)
    if change is not None:
        change(info)
    (folder / "meta/episodes/chunk-000").mkdir(parents=True)
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    (folder / "data/chunk-000").mkdir(parents=True)
    first, table = 0, []
    for number, length in enumerate(lengths):
        row = {
            "episode_index": number,
            "length": length,
            "dataset_from_index": first,
            "dataset_to_index": first + length,
            "data/chunk_index": 0,
            "data/file_index": number // 2,
        }
        first += length
        table.append({**row, **(clips[number] if clips else {})})
    for index in range((len(lengths) + 1) // 2):
        numbers = range(2 * index, min(2 * index + 2, len(lengths)))
        parts = [
            lerobot_rows(lengths[n], n, table[n]["dataset_from_index"], pictures) for n in numbers
        ]
        pq.write_table(pa.concat_tables(parts), folder / f"data/chunk-000/file-{index:03d}.parquet")
    pq.write_table(pa.Table.from_pylist(table), folder / "meta/episodes/chunk-000/file-000.parquet")
    return folder
