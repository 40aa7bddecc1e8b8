from __future__ import annotations

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from datamodules.retrieval import first_action
from rate.envs.retrieval import (
    STAY,
    UNKNOWN,
    Retrieval,
    RetrievalOptions,
    RetrievalVector,
    retrieval_spec,
)
from rate.envs.spec import EnvironmentSpec

PRIVILEGED = RetrievalOptions(privileged=True)
PLAIN = RetrievalOptions()


@pytest.mark.filterwarnings("ignore:.*render modes.*")
@pytest.mark.parametrize("options", [PLAIN, PRIVILEGED])
@pytest.mark.parametrize("length", [3, (3, 12)])
def test_gymnasium_accepts_it(length, options):
    check_env(Retrieval(options, length))
    spec = retrieval_spec(options)
    assert spec.observation_space == Retrieval(options).observation_space
    assert EnvironmentSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("cue", [0, 1])
@pytest.mark.parametrize("length", [3, 4, 90])
def test_repeating_the_first_action_succeeds(length, cue):
    env = Retrieval(PRIVILEGED, length)
    assert env.max_steps == length
    observation, info = env.reset(seed=1)
    assert info == {"success": False, "cue": UNKNOWN}
    seen, states = [observation["vector"]], [observation["privileged"].tolist()]
    for step in range(length):
        last = step == length - 1
        # Actions during the delay have no effect.
        action = cue if step == 0 or last else (cue + step) % 3
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated) == (last, last, False)
        assert info == {"success": last, "cue": cue}
        seen.append(observation["vector"])
        states.append(observation["privileged"].tolist())
    seen = np.array(seen)
    assert seen[:, 0].tolist() == [0] + [1] * length
    assert seen[:, 1].tolist() == [0] * (length - 1) + [1, 0]
    assert states == [[0, 0]] + [[1 - cue, cue]] * length


@pytest.mark.parametrize("last", [1, STAY])
def test_any_other_last_action_fails(last):
    env = Retrieval(PLAIN, 3)
    env.reset(seed=1)
    for action in (0, STAY):
        env.step(action)
    _, reward, terminated, _, info = env.step(last)
    assert (reward, terminated, info) == (0, True, {"success": False, "cue": 0})


def test_a_first_action_of_stay_ends_the_episode():
    env = Retrieval(PRIVILEGED, 5)
    env.reset(seed=1)
    observation, reward, terminated, truncated, info = env.step(STAY)
    assert (reward, terminated, truncated) == (0, True, False)
    assert info == {"success": False, "cue": STAY}
    assert observation["vector"][:2].tolist() == [0, 0]
    assert observation["privileged"].tolist() == [0, 0]


def test_a_finished_episode_stays_finished():
    env = Retrieval(PLAIN, 3)
    env.reset(seed=1)
    for action in (1, 0, 1):
        first = env.step(action)
    second = env.step(0)
    assert (first[1], second[1]) == (1, 0)
    np.testing.assert_array_equal(first[0], second[0])
    assert second[2:] == first[2:]


@pytest.mark.parametrize("options", [PLAIN, PRIVILEGED])
@pytest.mark.parametrize("length", [3, 7, (3, 10)])
def test_single_and_vector_agree_bit_for_bit(length, options):
    count = 60
    seeds = [0, 1, 2**62, 2**63 - 1, *range(100, 100 + count - 4)]
    vector = RetrievalVector(count, options, length)
    singles = [Retrieval(options, length) for _ in range(count)]

    def check(batch, rows):
        keys = batch if options.privileged else [None]
        for key in keys:
            column = batch if key is None else batch[key]
            wanted = np.stack([row[0] if key is None else row[0][key] for row in rows])
            assert column.dtype == wanted.dtype
            np.testing.assert_array_equal(column, wanted)

    batch, info = vector.reset(seed=seeds)
    rows = [env.reset(seed=seed) for env, seed in zip(singles, seeds, strict=True)]
    check(batch, rows)
    rng = np.random.default_rng(0)
    total = np.zeros(count)
    for _ in range(13):  # beyond the end of every episode
        actions = rng.choice(3, size=count, p=[0.5, 0.4, 0.1])
        batch, rewards, terminated, truncated, info = vector.step(actions)
        rows = [env.step(action) for env, action in zip(singles, actions, strict=True)]
        check(batch, rows)
        for column, values in enumerate((rewards, terminated, truncated), start=1):
            np.testing.assert_array_equal(values, np.stack([row[column] for row in rows]))
        for key in ("success", "cue"):
            np.testing.assert_array_equal(info[key], [row[4][key] for row in rows])
        total += rewards
    assert terminated.all()
    assert 0 < total.sum() < count
    assert set(info["cue"]) == {0, 1, STAY}


@pytest.mark.parametrize("length", [3, 9, 1000, (3, 40)])
def test_the_experts_actions_always_succeed(length):
    env, first = (
        RetrievalVector(64, PLAIN, length),
        np.array([first_action(s) for s in range(7, 71)]),
    )
    observations, _ = env.reset(seed=7)
    total, steps, done = np.zeros(64), np.zeros(64, dtype=int), np.zeros(64, dtype=bool)
    while not done.all():
        steps += ~done
        is_delay = (observations[:, 0] == 1) & (observations[:, 1] == 0)
        observations, rewards, done, _, info = env.step(np.where(is_delay, STAY, first))
        total += rewards
    assert (total == 1).all()
    assert info["success"].all()
    low, high = (length, length) if isinstance(length, int) else length
    assert steps.min() >= low
    assert steps.max() <= high
    assert len(set(steps)) > 20 or low == high


def test_reset_mask_resets_some_rows():
    env = RetrievalVector(4, PRIVILEGED, 3)
    env.reset(seed=0)
    for _ in range(3):
        env.step(np.ones(4, dtype=int))
    mask = np.array([True, False, True, False])
    observations, info = env.reset(seed=[9, 9, 9, 9], options={"reset_mask": mask})
    assert observations["vector"][:, 0].tolist() == [0, 1, 0, 1]
    assert observations["privileged"].tolist() == [[0, 0], [0, 1], [0, 0], [0, 1]]
    assert info["cue"].tolist() == [UNKNOWN, 1, UNKNOWN, 1]
    assert info["success"].tolist() == [False, True, False, True]
    *_, terminated, _, info = env.step(np.zeros(4, dtype=int))
    assert terminated.tolist() == [False, True, False, True]
    assert info["cue"].tolist() == [0, 1, 0, 1]
    assert env.metadata["autoreset_mode"] is AutoresetMode.DISABLED


def test_lengths_and_noise_are_uniform_over_seeds():
    env = RetrievalVector(10_000, PLAIN, (3, 12))
    first, _ = env.reset(seed=0)
    again, _ = env.reset(seed=list(range(10_000)))
    np.testing.assert_array_equal(first, again)
    for value in (-1, 0, 1):
        assert abs((first[:, 2] == value).mean() - 1 / 3) < 0.03
    assert np.bincount(env._last + 1, minlength=13)[3:].min() > 800
    assert env.observation_space.shape == (10_000, 3)


def test_without_a_seed_episodes_follow_the_generator():
    for env in (Retrieval(PLAIN, (3, 100)), RetrievalVector(3, PLAIN, (3, 100))):
        noise = []
        for _ in range(2):
            env.reset(seed=5)
            noise.append([np.copy(env.reset()[0]) for _ in range(12)])
        np.testing.assert_array_equal(noise[0], noise[1])
        assert len(np.unique(noise[0], axis=0)) > 1


@pytest.mark.parametrize("length", [2, 0, (2, 5), (9, 3)])
def test_invalid_lengths_are_refused(length):
    for make in (lambda: Retrieval(PLAIN, length), lambda: RetrievalVector(2, PLAIN, length)):
        with pytest.raises(ValueError, match="at least 3 steps"):
            make()


def test_invalid_arguments_are_refused():
    env = Retrieval()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="expected 0, 1 or 2"):
        env.step(3)
    vector = RetrievalVector(2)
    vector.reset(seed=0)
    with pytest.raises(ValueError, match="values from 0 to 3"):
        vector.step(np.array([0, 3]))
    with pytest.raises(ValueError, match="3 seeds for 2"):
        vector.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        vector.reset(seed=0, options={"reset_mask": np.ones(3, dtype=bool)})
    with pytest.raises(ValueError, match="at least one"):
        RetrievalVector(0)
