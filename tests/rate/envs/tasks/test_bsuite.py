"""bsuite's memory tasks: recorded observations of the originals, and the reactive ceiling."""

from __future__ import annotations

import numpy as np
import pytest

from rate.envs.tasks.bsuite import (
    MemoryLength,
    MemoryLengthOptions,
    MemorySize,
    MemorySizeOptions,
)
from rate.errors import ConfigError


@pytest.mark.parametrize("bit", [-1, 1])
def test_a_context_is_shown_twice_and_asked_for_at_the_last_step(bit: int) -> None:
    env = MemoryLength(length=3)
    assert env.max_steps == 4
    seen = [env.reset(seed=0, options={"context": [bit]})[0]]
    for action in (1, 0, 1):
        observation, reward, terminated, truncated, info = env.step(action)
        assert (reward, terminated, truncated, info["success"]) == (0, False, False, False)
        seen.append(observation)
    observation, reward, terminated, _, info = env.step(1)
    assert (reward, terminated, info["success"]) == (bit, True, bit == 1)
    seen.append(observation)
    expected = [[1, 0, bit], [1, 0, bit], [2 / 3, 0, 0], [1 / 3, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(seen, np.array(expected, dtype=np.float32))


def test_a_query_is_an_integer_at_the_last_step() -> None:
    env, bits = MemorySize(MemorySizeOptions(num_bits=5)), [1, -1, 1, 1, -1]
    assert (env.lengths, env.max_steps) == ((2, 2), 3)
    seen = [env.reset(seed=0, options={"context": bits, "query": 3})[0]]
    seen += [env.step(0)[0], env.step(0)[0]]
    observation, reward, terminated, *_ = env.step(1)
    assert (reward, terminated) == (1, True)
    expected = [[1, 0, *bits], [1, 0, *bits], [0.5, 3, *[0] * 5], [0] * 7]
    np.testing.assert_array_equal([*seen, observation], np.array(expected, dtype=np.float32))


def test_a_query_is_one_hot_by_option() -> None:
    env = MemorySize(MemorySizeOptions(num_bits=3, query="one_hot"))
    assert env.observation_space.shape == (7,)
    env.reset(seed=0, options={"context": [1, -1, -1], "query": 1})
    env.step(0)
    assert env.step(0)[0].tolist() == [0.5, 0, 1, 0, 0, 0, 0]
    assert env.oracle_action == 0
    assert env.step(0)[1] == 1


def test_a_length_of_one_needs_no_memory() -> None:
    """The reactive ceiling of the 23 lengths is 1 / 23: the first shows the bit when it asks."""
    for seed in range(10):
        env = MemoryLength(length=1)
        env.reset(seed=seed)
        observation, *_ = env.step(0)
        assert env.step(int(observation[2] > 0))[1] == 1


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"env\.num_bits is 0; it must be a whole number"):
        MemoryLengthOptions(num_bits=0)
    with pytest.raises(ConfigError, match=r"env\.query is 'onehot'; choose one of: int, one_hot"):
        MemorySizeOptions(query="onehot")
