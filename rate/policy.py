"""Autoregressive rollouts with a trained model: the one inference path of the project."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rate.batch import Observations, on_device
from rate.config import Decoding, ReturnToGo
from rate.envs.spec import EnvironmentSpec
from rate.export import Format, export
from rate.hashing import counter_uniforms, splitmix64
from rate.hub import Acting, fetch_model
from rate.model import SequenceModel
from rate.policy_checks import check_observations, check_rewards
from rate.returns_to_go import ReturnsToGo
from rate.tokenizers import StepInputs
from rate.weights import load_model

ArrayObservations = NDArray[np.generic] | dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class PolicyStep:
    """The result of a step of a policy.

    Attributes:
        actions: `(B, ...)` elements of the environment's action space.
        predictions: `(B, ...)` of the action head, on the model's device: logits of discrete
            actions, or the continuous action itself.
    """

    actions: NDArray[np.generic]
    predictions: Tensor


@contextmanager
def evaluating(model: SequenceModel) -> Iterator[None]:
    """Context of evaluation mode: no dropout, no memory noise. Restores the mode on exit.

    Autocast is off: a decoder's buffers have the precision of the weights.
    """
    training = model.training
    if training:  # `eval` walks through all modules, which takes as long as a small layer
        model.eval()
    try:
        device = next(model.parameters()).device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                yield
        else:
            yield
    finally:
        if training:
            model.train()


class Policy:
    """Acts in a batch of environments, each in an episode of its own, with one model.

    The policy holds the state of each row: memory (decoder state with its KV cache), return-to-go
    and step count. The environment gives observations and rewards. Dropout is off, and samples are
    a function of the seed, the episode and the step: acting does not touch the random state of
    training, and the actions of a row do not depend on the other rows.

        policy = Policy(model, num_envs=100, target_return=1.0)
        actions = policy.act(observations)
        while True:
            observations, rewards, ... = envs.step(actions)
            actions = policy.act(observations, rewards)

    Where an episode ends, `reset` begins the next one in its row.
    `rate.envs.autoreset.without_autoreset` makes any vector environment wait for it.

    Args:
        model: The trained model. It is put into evaluation mode while it acts and left as it was.
        num_envs: Rows of the batch.
        target_return: The return-to-go at the first step.
        return_to_go: The return-to-go at later steps: `decrease` (rewards are subtracted), `hold`,
            `clamp` or `per_segment`; see `rate.returns_to_go.ReturnsToGo`.
        trained_range: Minimum and maximum return-to-go of the training data, for `clamp`.
        decoding: How predictions become actions: argmax or sampling.
        seed: Seed of the sampling.
        recompute_window: See `rate.backbones.window_transformer.WindowTransformer.make_decoder`.

    Attributes:
        spec: The environment that the model is for, where it is known: an exported file names it.

    Raises:
        ValueError: If the target return is not finite, or `return_to_go` is unknown or lacks its
            range.
    """

    def __init__(
        self,
        model: SequenceModel,
        *,
        num_envs: int,
        target_return: float,
        return_to_go: ReturnToGo = "decrease",
        trained_range: tuple[float, float] | None = None,
        decoding: Decoding | None = None,
        seed: int = 0,
        recompute_window: bool = True,
    ) -> None:
        self.model, self.target_return = model, target_return
        self.spec: EnvironmentSpec | None = None
        self._wanted = ReturnsToGo(
            num_envs,
            target_return,
            return_to_go,
            segment=model.config.context_length,
            trained_range=trained_range,
        )
        self.decoding = decoding or Decoding()
        self.device = next(model.parameters()).device
        with evaluating(model):
            self.decoder = model.make_decoder(num_envs, exact=recompute_window)
        self.timesteps = torch.zeros(num_envs, dtype=torch.int64)
        self._seed = splitmix64(np.array([seed % (1 << 64)], np.uint64))
        self._keys, self._begun = np.zeros(num_envs, np.uint64), 0
        space = model.action_space
        self.actions = torch.as_tensor(
            np.zeros((num_envs, *(space.shape or ())), space.dtype), device=self.device
        )
        self.reset()

    @classmethod
    def from_pretrained(
        cls,
        source: Path | str,
        num_envs: int = 1,
        *,
        hub: Path | str | None = None,
        revision: str | None = None,
        device: torch.device | str = "cpu",
        seed: int = 0,
    ) -> Policy:
        """Returns a policy of a model from the hub, from a folder or from this package.

            policy = Policy.from_pretrained("tmaze-rate")

        Args:
            source: See `rate.hub.fetch_model`.
            num_envs: Rows of the batch.
            hub: A folder in place of the Hugging Face hub.
            revision: A branch, tag or commit on the hub.
            device: Where the model acts.
            seed: Seed of sampled actions.

        Raises:
            ConfigError: If there is no such model, or it names code that the user has not named.
            WeightsError: If its files are missing or damaged.
        """
        saved = load_model(fetch_model(source, hub=hub, revision=revision))
        acting = Acting.of(saved)
        is_told = saved.model.config.condition_on_return
        policy = cls(
            saved.model.to(device),
            num_envs=num_envs,
            target_return=saved.spec.target_return,
            return_to_go=acting.return_to_go if is_told else "hold",
            trained_range=saved.trained_range,
            decoding=saved.decoding,
            seed=seed,
            recompute_window=acting.recompute_window,
        )
        policy.spec = saved.spec
        return policy

    def export(
        self, path: Path | str, format: Format = "onnx", *, batch_size: int | None = 1
    ) -> Path:
        """Writes one step of acting as a file for other programs; see `rate.export`.

        A sliding window is computed again at every step (`recompute_window`), and the state is that
        of no episode: the file begins with its own.

        Args:
            path: The file to write.
            format: `onnx`, or `torch` for an archive of `torch.export`.
            batch_size: Rows, each in an episode of its own; None is any number of rows.

        Returns:
            The path.

        Raises:
            ConfigError: If the extra `export` is not installed, or the backbone cannot be exported.
            OSError: If the file cannot be written.
        """
        return export(self, path, format, batch_size=batch_size)

    @property
    def return_to_go_rule(self) -> dict[str, Any]:
        """The settings of `rate.returns_to_go.ReturnsToGo`, as plain JSON types."""
        wanted = self._wanted
        limits = None if wanted.limits is None else list(wanted.limits)
        return {"return_to_go": wanted.mode, "segment": wanted.segment, "trained_range": limits}

    @property
    def returns_to_go(self) -> Tensor:
        """What the model is given at this step, `(B, 1)` float64 on the host."""
        return self._wanted.values

    def returns_to_go_after(self, rewards: NDArray[np.generic]) -> Tensor:
        """What the model would be given at the next step, `(B, 1)`, after rewards `(B,)`."""
        following = copy.deepcopy(self._wanted)
        following.subtract(torch.as_tensor(rewards, dtype=torch.float64), self.timesteps)
        return following.values

    def reset(
        self,
        rows: NDArray[np.bool_] | Tensor | None = None,
        episodes: Sequence[int] | None = None,
    ) -> None:
        """Starts a new episode in the rows `(B,)` bool that are True; in all rows if None.

        Args:
            rows: Rows to reset.
            episodes: An integer that identifies the episode of every row, such as the environment's
                seed: actions are sampled the same again for the same one. None counts episodes.
        """
        count = len(self.timesteps)
        if episodes is None:
            episodes = range(self._begun, self._begun + count)
            self._begun += count
        begun = torch.ones(count, dtype=torch.bool)
        if rows is not None:
            begun = torch.as_tensor(rows, dtype=torch.bool, device="cpu")
        keys = splitmix64(self._seed + np.asarray(episodes, np.uint64))
        self._keys = np.where(begun.numpy(), keys, self._keys)
        self._wanted.reset(begun)
        self.timesteps[begun] = 0
        with evaluating(self.model):
            self.decoder.reset(begun)

    def act(
        self, observations: ArrayObservations, rewards: NDArray[np.generic] | None = None
    ) -> NDArray[np.generic]:
        """The next actions `(B, ...)`, elements of the action space; see `step`."""
        return self.step(observations, rewards).actions

    @torch.no_grad()
    def step(
        self, observations: ArrayObservations, rewards: NDArray[np.generic] | None = None
    ) -> PolicyStep:
        """The next actions and the model's predictions.

        Args:
            observations: `(B, *obs)`, or a dictionary of such arrays.
            rewards: `(B,)` rewards of the last actions; None at the first step. Those of rows that
                have been reset since are ignored.

        Raises:
            ValueError: If an array has another shape, rewards are missing after the first step of
                a model whose return-to-go depends on them, or a reward is not finite.
        """
        begun = self.timesteps.numpy() > 0
        check_observations(observations, self.model.observation_space, len(begun))
        is_asked = self.model.config.condition_on_return and self._wanted.uses_rewards
        check_rewards(rewards, begun, required=is_asked)
        if rewards is not None:
            earned = torch.as_tensor(rewards, dtype=torch.float64)
            self._wanted.subtract(earned, self.timesteps)
        with evaluating(self.model):
            predictions = self.decoder.step(
                StepInputs(
                    self.actions,
                    on_device(self.returns_to_go.float(), self.device),
                    self._to_tensors(observations),
                    on_device(self.timesteps, self.device),
                )
            )
        uniforms = None
        if self.decoding.method == "sample":
            parts = math.prod(self.model.action_space.shape or ())
            numbers = counter_uniforms(self._keys, self.timesteps.numpy(), parts)
            uniforms = on_device(torch.from_numpy(numbers), self.device)
        self.timesteps += 1
        self.actions = self.model.head.decode(predictions, self.decoding, uniforms)
        # A copy: the caller may write into its actions, and these are inputs of the next step.
        actions = self.actions.cpu().numpy().astype(self.model.action_space.dtype)
        return PolicyStep(actions, predictions)

    def _to_tensors(self, observations: ArrayObservations) -> Observations:
        if isinstance(observations, dict):
            tensors = {key: torch.as_tensor(value) for key, value in observations.items()}
            return {key: on_device(tensor, self.device) for key, tensor in tensors.items()}
        return on_device(torch.as_tensor(observations), self.device)
