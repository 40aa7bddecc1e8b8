"""Distributed memory: bits that are shown one by one are to be counted, and their majority told.

Environment `memory_custom` of T. Makkink, "Evaluating Transformers as Memory Systems in RL".
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from gymnasium import spaces

from rate.envs.tasks.base import Array, EpisodeSampler, Outcome, State, Task, TaskOptions
from rate.errors import ConfigError

# Length and number of bits, by the published names.
SETTINGS = {
    f"memory_custom/{number}": setting
    for number, setting in enumerate(
        [
            *[(3, 3), (5, 3), (5, 5), (10, 3), (10, 5), (10, 7), (10, 9)],
            *[(30, 3), (30, 5), (30, 7), (30, 9), (30, 17), (30, 25)],
        ]
    )
}
CUE_STEPS = ("published", "resample")


@dataclass(frozen=True)
class DistributedMemoryOptions(TaskOptions):
    """Settings of `DistributedMemory`.

    Attributes:
        setting: The published setting, `memory_custom/0` to `memory_custom/12`: a length and a
            number of bits.
        num_bits: The number of bits, odd; None is that of the setting.
        cue_steps: At which steps bits are shown: the `published` ones, the same in all episodes of
            a length; or `resample`, drawn in each episode.
    """

    setting: str = "memory_custom/4"
    num_bits: int | None = None
    cue_steps: str = "published"

    def __post_init__(self) -> None:
        self.check_choice("setting", tuple(SETTINGS))
        self.check_choice("cue_steps", CUE_STEPS)
        if self.num_bits is not None:
            self.check_count("num_bits", 1)
            if self.num_bits % 2 == 0:
                raise ConfigError(
                    f"env.num_bits is {self.num_bits}; it must be odd, so that there is a majority."
                )


class DistributedMemory(Task[DistributedMemoryOptions]):
    """The majority of bits that are shown at some of `length` steps is to be told at the last.

    Observations are `(2 + num_bits,)` float32: the time left `1 - t / length`, 0, and a component
    for each bit, +1 or -1 at the step that shows it. Actions are 0 and 1; the last of the `length`
    steps must be 1 if most bits are +1: the reward is then +1, else -1. Where a bit is shown at the
    last step, a policy without memory has a positive mean return, of up to .5.

    Reset options: `context`, the bits `(num_bits,)`; with `cue_steps="resample"` also `cue_steps`,
    the steps `(num_bits,)`.

    Raises:
        ConfigError: Also if resampled steps are to have episodes of several lengths.
    """

    options_class = DistributedMemoryOptions
    num_actions = 2

    def __init__(self, options: DistributedMemoryOptions | None = None, length: Any = None) -> None:
        super().__init__(options, length)
        if self.options.cue_steps == "resample" and len(set(self.lengths)) > 1:
            raise ConfigError(
                f"env.cue_steps=resample has episodes of one length, and not {self.lengths}."
            )

    @property
    def num_bits(self) -> int:
        """The number of bits."""
        return self.options.num_bits or SETTINGS[self.options.setting][1]

    @property
    def usual_length(self) -> int:
        return max(SETTINGS[self.options.setting][0], self.num_bits)

    @property
    def shortest(self) -> int:
        return self.num_bits

    @property
    def own_space(self) -> spaces.Box:
        low = np.concatenate([[0, 0], -np.ones(self.num_bits)]).astype(np.float32)
        high = np.concatenate([[1, 0], np.ones(self.num_bits)]).astype(np.float32)
        return spaces.Box(low, high, dtype=np.float32)

    @property
    def privileged_space(self) -> spaces.Box:
        return spaces.Box(-1, 1, (self.num_bits,), np.float32)

    def steps(self, length: Any) -> Any:
        return length

    def sample(self, sampler: EpisodeSampler, length: Array) -> State:
        count = self.num_bits
        if self.options.cue_steps == "resample":
            cues = np.sort(sampler.distinct("cue_steps", np.arange(self.lengths[0]), count), axis=1)
        else:
            cues = np.array([_cue_steps(each, count) for each in length.tolist()])
            cues = cues.reshape(len(length), count)
        return {"context": sampler.choice("context", [-1, 1], (count,)), "cue_steps": cues}

    def observe(self, state: State) -> Array:
        time = state["time"]
        seen = np.zeros((len(time), *self.own_shape), dtype=np.float32)
        seen[:, 0] = 1 - time / state["length"]
        seen[:, 2:] = state["context"] * (state["cue_steps"] == time[:, None])
        return seen

    def reveal(self, state: State) -> Array:
        return state["context"].astype(np.float32)

    def advance(self, state: State, actions: Array) -> Outcome:
        last = state["time"] == state["length"] - 1
        right = actions == self._answer(state)
        return Outcome(np.where(last, np.where(right, 1.0, -1.0), 0.0), last, last & right)

    def oracle(self, state: State) -> Array:
        """Returns the answer at the last step, and 0 before, so that actions do not tell it."""
        return np.where(state["time"] == state["length"] - 1, self._answer(state), 0)

    def _answer(self, state: State) -> Array:
        answer: Array = (state["context"].sum(axis=1) > 0).astype(np.int64)
        return answer


@cache
def _cue_steps(length: int, count: int) -> tuple[int, ...]:
    """Returns the published steps: Python's sample of the seed 0."""
    return tuple(sorted(random.Random(0).sample(range(length), count)))
