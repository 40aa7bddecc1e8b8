"""Visual Match and Key-to-Door equal recordings of the original games to the bit.

The recordings are of the games of Memory-RL under pycolab 1.2, with +1 for an apple and +5 at the
end: for each episode what was drawn, actions (partly random, partly an expert's), observations,
rewards and ends.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rate.envs.tasks.key_to_door import KeyToDoor
from rate.envs.tasks.visual_match import VisualMatch

RECORDINGS = Path(__file__).parent / "fixtures" / "pixel_tasks.npz"
TASKS: dict[str, Any] = {"visual_match": VisualMatch, "key_to_door": KeyToDoor}
OTHER_STEPS = {"visual_match": 30, "key_to_door": 25}  # beside the second phase


def recorded(game: str, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the reset options and the arrays of an episode."""
    prefix = f"{game}/{number}/"
    with np.load(RECORDINGS) as file:
        arrays = {key[len(prefix) :]: file[key] for key in file if key.startswith(prefix)}
    options = {
        key.removeprefix("option/"): arrays.pop(key).tolist()
        for key in list(arrays)
        if key.startswith("option/")
    }
    return options, arrays


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("game", TASKS)
def test_an_episode_equals_its_recording(game: str, number: int) -> None:
    options, episode = recorded(game, number)
    steps = len(episode["actions"])
    env = TASKS[game](length=steps - OTHER_STEPS[game])
    seen, rewards, ends = [env.reset(seed=0, options=options)[0]], [], []
    for action in episode["actions"]:
        observation, reward, terminated, truncated, info = env.step(action)
        assert not truncated
        seen.append(observation)
        rewards.append(reward)
        ends.append(terminated)
    np.testing.assert_array_equal(np.stack(seen), episode["observations"])
    np.testing.assert_array_equal(rewards, episode["rewards"])
    np.testing.assert_array_equal(ends, episode["ends"])
    assert info["success"] == (episode["rewards"].max() == 5)
