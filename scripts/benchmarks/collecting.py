"""Timing of the collector of training in an environment, in turns with a plain loop."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial

import gymnasium
import numpy as np

from rate.model import SequenceModel
from scripts.benchmarks.full_window import FullWindowPolicy
from scripts.benchmarks.rows import OURS, Row, Skipped, Subject
from scripts.benchmarks.timing import Step, Turns
from trainers.config_learning import ObjectiveConfig
from trainers.config_online import OnlineConfig
from trainers.registry import get_environment
from trainers.sources.exploration import Exploration, exploration_of
from trainers.sources.unrolls import UnrollCollector

PLAIN = "one environment, plain loop, full window"
_SEED = 1


class PlainLoop:
    """Acts in one environment and keeps the steps in a list; the window is computed every time.

    Args:
        env: The environment.
        policy: The policy.
    """

    def __init__(self, env: gymnasium.Env[object, object], policy: FullWindowPolicy) -> None:
        self._env, self._policy = env, policy
        self._seen, _ = env.reset(seed=_SEED)

    def collect(self, steps: int) -> list[tuple[object, object, float]]:
        """Returns the next steps: observation, action and reward of each."""
        found = []
        for _ in range(steps):
            seen, action = self._seen, self._policy.act(np.asarray(self._seen)[None])[0]
            self._seen, reward, terminated, truncated, _ = self._env.step(action)
            found.append((seen, action, float(reward)))
            if terminated or truncated:
                self._seen, _ = self._env.reset()
                self._policy.reset()
        return found


class CountedUnrolls:
    """A collector that counts the steps of its unrolls, which are shorter where an episode ends."""

    def __init__(self, collector: UnrollCollector) -> None:
        self._collector = collector
        self.unrolls = self.steps = 0

    def collect(self) -> None:
        """Collects an unroll of every row."""
        self.unrolls += 1
        self.steps += int(self._collector.collect().mask.sum())


def time_collector(subject: Subject, budget: float) -> list[Row]:
    """Acting for training in the environments of a configuration, an unroll at a time.

    Raises:
        ConfigError: If a simulator is not installed.
        Skipped: If the configuration has none.
    """
    own = subject.configuration
    if own.simulator is None:
        raise Skipped("no simulator of these shapes is registered")
    places = (own.simulator, *own.collected_in)
    return [
        replace(row, configuration=own.name if place == own.simulator else place[0])
        for place in places
        for row in _time_collector(subject, *place, budget / len(places))
    ]


def _time_collector(subject: Subject, name: str, length: int, budget: float) -> list[Row]:
    """Times acting in one environment, with the configuration's model for its spaces."""
    entry = get_environment(name, workers=subject.workers)
    steps = min(subject.run.window - 1, entry.steps_at(length))
    config = replace(subject.run.model, condition_on_return=False)
    spaces = entry.spec.observation_space, entry.spec.action_space
    model = SequenceModel(config, *spaces).eval().to(subject.device)
    rows = subject.num_envs or entry.num_envs or subject.rows
    counted: list[CountedUnrolls] = []
    with ExitStack() as stack:

        def build() -> Step:
            env = stack.enter_context(closing(entry.make_vector(rows, length)))
            kind = exploration_of(OnlineConfig(), ObjectiveConfig(), model.head)
            exploring = Exploration(kind, OnlineConfig(), model.head)
            collector = UnrollCollector(env, model, steps, exploring, lambda _: 0.0, _SEED)
            counted.append(CountedUnrolls(collector))
            return counted[0].collect

        def build_plain() -> Step:
            env = stack.enter_context(closing(entry.make_env(length)))
            return partial(PlainLoop(env, FullWindowPolicy(model, 0.0)).collect, steps)

        turns = Turns({PLAIN: build_plain, OURS: build}, subject.device, budget)
        turns.run()
    measured = subject.failed("collector", turns.failed)
    for variant, timing in turns.timings().items():
        size, real = 1, float(steps)  # steps of all rows
        if variant == OURS:
            size, real = rows, counted[0].steps / counted[0].unrolls
        note = f"unrolls of at most {steps} steps"
        row = subject.row("collector", variant, size=size, note=note)
        measured.append(row.timed(timing, real, steps))
    return measured
