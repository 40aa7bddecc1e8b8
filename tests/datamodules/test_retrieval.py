from __future__ import annotations

import numpy as np
import pytest

from datamodules.collector import Collector
from datamodules.retrieval import RetrievalExpert, first_action
from rate.envs.retrieval import STAY, Retrieval, RetrievalOptions
from rate.envs.tmaze import TMaze

PRIVILEGED = RetrievalOptions(privileged=True)


def play(seed, noise=0.0, length=(3, 40)):
    return Collector(lambda: Retrieval(PRIVILEGED, length), lambda: RetrievalExpert(noise)).collect(
        seed
    )


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_the_expert_always_succeeds(noise):
    lengths = set()
    for seed in range(50):
        episode = play(seed, noise)
        actions = episode.actions
        assert episode.outcome == {"success": 1, "cue": first_action(seed)}
        assert actions[0] == actions[-1] == first_action(seed)
        assert episode.rewards.tolist() == [0] * (len(actions) - 1) + [1]
        assert noise or (actions[1:-1] == STAY).all()
        assert episode.terminated
        lengths.add(len(actions))
    assert len(lengths) > 15


def test_noise_is_spread_over_the_delay_and_repeats_with_the_seed():
    actions = play(3, noise=1.0, length=600).actions
    assert np.bincount(actions[1:-1], minlength=3).min() > 150
    np.testing.assert_array_equal(play(3, noise=1.0, length=600).actions, actions)


def test_first_actions_are_balanced_and_independent_of_the_noise():
    firsts = np.array([first_action(seed) for seed in range(4000)])
    assert abs(firsts.mean() - 0.5) < 0.03
    env = Retrieval(RetrievalOptions(), (3, 60))
    noise = [env.reset(seed=seed)[0][2] for seed in range(4000)]
    assert abs(np.corrcoef(firsts, noise)[0, 1]) < 0.05


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="probability"):
        RetrievalExpert(noise=-0.1)
    with pytest.raises(TypeError, match="not TMaze"):
        RetrievalExpert().reset(TMaze(5), 0)
