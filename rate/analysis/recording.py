"""Records one episode of a model step by step: observations, action probabilities, memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import gymnasium
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rate.analysis.states import memory_rows
from rate.backbones.segment_transformer import SegmentState
from rate.config import Decoding
from rate.envs.autoreset import without_autoreset
from rate.envs.outcomes import outcomes_in
from rate.heads import ActionHead, DiscreteHead, MultiDiscreteHead
from rate.policy import Policy
from rate.state import State

Array = NDArray[Any]
Pixels = NDArray[np.uint8]
_PIXEL_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Moment:
    """A recorded step of the episode, or its end.

    Attributes:
        step: Actions taken before it.
        segment: The segment it is in; models without segments have but one.
        first_in_view: The first step that the model can still attend to.
        picture: `(H, W, 3)`, the environment's rendered frame or an image observation, if any.
        observation: `(D,)`, the components of the observation that are not images.
        odds: The probabilities `(A,)` of the values of each component of the action, before top-k;
            of continuous actions, the action itself. Empty at the end.
        action: The action taken, a number per component; None at the end.
        return_to_go: The return-to-go that the model is conditioned on.
        earned: The sum of rewards so far.
    """

    step: int
    segment: int
    first_in_view: int
    picture: Pixels | None
    observation: Array
    odds: list[Array]
    action: Array | None
    return_to_go: float
    earned: float


@dataclass
class EpisodeRecord:
    """A recorded episode.

    Attributes:
        moments: Evenly spaced, in order, the last one after the last action.
        memories: The memory `(m, w)` that each segment read, if there is any; see
            `rate.analysis.states.memory_rows`.
        caches: The norms `(L, C)` of the cached states of each layer per segment, the newest last,
            NaN where the cache is not filled; if there is a cache.
        returns_to_go: The return-to-go at each step.
        steps: The number of actions.
        earned: The sum of rewards.
        finished: Whether the episode ended; False if `max_steps` cut it.
        outcome: The numbers in the environment's info at the end, for example `success`.
    """

    moments: list[Moment] = field(default_factory=list)
    memories: list[Array] = field(default_factory=list)
    caches: list[Array] = field(default_factory=list)
    returns_to_go: list[float] = field(default_factory=list)
    steps: int = 0
    earned: float = 0.0
    finished: bool = False
    outcome: dict[str, float] = field(default_factory=dict)


def record_episode(
    policy: Policy,
    env: gymnasium.vector.VectorEnv[Any, Any, Any],
    seed: int,
    *,
    max_steps: int | None = None,
    max_moments: int = 300,
    on_step: Callable[[int], None] | None = None,
) -> EpisodeRecord:
    """Play one episode and record it.

    Args:
        policy: With one row.
        env: With one row. Its method `render_row`, if it has one, gives the pictures.
        seed: Of the episode.
        max_steps: The most actions to take; None plays to the end.
        max_moments: The most moments to keep. Of a longer episode every second, fourth, ... step
            is kept. Memory is recorded at every segment.
        on_step: Called with the number of actions after each.

    Raises:
        UserError: If a reward is not finite, or the environment does not say what it does when an
            episode ends.
        ValueError: If the policy or the environment has more rows than one.
    """
    env = without_autoreset(env)
    if env.num_envs != 1 or len(policy.timesteps) != 1:
        raise ValueError("an episode is recorded in an environment and a policy of one row")
    # Gymnasium's vector environments take a list; its annotation does not say so.
    observations, _ = env.reset(seed=[seed])  # type: ignore[arg-type]
    policy.reset()
    rewards: Array | None = None
    recorder = _Recorder(policy, env, max_moments)
    record = recorder.record
    while not record.finished and record.steps != max_steps:
        step = policy.step(observations, rewards)
        recorder.note(observations, step.predictions, step.actions)
        observations, rewards, terminated, truncated, info = env.step(step.actions)
        if np.asarray(info.pop("restarted", False)).any():  # the simulator died: once more
            policy.reset()
            rewards, recorder = None, _Recorder(policy, env, max_moments)
            record = recorder.record
            continue
        recorder.took(float(rewards[0]))
        record.finished = bool(terminated[0] | truncated[0])
        if on_step is not None:
            on_step(record.steps)
    told = outcomes_in(info, np.ones(1, dtype=bool)) if record.finished else {}
    record.outcome = {name: float(values[0]) for name, (values, _) in told.items()}
    recorder.end(observations, rewards)
    return record


class _Recorder:
    """Reads a policy and its environment between two steps."""

    def __init__(self, policy: Policy, env: Any, max_moments: int) -> None:
        self.policy, self.env, self.record = policy, env, EpisodeRecord()
        self.config, self.backbone = policy.model.config, policy.model.backbone
        self.most, self.every = max(max_moments, 2), 1
        self.draws = hasattr(env, "render_row")

    def note(self, observations: Any, predictions: Tensor, actions: Array) -> None:
        """Record a step before its action is taken."""
        record, segment = self.record, self._segment
        if segment == max(len(record.memories), len(record.caches)):
            self._note_memory()
        record.returns_to_go.append(float(self.policy.returns_to_go[0, 0]))
        if record.steps % self.every:
            return
        moments = record.moments
        if len(moments) == self.most - 1:  # one more is kept for the end
            del moments[1::2]
            self.every *= 2
        if record.steps % self.every == 0:
            chances = odds(self.policy.model.head, predictions[0], self.policy.decoding)
            action = np.atleast_1d(actions[0])
            moments.append(self._moment(observations, segment, chances, action))

    def took(self, reward: float) -> None:
        """Add the reward of the action."""
        self.record.steps += 1
        self.record.earned += reward

    def end(self, observations: Any, rewards: Array | None) -> None:
        """Record the observation and the return-to-go after the last action."""
        policy = self.policy
        left = policy.returns_to_go if rewards is None else policy.returns_to_go_after(rewards)
        self.record.returns_to_go.append(float(left[0, 0]))
        segment = max(len(self.record.memories), len(self.record.caches), 1) - 1
        self.record.moments.append(self._moment(observations, segment, [], None))

    @property
    def _segment(self) -> int:
        if not self.config.carries_state:
            return 0
        return self.record.steps // self.config.context_length

    def _note_memory(self) -> None:
        state = getattr(self.policy.decoder.backbone, "state", None)
        if not isinstance(state, State):
            return
        if (memory := memory_rows(state)) is not None:
            self.record.memories.append(memory[0].float().cpu().numpy().copy())
        if isinstance(state, SegmentState) and state.cache is not None:
            norms = state.cache[0].float().norm(dim=-1).cpu().numpy()
            norms[:, : norms.shape[1] - int(cast("Tensor", state.cached)[0])] = np.nan
            self.record.caches.append(norms)

    def _moment(
        self, observations: Any, segment: int, chances: list[Array], action: Array | None
    ) -> Moment:
        picture = self.env.render_row(0) if self.draws else _picture(observations)
        if picture is None and self.draws and self.record.moments:
            picture = self.record.moments[-1].picture  # its process died of drawing
        return Moment(
            step=self.record.steps,
            segment=segment,
            first_in_view=self._first_in_view(segment),
            picture=picture,
            observation=_numbers(observations),
            odds=chances,
            action=action,
            return_to_go=self.record.returns_to_go[-1],
            earned=self.record.earned,
        )

    def _first_in_view(self, segment: int) -> int:
        length = self.config.context_length
        if not self.config.carries_state:
            return max(0, self.record.steps - length + 1)
        cached = getattr(self.config, "cache_length", 0)
        return max(0, segment * length - cached // self.backbone.tokens.count)


def odds(head: ActionHead, prediction: Tensor, decoding: Decoding) -> list[Array]:
    """Returns the probabilities of the values of each component of an action, without top-k.

    Args:
        head: The action head.
        prediction: Its output for one row.
        decoding: Its temperature applies when actions are sampled.

    Returns:
        An array `(A,)` per component; for a continuous action the prediction itself.
    """
    temperature = decoding.temperature if decoding.method == "sample" else 1.0
    logits = prediction.float().cpu()
    if isinstance(head, DiscreteHead):
        parts = [logits]
    elif isinstance(head, MultiDiscreteHead):
        parts = list(torch.split(logits, head.sizes))
    else:
        return [logits.numpy()]
    return [(part / temperature).softmax(-1).numpy() for part in parts]


def _picture(observations: Any) -> Pixels | None:
    """Returns the first image `(H, W, C)` in a batch of one observation, if there is one."""
    for array in _parts(observations):
        if array.dtype != np.uint8 or array.ndim != 3:
            continue
        if array.shape[-1] in _PIXEL_CHANNELS:
            return array.copy()
        if array.shape[0] in _PIXEL_CHANNELS:
            return np.ascontiguousarray(array.transpose(1, 2, 0))
    return None


def _numbers(observations: Any) -> Array:
    """Returns the components of a batch of one observation that are not images, as one vector."""
    parts = [part for part in _parts(observations) if part.dtype != np.uint8]
    return np.concatenate([np.zeros(0), *(np.asarray(p, np.float64).ravel() for p in parts)])


def _parts(observations: Any) -> list[Array]:
    many = observations.values() if isinstance(observations, dict) else [observations]
    return [np.asarray(array)[0] for array in many]
