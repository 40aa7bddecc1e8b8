"""Data sets of TensorFlow Datasets, without TensorFlow."""

from __future__ import annotations

import json
import zlib

import numpy as np
import pytest
from gymnasium import spaces

from datamodules import DatasetError
from datamodules.formats import find_format, open_source
from datamodules.options import Options
from datamodules.readers.tfds_features import read_step_features
from datamodules.source import ValidEpisodes
from tests.datamodules import library_samples as library
from tests.datamodules.library_samples import STEP, image_type, picture, rlds_episode, step_type
from tests.datamodules.samples import LENGTHS, columns
from tests.datamodules.tfrecords import png


def episodes(path, **options):
    return list(ValidEpisodes(open_source(path, Options(**options))))


def test_the_last_step_is_only_an_observation(tmp_path):
    source = open_source(library.write_rlds(tmp_path / "data"))
    assert (source.format, source.num_episodes) == ("rlds", 3)
    assert source.spec.action_space == spaces.Box(-1, 1, (3,), np.float32)
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)
        np.testing.assert_array_equal(episode.observations, wanted["observations"])
        np.testing.assert_array_equal(episode.actions, wanted["actions"])
        np.testing.assert_array_equal(episode.rewards, wanted["rewards"])
        np.testing.assert_array_equal(episode.last_observation, wanted["next_observations"][-1])
        assert episode.terminated == (number % 2 == 0) != episode.truncated
    assert "has a reward of 99 there" in " ".join(source.notes)


def test_an_option_keeps_the_last_step(tmp_path):
    path = library.write_rlds(tmp_path / "data")
    found = episodes(path, columns=(("is_last", "none"),))
    assert [len(episode) for episode in found] == [length + 1 for length in LENGTHS]
    assert found[0].rewards[-1] == 99
    assert [episode.terminated for episode in found] == [True, False, True]


def test_an_episode_without_a_last_step_keeps_all(tmp_path):
    def make(length, number):
        steps = rlds_episode(length, number)
        return {name: values[:-1] for name, values in steps.items()}

    found = episodes(library.write_rlds(tmp_path / "data", make=make))
    assert [len(episode) for episode in found] == list(LENGTHS)
    assert not any(episode.terminated for episode in found)
    assert found[0].last_observation is None


def test_the_discount_marks_the_end_if_nothing_else_does(tmp_path):
    step = {name: kind for name, kind in STEP.items() if name != "is_terminal"}

    def make(length, number):
        steps = rlds_episode(length, number)
        steps["discount"][-2] = number % 2
        return steps

    found = episodes(library.write_rlds(tmp_path / "data", step=step, make=make))
    assert [episode.terminated for episode in found] == [True, False, True]


def nested_step():
    seen = library.dictionary(
        pixels=image_type(), last_action=step_type(dtype="int64"), text=text_type()
    )
    action = library.dictionary(arm=step_type((2,)), gripper=step_type((1,), "int32"))
    words = library.series(step_type(dtype="int64"), kind="sequence_feature.Sequence")
    pair = library.series(step_type(), 2, kind="sequence_feature.Sequence")
    more = {"observation": seen, "action": action, "words": words, "pair": pair}
    return {**STEP, **more}


def text_type():
    return {"pythonClassName": "tensorflow_datasets.core.features.text_feature.Text", "text": {}}


def nested_episode(length, number):
    steps = rlds_episode(length, number)
    del steps["observation"]
    action = steps.pop("action")
    return {
        **steps,
        "observation/pixels": [png(picture(number, step)) for step in range(length + 1)],
        "observation/last_action": np.arange(length + 1),
        "observation/text": [b"go"] * (length + 1),
        "action/arm": action[:, :2],
        "action/gripper": (action[:, 2] > 0).astype(np.int64),
        "words/ragged_flat_values": np.arange(length + 1),
        "words/ragged_row_lengths_0": np.ones(length + 1, np.int64),
        "pair/ragged_flat_values": np.zeros(2 * length + 2),
        "pair/ragged_row_lengths_0": np.full(length + 1, 2),
    }


def test_nested_observations_images_and_parts_of_actions(tmp_path):
    path = library.write_rlds(tmp_path / "data", step=nested_step(), make=nested_episode)
    source = open_source(path)
    assert {key: item.shape for key, item in source.spec.observation_space.items()} == {
        "last_action": (1,),
        "pixels": (8, 6, 3),
    }
    for number, episode in enumerate(ValidEpisodes(source)):
        wanted = columns(LENGTHS[number], number)["actions"]
        np.testing.assert_array_equal(episode.actions[:, :2], wanted[:, :2])
        np.testing.assert_array_equal(episode.actions[:, 2], wanted[:, 2] > 0)
        for step in range(len(episode)):
            np.testing.assert_array_equal(
                episode.observations["pixels"][step], picture(number, step)
            )
        last = episode.last_observation
        np.testing.assert_array_equal(last["pixels"], picture(number, len(episode)))
        assert last["last_action"] == len(episode)
    notes = " ".join(source.notes)
    assert "observation/text, words: not a fixed number" in notes
    assert "joined of action/arm, action/gripper" in notes


@pytest.mark.parametrize("encoding", ["zlib", "bytes"])
def test_tensors_that_are_stored_as_bytes(tmp_path, encoding):
    pack = zlib.compress if encoding == "zlib" else bytes
    step = {**STEP, "observation": step_type((11,), encoding=encoding)}

    def make(length, number):
        steps = rlds_episode(length, number)
        rows = steps["observation"].astype(np.float32)
        return {**steps, "observation": [pack(row.tobytes()) for row in rows]}

    found = episodes(library.write_rlds(tmp_path / "data", step=step, make=make))
    for number, episode in enumerate(found):
        wanted = columns(LENGTHS[number], number)["observations"]
        np.testing.assert_array_equal(episode.observations, wanted)


def test_the_old_notation_of_features(tmp_path):
    def old(kind, content):
        return {"type": f"tensorflow_datasets.core.features.{kind}", "content": content}

    tensor = old("tensor_feature.Tensor", {"shape": [3], "dtype": "float32", "encoding": "none"})
    image = old("image_feature.Image", {"shape": [None, None, 3], "dtype": "uint8"})
    proto = {**old("tensor_feature.Tensor", json.dumps({"shape": {}, "dtype": "bool"}))}
    steps = old(
        "dataset_feature.Dataset",
        {
            "feature": old(
                "features_dict.FeaturesDict",
                {"action": tensor, "observation": image, "is_last": proto},
            ),
            "length": None,
        },
    )
    file = tmp_path / "features.json"
    file.write_text(json.dumps(old("features_dict.FeaturesDict", {"steps": steps})))
    found = read_step_features(file)
    assert (found["action"].shape, found["action"].dtype) == ((3,), np.float32)
    assert (found["observation"].kind, found["observation"].shape) == ("image", (None, None, 3))
    assert (found["is_last"].shape, found["is_last"].dtype) == ((), np.bool_)


def test_splits_and_shards(tmp_path):
    path = library.write_rlds(tmp_path / "data")
    (path / "some_data-val.tfrecord-00000-of-00001").write_bytes(b"")
    source = open_source(path)
    assert source.num_episodes == 3
    assert "only the split train is read" in " ".join(source.notes)
    shard = path / "some_data-train.tfrecord-00001-of-00002"
    assert [len(item) for item in episodes(shard)] == [6, 3]
    (path / "some_data-train.tfrecord-00000-of-00002").unlink()
    source = open_source(path)
    assert "only 1 of the data set's 2 shards are here" in " ".join(source.notes)
    assert [len(item) for item in ValidEpisodes(source)] == [6, 3]


def test_a_damaged_shard_loses_its_own_episodes_only(tmp_path):
    path = library.write_rlds(tmp_path / "data", (4, 6, 3, 5))
    shard = path / "some_data-train.tfrecord-00001-of-00002"
    shard.write_bytes(shard.read_bytes()[:-300])
    source = open_source(path)
    for start in range(5):
        bad = []
        found = ValidEpisodes(source, start, bad.append)
        assert [len(item) for item in found] == [4, 6, 3][start:]
        assert (len(bad), found.position) == (int(start < 4), 4)
        assert not bad or "damaged or truncated" in str(bad[0])


def test_a_shard_with_missing_records_is_named(tmp_path):
    path = library.write_rlds(tmp_path / "data")
    shard = path / "some_data-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2 + 1][:0])
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4]
    assert len(bad) == 2
    assert "fewer than its 2 episodes" in str(bad[0])
    shard.write_bytes(whole * 2)
    with pytest.raises(DatasetError, match="more than its 2 episodes"):
        episodes(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda steps: steps.pop("action"), "action is not in the record"),
        (lambda steps: steps.update(action=np.zeros(7)), r"action has 7 numbers.*\(3,\)"),
        (lambda steps: steps.update(action=[b"x"]), "holds bytes, not numbers"),
        (lambda steps: steps["is_last"].__setitem__(1, True), "is_last is set at step 1, inside"),
        (lambda steps: steps["is_first"].__setitem__(2, True), "is_first is set at step 2"),
    ],
)
def test_episodes_with_other_features_are_refused(tmp_path, change, message):
    def make(length, number):
        steps = rlds_episode(length, number)
        if number == 1:
            change(steps)
        return steps

    path = library.write_rlds(tmp_path / "data", make=make)
    bad = []
    assert [len(item) for item in ValidEpisodes(open_source(path), 0, bad.append)] == [4, 3]
    with pytest.raises(DatasetError, match=rf"00001-of-00002, episode 0: .*{message}"):
        raise bad[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([b"no picture"] * 5, "image of step 0 is no PNG or JPEG, or damaged"),
        ([png(np.zeros((9, 9, 3), np.uint8))] * 5, r"has images \(9, 9, 3\), not \(8, 6, 3\)"),
        ([png(np.zeros((8, 6, 3), np.uint8))] * 4, "not an image for each of the 5 steps"),
    ],
)
def test_invalid_images_are_refused(tmp_path, data, message):
    step = {**STEP, "observation": library.dictionary(pixels=image_type())}

    def make(length, number):
        steps = rlds_episode(length, number)
        steps["observation/pixels"] = data
        del steps["observation"]
        return steps

    path = library.write_rlds(tmp_path / "data", (4, 4), step=step, make=make)
    with pytest.raises(DatasetError, match=message):
        episodes(path)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ("{", "not the features of a data set"),
        ("[]", "not the features of a data set"),
        (json.dumps(library.dictionary(image=image_type())), "no series of 'steps'.*are image"),
        (json.dumps(library.dictionary(steps=step_type())), "no series of 'steps'"),
    ],
)
def test_features_without_episodes_are_refused(tmp_path, features, message):
    path = library.write_rlds(tmp_path / "data")
    (path / "features.json").write_text(features)
    with pytest.raises(DatasetError, match=rf"features\.json: .*{message}"):
        open_source(path)


def test_the_name_in_the_metadata_gives_the_environment(tmp_path):
    information = {"name": "d4rl_mujoco_hopper"}
    spec = open_source(library.write_rlds(tmp_path / "1.1.0", information=information)).spec
    assert (spec.name, spec.options["task"]) == ("mujoco-hopper", "hopper")


def test_an_impossible_number_of_episodes_is_refused(tmp_path):
    information = {"splits": [{"name": "train", "shardLengths": ["1", "99999999999"]}]}
    with pytest.raises(DatasetError, match="says that it has 99999999999 episodes"):
        open_source(library.write_rlds(tmp_path / "data", information=information))


def test_other_kinds_of_files_are_named(tmp_path):
    path = library.write_rlds(tmp_path / "data", information={"fileFormat": "array_record"})
    for shard in path.glob("*tfrecord*"):
        shard.rename(path / shard.name.replace("tfrecord", "array_record").replace("-of-", "_of_"))
    with pytest.raises(DatasetError, match="no TFRecord shards; the data are stored as array_rec"):
        open_source(path)


def test_atari_of_rl_unplugged_has_its_own_reader(tmp_path):
    step = {**STEP, "observation": image_type((84, 84, 1)), "action": step_type(dtype="int64")}
    path = library.write_rlds(tmp_path / "data", step=step, make=lambda length, number: {})
    assert find_format(path).name == "rl-unplugged"
