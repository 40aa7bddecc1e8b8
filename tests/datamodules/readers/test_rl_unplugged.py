"""Shards of RL Unplugged."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from datamodules import DatasetError
from datamodules.formats import open_source
from datamodules.readers.rl_unplugged import open_rl_unplugged, read_rl_unplugged
from datamodules.readers.tfrecord import masked_crc32c, parse_example
from tests.datamodules.tfrecords import example, png, record


def frames(number, steps):
    return np.random.default_rng(number).integers(0, 256, (steps, 84, 84), dtype=np.uint8)


def episode(number, steps, over=True, tfds=False):
    images = [png(frame) for frame in frames(number, steps)]
    actions = [(number + step) % 6 for step in range(steps)]
    rewards = [0.0] * (steps - 1) + [400.0]
    last = 0.0 if over else 1.0
    if tfds:
        return {
            "steps/observation": images,
            "steps/action": actions,
            "steps/reward": rewards,
            "steps/is_terminal": [0] * (steps - 1) + [int(over)],
            "episode_id": [number],
        }
    return {
        "checkpoint_idx": [3],
        "observations": images,
        "actions": actions,
        "unclipped_rewards": rewards,
        "clipped_rewards": [min(1.0, reward) for reward in rewards],
        "discounts": [1.0] * (steps - 1) + [last],
    }


@pytest.fixture
def shards(tmp_path):
    folder = tmp_path / "Qbert"
    folder.mkdir()
    with gzip.open(folder / "run_1-00000-of-00002", "wb") as file:
        file.write(record(example(episode(0, 3))) + record(example(episode(1, 2, over=False))))
    (folder / "run_1-00001-of-00002").write_bytes(record(example(episode(2, 4), packed=False)))
    (folder / "README").write_text("no shard")
    return folder


def test_checksum_is_that_of_the_standard():
    """CRC-32C of '123456789' is 0xE3069283 (RFC 3720, and every other source)."""
    crc = 0xE3069283
    assert masked_crc32c(b"123456789") == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_messages_are_those_of_the_standard():
    """`features {feature {key: "a" value {int64_list {value: [1, -2, 300]}}}}`, byte by byte."""
    numbers = "01" + "feffffffffffffffff01" + "ac02"
    data = bytes.fromhex("0a18 0a16 0a0161 1211 1a0f 0a0d" + numbers)
    assert parse_example(data)["a"].tolist() == [1, -2, 300]
    assert example({"a": [1, -2, 300]}) == data


@pytest.mark.parametrize("start", [0, 1, 3])
def test_episodes_come_in_order_with_clipped_rewards(shards, start):
    found = list(read_rl_unplugged(shards, start))
    for item, (number, steps, over) in zip(
        found, [(0, 3, True), (1, 2, False), (2, 4, True)][start:], strict=True
    ):
        np.testing.assert_array_equal(item.observations, frames(number, steps))
        assert item.actions.tolist() == [(number + step) % 6 for step in range(steps)]
        assert item.rewards.tolist() == [0.0] * (steps - 1) + [1.0]
        assert (item.terminated, item.truncated) == (over, not over)


def test_files_of_tensorflow_datasets_are_read_alike(tmp_path):
    path = tmp_path / "rlu_atari-train.tfrecord-00000-of-00001"
    path.write_bytes(b"".join(record(example(episode(n, 3, n == 0, tfds=True))) for n in (0, 1)))
    first, second = read_rl_unplugged(path)
    np.testing.assert_array_equal(first.observations, frames(0, 3))
    assert first.rewards.tolist() == [0, 0, 1]
    assert (first.terminated, second.terminated, second.truncated) == (True, False, True)


def test_the_format_is_recognised(shards):
    source = open_source(shards)
    assert (source.format, len(source.files)) == ("rl-unplugged", 2)
    assert source.spec.options["game"] == "Qbert"
    assert source.spec.action_space.n == 6
    assert len(list(source.read(0, None))) == 3
    source = open_rl_unplugged(shards.rename(shards.parent / "unnamed"))
    assert source.spec.action_space.n == 18
    assert "no folder names the game" in source.notes[1]


@pytest.mark.parametrize("keep", [5, 20, 3000])
def test_a_truncated_shard_is_named_and_the_next_is_read(shards, keep):
    path = shards / "run_1-00000-of-00002"
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(whole[:keep])
    bad = []
    assert [len(item) for item in read_rl_unplugged(shards, on_bad=bad.append)] == [4]
    assert f"{path}, record 0: damaged or truncated" in str(bad[0])
    with pytest.raises(DatasetError, match="record 0: damaged"):
        open_rl_unplugged(shards)


def test_other_damage_is_named(shards):
    path = shards / "run_1-00000-of-00002"
    packed = path.read_bytes()
    path.write_bytes(packed[: len(packed) // 2])
    with pytest.raises(DatasetError, match="record 0: damaged or truncated"):
        list(read_rl_unplugged(shards))
    path.write_bytes(b"X" + gzip.decompress(packed)[1:])
    with pytest.raises(DatasetError, match="the checksum of its length is wrong"):
        list(read_rl_unplugged(shards))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"actions": [1, 2]}, "3 observations and 3 rewards, but 2 actions"),
        ({"observations": [b"no picture"] * 3}, "episode 0, step 0: the frame is no PNG"),
        ({"observations": [png(np.zeros((9, 9), np.uint8))] * 3}, r"uint8 \(9, 9\)"),
        ({"actions": [b"left"] * 3}, "the actions are bytes"),
        (
            {"actions": None},
            "no actions or steps/action; the record has checkpoint_idx.*features.json",
        ),
        ({"o_t": [b"png"]}, "a single transition, as in the older copy"),
    ],
)
def test_episodes_with_other_features_are_refused(tmp_path, change, message):
    features = {k: v for k, v in {**episode(0, 3), **change}.items() if v is not None}
    path = tmp_path / "run-00000-of-00001"
    path.write_bytes(record(example(features)))
    with pytest.raises(DatasetError, match=message):
        list(read_rl_unplugged(path))


@pytest.mark.parametrize(
    "data", [b"\xff" * 40, b"\x0a\x05ab", b"\x0b", b"\x08\x01\x0a\x02\x0a\x01"]
)
def test_damaged_messages_are_refused(tmp_path, data):
    path = tmp_path / "run-00000-of-00001"
    path.write_bytes(record(data))
    with pytest.raises(DatasetError, match=r"episode 0: (no tf.train.Example|there is no)"):
        list(read_rl_unplugged(path))
