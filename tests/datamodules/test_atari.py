from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from datamodules.atari import STAY, AtariExpert, find_ball, find_paddle
from datamodules.collector import Collector, RandomExpert
from rate.envs.atari import Atari, AtariOptions
from rate.envs.retrieval import Retrieval

pytest.importorskip("ale_py", reason="Atari needs ale-py: make install EXTRAS=atari")


def player(game="Pong", length=400, noise=0.05):
    return Collector(partial(Atari, AtariOptions(game), length), partial(AtariExpert, noise))


def test_an_episode_depends_on_its_seed_alone():
    first, again, other = (player().collect(seed) for seed in (1 << 40, 1 << 40, 7))
    np.testing.assert_array_equal(first.observations, again.observations)
    assert first.actions.tolist() == again.actions.tolist()
    assert first.actions.tolist() != other.actions.tolist()
    assert first.observations.shape == (400, 84, 84)
    assert first.observations.dtype == np.uint8


def test_the_pong_expert_beats_random_play():
    steps = 1000
    skilled = [player(length=steps).collect(seed).outcome["score"] for seed in (1, 2, 3)]
    chance = Collector(partial(Atari, AtariOptions("Pong"), steps), RandomExpert)
    assert np.mean(skilled) > -6
    assert chance.collect(1).outcome["score"] < -15


def test_other_games_are_played_at_random():
    episode = player("Breakout", length=50).collect(1)
    assert set(episode.actions.tolist()) == {0, 1, 2, 3}
    assert "normalised_score" in episode.outcome


def test_ball_and_paddle_are_found_in_frames():
    frame = np.full((84, 84), 87, dtype=np.uint8)
    assert find_ball(frame) is None
    assert find_paddle(frame, otherwise=12.0) == 12.0
    frame[40:48, 74] = 147
    frame[30:32, 50:52] = 236
    frame[5, 5] = frame[80, 40] = 236  # score and wall
    assert find_ball(frame) == (30.5, 50.5)
    assert find_paddle(frame, otherwise=12.0) == 43.5
    expert = AtariExpert()
    game = Atari(AtariOptions("Pong"), 9)
    game.reset(seed=1)
    expert.reset(game, 1)
    game.frame = frame
    assert expert.act() == STAY  # the paddle is in the middle, and no ball approaches


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="noise is 2"):
        AtariExpert(2)
    with pytest.raises(TypeError, match="plays Atari, not Retrieval"):
        AtariExpert().reset(Retrieval(), 0)
