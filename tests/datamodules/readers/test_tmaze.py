from __future__ import annotations

import numpy as np
import pytest

from datamodules.episodes import DatasetError
from datamodules.readers.tmaze import open_tmaze_pickle
from datamodules.source import ValidEpisodes
from tests.datamodules.samples import LENGTHS, write_tmaze


def test_tmaze(tmp_path):
    source = open_tmaze_pickle(write_tmaze(tmp_path / "data_T_90.pickle"))
    episodes = list(ValidEpisodes(source))
    assert [len(episode) for episode in episodes] == list(LENGTHS)
    assert episodes[1].rewards.tolist() == [0, 0, 0, 0, 0, 1]
    assert episodes[1].observations[:, 1].tolist() == [1, 0, 0, 0, 0, 0]
    assert all(episode.terminated for episode in episodes)
    assert source.spec.name == "tmaze"
    assert source.num_steps == sum(LENGTHS)


TMAZE_BAD = {
    "short": ("rtg", np.ones(3), "episode 1: rtg has 3 rows, but 6 actions need 7"),
    "action": ("action", np.full(6, 4), "episode 1: actions: 4 at step 0 is outside"),
    "clue": ("obs", np.full((7, 4), 3.0), "episode 1: observations: 3.0 at step 0 is outside"),
    "done": ("done", np.ones(6), "episode 1: done: step 0 is an end"),
    "nan": ("rtg", np.full(7, np.nan), "episode 1: rewards: the value at step 0 is not finite"),
    "list": ("rtg", [1], "episode 1: not a dictionary of the arrays"),
}


@pytest.mark.parametrize("name", TMAZE_BAD)
def test_wrong_tmaze_episodes_are_named_or_skipped(tmp_path, name):
    key, value, message = TMAZE_BAD[name]
    path = write_tmaze(tmp_path / "x.pickle", change=lambda e: e[1].update({key: value}))
    source = open_tmaze_pickle(path)
    with pytest.raises(DatasetError, match=message):
        list(ValidEpisodes(source))
    kept = ValidEpisodes(source, on_bad=lambda error: None)
    assert [len(episode) for episode in kept] == [4, 3]
