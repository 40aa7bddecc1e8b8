"""DQN-replay checkpoints, written as Dopamine writes them."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from datamodules import DatasetError, write_store
from datamodules.formats import find_format, open_source
from datamodules.readers import dqn_replay
from datamodules.readers.dqn_replay import open_dqn_replay, read_dqn_replay
from datamodules.source import ValidEpisodes

GAME = [
    (7, 6),
    (5, 4),
    (9, 8),
    (4, 3),
    (6, 5),
    (5, 5),
]  # steps of the episodes, and the step of a reward


class Memory:
    """The agent's replay memory: a ring buffer, written when all rows but the last are new."""

    def __init__(self, folder, capacity):
        self.folder, self.capacity, self.count, self.logs = folder, capacity, 0, 0
        folder.mkdir(parents=True)
        self.store = {
            "observation": np.zeros((capacity, 84, 84), np.uint8),
            "action": np.zeros(capacity, np.int32),
            "reward": np.zeros(capacity, np.float32),
            "terminal": np.zeros(capacity, np.uint8),
        }

    def add(self, observation, action, reward, terminal):
        if self.count == 0 or self.store["terminal"][(self.count - 1) % self.capacity]:
            for _ in range(3):
                self._add(np.zeros((84, 84), np.uint8), 0, 0, 0)
        self._add(observation, action, reward, terminal)

    def _add(self, *values):
        for array, value in zip(self.store.values(), values, strict=True):
            array[self.count % self.capacity] = value
        self.count += 1
        if self.count % self.capacity == self.capacity - 1:
            for name, array in self.store.items():
                write(self.folder / f"$store$_{name}_ckpt.{self.logs}.gz", array)
            write(self.folder / f"add_count_ckpt.{self.logs}.gz", np.array(self.count))
            self.logs += 1


def write(path, array):
    with gzip.open(path, "wb") as file:
        np.save(file, array)


def frames(number, steps):
    return np.random.default_rng(number).integers(1, 256, (steps, 84, 84), dtype=np.uint8)


@pytest.fixture
def run(tmp_path):
    """Writes two checkpoints of 25 rows; episodes are rows 0-9, 10-17, 18-29 (in both), ..."""
    folder = tmp_path / "Breakout" / "1"
    memory = Memory(folder / "replay_logs", 25)
    for number, (steps, at) in enumerate(GAME):
        for step, frame in enumerate(frames(number, steps)):
            memory.add(frame, (number + step) % 4, float(step == at - 1), step == steps - 1)
    return folder


def file(run, name, number=0):
    return run / "replay_logs" / f"$store$_{name}_ckpt.{number}.gz"


def test_whole_episodes_are_read_without_padding(run):
    episodes = list(read_dqn_replay(run))
    # The third episode crosses the border of the checkpoints, and its return is unknown.
    for episode, number in zip(episodes, (0, 1, 3, 4), strict=True):
        steps, at = GAME[number]
        np.testing.assert_array_equal(episode.observations, frames(number, steps))
        assert episode.actions.tolist() == [(number + step) % 4 for step in range(steps)]
        assert np.flatnonzero(episode.rewards).tolist() == [at - 1]
        assert episode.terminated
        assert not episode.truncated


def test_a_game_cut_by_the_time_limit_is_truncated(run, monkeypatch):
    """Its last row is marked in the same way as a terminal one."""
    monkeypatch.setattr(dqn_replay, "LONGEST", GAME[3][0])
    ends = [(len(e), e.terminated, e.truncated) for e in read_dqn_replay(run)]
    wanted = [GAME[number][0] for number in (0, 1, 3, 4)]
    assert ends == [(n, n != GAME[3][0], n == GAME[3][0]) for n in wanted]
    assert len({end[1] for end in ends}) == 2


def test_reading_starts_at_any_episode(run):
    everything = list(read_dqn_replay(run))
    for start in range(5):
        rest = list(read_dqn_replay(run / "replay_logs", start))
        assert len(rest) == 4 - start
        for found, wanted in zip(rest, everything[start:], strict=True):
            np.testing.assert_array_equal(found.observations, wanted.observations)


def test_a_checkpoint_that_begins_with_an_episode_keeps_it(run):
    for name in ("observation", "action", "reward", "terminal"):
        file(run, name, 0).rename(file(run, name, 7))
        file(run, name, 1).unlink()
    (run / "replay_logs" / "add_count_ckpt.0.gz").unlink()
    assert [len(episode) for episode in read_dqn_replay(run)] == [7, 5]


@pytest.mark.parametrize(("count", "episodes"), [(25, 3), (50, 3), (24, 2), (10, 1), (35, 1)])
def test_the_counter_gives_the_number_of_rows_of_the_checkpoint(run, count, episodes):
    """At a multiple of the capacity, all rows of the memory were rewritten."""
    terminals = np.zeros(25, np.uint8)
    terminals[[9, 17, 24]] = 1
    write(file(run, "terminal"), terminals)
    write(run / "replay_logs" / "add_count_ckpt.0.gz", np.array(count))
    for name in ("observation", "action", "reward", "terminal"):
        file(run, name, 1).unlink()
    assert [len(episode) for episode in read_dqn_replay(run)] == [7, 5, 4][:episodes]


def test_the_format_is_recognised_and_packed(run, tmp_path):
    found = find_format(run)
    assert found is not None
    assert found.name == "dqn-replay"
    source = open_source(run)
    assert source.num_episodes == 4
    assert source.spec.name == "atari"
    assert source.spec.options["game"] == "Breakout"
    assert source.spec.action_space.n == 4
    store = write_store(source.read(0, None), tmp_path / "store", source.spec, {})
    assert store.lengths.tolist() == [7, 5, 4, 6]
    assert store.observations.dtype == np.uint8
    assert store.observations.shape == (22, 84, 84)
    unknown = run.parent.rename(tmp_path / "something") / "1"
    source = open_dqn_replay(unknown)
    assert source.spec.action_space.n == 4
    assert np.isnan(source.spec.target_return)


def test_damage_is_named(run):
    path = file(run, "observation", 1)
    path.write_bytes(path.read_bytes()[:50_000])
    bad = []
    assert len(list(read_dqn_replay(run, on_bad=bad.append))) == 2
    assert [str(error) for error in bad] == [
        f"{path}, episode {number}: damaged or truncated (Compressed file ended before the "
        "end-of-stream marker was reached)"
        for number in (2, 3)
    ]
    with pytest.raises(DatasetError, match="episode 2: damaged"):
        list(read_dqn_replay(run))


def test_a_flipped_bit_is_found_by_the_checksum(run):
    path = file(run, "observation", 0)
    contents = bytearray(path.read_bytes())
    contents[50_000] ^= 1  # noise is stored uncompressed, so decompression detects no error
    path.write_bytes(bytes(contents))
    for start in (0, 1):
        with pytest.raises(DatasetError, match=r"ckpt\.0\.gz: damaged \(CRC check failed"):
            list(read_dqn_replay(run, start))


def test_the_checksum_of_a_column_is_read(run):
    path = file(run, "reward", 1)
    contents = bytearray(path.read_bytes())
    contents[-8] ^= 1
    path.write_bytes(bytes(contents))
    with pytest.raises(DatasetError, match=r"reward_ckpt\.1\.gz: damaged.*CRC"):
        open_dqn_replay(run)


def test_the_checkpoint_of_an_episode_is_named(run):
    write(file(run, "action", 1), np.full(25, 9, np.int32))
    bad = []
    assert len(list(ValidEpisodes(open_source(run), on_bad=bad.append))) == 2
    assert [str(error).split(": ")[0] for error in bad] == [
        f"{run}, checkpoint 1, episode {number}" for number in (2, 3)
    ]


DAMAGE = [
    (name, damage)
    for name in ("observation", "action", "reward", "terminal")
    for damage in ("no gzip", "cut", "another shape", "missing")
    if (name, damage) != ("observation", "missing")  # without frames it is no checkpoint
]


@pytest.mark.parametrize(("name", "damage"), DAMAGE)
def test_damage_in_any_file_is_named(run, name, damage):
    path = file(run, name)
    if damage == "missing":
        path.unlink()
    elif damage == "another shape":
        write(path, np.zeros((25, 3), np.uint8))
    else:
        path.write_bytes(b"nothing of the kind" if damage == "no gzip" else path.read_bytes()[:40])
    with pytest.raises(DatasetError, match=r"\$store\$_\w+_ckpt\.0\.gz: "):
        open_dqn_replay(run)


def test_contents_that_contradict_each_other_are_refused(run):
    write(file(run, "terminal"), np.full(25, 3, np.uint8))
    with pytest.raises(DatasetError, match="3 at row 0 is not 0 or 1"):
        open_dqn_replay(run)
    write(file(run, "terminal"), np.zeros(25, np.uint8))
    with pytest.raises(DatasetError, match="no whole episode"):
        open_dqn_replay(run)
    write(file(run, "terminal"), np.zeros(24, np.uint8))
    with pytest.raises(DatasetError, match=r"shape \(25,\), but there are 24 terminals"):
        open_dqn_replay(run)
    write(file(run, "action"), np.array(["pickle"] * 25))
    with pytest.raises(DatasetError, match="not numbers"):
        open_dqn_replay(run)
