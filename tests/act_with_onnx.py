"""Acts in T-Maze with an exported policy. It needs numpy and onnxruntime alone.

python act_with_onnx.py policy.onnx
"""

from __future__ import annotations

import json
import sys

import numpy as np
import onnxruntime

RIGHT, UP, LEFT, DOWN = range(4)
EPISODES, LENGTH = 10, 90


class TMaze:
    """A corridor; the first observation alone says which way to turn at its end."""

    def reset(self, up: bool) -> np.ndarray:
        self.clue, self.position, self.steps = (1 if up else -1), 0, 0
        return self._observation()

    def step(self, action: int) -> tuple[np.ndarray, float, bool]:
        """The next observation, the reward, and whether the episode has ended."""
        self.steps += 1
        if self.position == LENGTH - 2 and action in (UP, DOWN):
            turn = 1 if action == UP else -1
            return self._observation(turn), float(turn == self.clue), True
        move = {RIGHT: 1, LEFT: -1}.get(action, 0)
        self.position = min(max(self.position + move, 0), LENGTH - 2)
        return self._observation(), 0.0, self.steps >= LENGTH - 1

    def _observation(self, turned: int = 0) -> np.ndarray:
        clue = self.clue if self.steps == 0 else 0
        at_junction = self.position == LENGTH - 2 and not turned
        noise = np.random.default_rng(self.steps).integers(-1, 2)
        return np.array([turned, clue, at_junction, noise], np.float32)


def play(session: onnxruntime.InferenceSession, up: bool) -> float:
    """Plays an episode; returns its return."""
    about = json.loads(session.get_modelmeta().custom_metadata_map["rate"])
    assert about["environment"]["name"] == "tmaze"
    names = [output.name for output in session.get_outputs()]
    # What is in the state at timestep 0 does not matter.
    state = {part["name"]: np.zeros(part["shape"], part["dtype"]) for part in about["state"]}
    env, wanted, timestep, action = TMaze(), about["target_return"], 0, 0
    observation, ended, total = env.reset(up), False, 0.0
    while not ended:
        inputs = {
            "observation": observation[None],
            "previous_action": np.array([action]),
            "return_to_go": np.array([[wanted - total]], np.float32),  # "return_to_go": "decrease"
            "timestep": np.array([timestep]),
        }
        outputs = dict(zip(names, session.run(None, {**inputs, **state}), strict=True))
        state = {part["name"]: outputs[part["next"]] for part in about["state"]}
        action = int(outputs["action"][0])
        observation, reward, ended = env.step(action)
        total, timestep = total + reward, timestep + 1
    return total


if __name__ == "__main__":
    policy = onnxruntime.InferenceSession(sys.argv[1])
    returns = [play(policy, up=episode % 2 == 0) for episode in range(EPISODES)]
    print(f"mean return of {EPISODES} episodes of {LENGTH} steps: {np.mean(returns):.2f}")
