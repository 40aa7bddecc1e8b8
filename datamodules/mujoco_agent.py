"""An SAC agent that learns a MuJoCo task; its experience and its episodes become data sets.

The agent is SAC (Haarnoja et al. 2018) of stable-baselines3, with small networks and a high
learning rate, as progress on a CPU depends on the updates per second. It is trained in rounds of
1000 steps in each of a few parallel rows. A round depends on earlier rounds alone; its weights and
experience are saved when it ends, so that an interrupted run is resumed exactly.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from zipfile import BadZipFile

import numpy as np
import torch

from datamodules.episodes import Array, DatasetError
from datamodules.mujoco_recording import Columns, Rows, split, stack
from datamodules.npy import BAD_HEADER
from rate.advice import install
from rate.envs.mujoco import PUBLISHED_LENGTH, Mujoco, MujocoOptions
from rate.errors import ConfigError
from rate.files import atomic_path
from rate.hashing import hash_counter
from rate.progress import OnProgress

if TYPE_CHECKING:
    from stable_baselines3 import SAC
    from stable_baselines3.common.buffers import ReplayBuffer

ROWS = 8  # episodes played side by side
LENGTH = PUBLISHED_LENGTH  # steps that each of them takes in a round
STEPS_PER_UPDATE = 2
BATCH = 128
_PHASE = "learning (SAC)"
_SETTINGS: dict[str, Any] = {
    "learning_rate": 1e-3,
    "batch_size": BATCH,
    "policy_kwargs": {"net_arch": [64, 64], "optimizer_kwargs": {"fused": True}},
}


class Learner:
    """A run of SAC, kept in a folder.

    Args:
        folder: The folder of its rounds.
        options: The task.
        seed: The seed of weights, exploration and episodes.
        steps: Environment steps over all rows and rounds; there is at least one round.

    Attributes:
        rounds: The number of rounds, which are counted from 1.

    Raises:
        ConfigError: If stable-baselines3 is missing.
    """

    def __init__(self, folder: Path, options: MujocoOptions, seed: int, steps: int) -> None:
        self.folder, self.seed, self.rounds = folder, seed, max(1, steps // (ROWS * LENGTH))
        self._rows = Rows(options, ROWS)
        self._model = _make_sac(options, seed)
        self._temperature = cast("torch.Tensor", self._model.log_ent_coef)
        self._buffer = _make_buffer(options, self.rounds * ROWS * LENGTH)
        self._model.replay_buffer = self._buffer

    def learn(self, tell: OnProgress) -> None:
        """Trains for the rounds that are not on disk.

        Args:
            tell: Told of progress, in steps of the environment. A round is on disk by the time
                that it has been told of as a whole.

        Raises:
            DatasetError: If a file of a round is damaged.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        done = next(k for k in count() if not self._weights(k + 1).exists())
        if done >= self.rounds:
            return
        each = ROWS * LENGTH
        tell(_PHASE, done * each, self.rounds * each)
        for number in range(1, done + 1):
            for step in _steps(self.experience(number)):
                self._remember(step)
        if done:
            self._load(done)
        for number in range(done + 1, self.rounds + 1):
            with _seeded(hash_counter(self.seed, number)):
                experience = self._learn_round(number, tell)
            with atomic_path(self._experience(number)) as draft, draft.open("xb") as file:
                np.savez(file, **experience)  # type: ignore[arg-type]
            with atomic_path(self._weights(number)) as draft, draft.open("xb") as file:
                torch.save(self._state(), file)
            tell(_PHASE, number * each, self.rounds * each)

    @torch.no_grad()
    def act(self, observations: Array) -> tuple[Array, Array]:
        """Samples `(N, A)` float32 actions for `(N, D)` observations, with log-probabilities."""
        actions, log_probs = self._model.actor.action_log_prob(torch.from_numpy(observations))
        return actions.numpy(), log_probs.numpy()

    @contextmanager
    def as_after(self, number: int, seed: int) -> Iterator[None]:
        """Returns the agent as it was after a round, with its own random numbers, to play with."""
        self._load(number)
        with _seeded(seed):
            yield

    def experience(self, number: int) -> Columns:
        """Returns the steps of a round, `(1000, ROWS, ...)` by D4RL's column.

        Raises:
            DatasetError: If its file is damaged.
        """
        path = self._experience(number)
        try:
            with np.load(path) as file:
                return {name: file[name] for name in file.files}
        except (OSError, EOFError, BadZipFile, *BAD_HEADER) as error:
            raise _damaged(path, error) from error

    def episodes(self, number: int) -> Iterator[Columns]:
        """Yields the episodes of a round. The last one of each row may be incomplete."""
        experience = self.experience(number)
        for row in range(ROWS):
            yield from split(experience, row)

    def mean_return(self, number: int) -> float:
        """Returns the mean return of the episodes of a round."""
        returns = [np.sum(e["rewards"], dtype=np.float64) for e in self.episodes(number)]
        return float(np.mean(returns))

    def policy(self, number: int) -> dict[str, Any]:
        """Returns the actor after a round: its weights and metadata, under D4RL's names."""
        self._load(number)
        actor: Any = self._model.actor
        layers = {"fc0": actor.latent_pi[0], "fc1": actor.latent_pi[2]}
        layers |= {"last_fc": actor.mu, "last_fc_log_std": actor.log_std}
        weights = {
            f"{name}/{part}": getattr(layer, part).detach().numpy().copy()
            for name, layer in layers.items()
            for part in ("weight", "bias")
        }
        return {**weights, "nonlinearity": "relu", "output_distribution": "tanh_gaussian"}

    def _learn_round(self, number: int, tell: OnProgress) -> Columns:
        """Plays 1000 steps in every row, and trains meanwhile."""
        seeds = iter(range(number << 20, (number + 1) << 20))
        for row in range(ROWS):
            self._rows.reset(row, next(seeds))
        steps = []
        for time in range(LENGTH):
            step = self._rows.step(self._explore if number == 1 else self.act)
            ended = step["terminals"] | step["timeouts"]
            if time == LENGTH - 1:
                step["timeouts"] = ~step["terminals"]
            steps.append(step)
            self._remember(step)
            for row in np.flatnonzero(ended).tolist():
                self._rows.reset(row, next(seeds))
            if time < LENGTH - 1:
                tell(_PHASE, ((number - 1) * LENGTH + time + 1) * ROWS, self.rounds * ROWS * LENGTH)
            if number > 1:
                self._model.train(ROWS // STEPS_PER_UPDATE, BATCH)
        return stack(steps)

    def _explore(self, observations: Array) -> tuple[Array, Array]:
        """Returns random actions, and their log-probabilities."""
        shape = (len(observations), *(self._model.action_space.shape or ()))
        actions = np.random.uniform(-1, 1, shape).astype(np.float32)  # noqa: NPY002 (`_seeded`)
        return actions, np.full(len(actions), -shape[1] * math.log(2), dtype=np.float32)

    def _remember(self, step: Columns) -> None:
        """Adds a step of every row to the replay buffer."""
        self._buffer.add(
            step["observations"],
            step["next_observations"],
            step["actions"],
            step["rewards"],
            step["terminals"] | step["timeouts"],
            [{"TimeLimit.truncated": bool(cut)} for cut in step["timeouts"]],
        )

    def _state(self) -> dict[str, Any]:
        return {**self._model.get_parameters(), "log_ent_coef": self._temperature.detach()}

    def _load(self, number: int) -> None:
        """Loads the weights of a round."""
        path = self._weights(number)
        try:
            state = torch.load(path, weights_only=True)
            with torch.no_grad():
                self._temperature.copy_(state.pop("log_ent_coef"))
            self._model.set_parameters(state)
        except (OSError, ValueError, RuntimeError, KeyError, EOFError) as error:
            raise _damaged(path, error) from error

    def _weights(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.pt"

    def _experience(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.npz"


def _make_sac(options: MujocoOptions, seed: int) -> SAC:
    try:
        from stable_baselines3 import SAC
        from stable_baselines3.common.logger import Logger
    except ModuleNotFoundError as error:
        raise ConfigError(
            "To make data of MuJoCo an agent learns first, with stable-baselines3, which this "
            f"Python does not have. Install it with: {install('mujoco')}"
        ) from error
    with _seeded(seed):
        model = SAC("MlpPolicy", Mujoco(options), buffer_size=1, device="cpu", **_SETTINGS)
    model.set_logger(Logger(folder=None, output_formats=[]))
    return model


def _make_buffer(options: MujocoOptions, steps: int) -> ReplayBuffer:
    from stable_baselines3.common.buffers import ReplayBuffer

    env = Mujoco(options)
    spaces = env.observation_space, env.action_space
    return ReplayBuffer(steps, *spaces, device="cpu", n_envs=ROWS)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators that stable-baselines3 uses, and restores them afterwards.

    PyTorch uses one thread meanwhile: for networks as small as these more threads are slower.
    """
    state, threads = np.random.get_state(), torch.get_num_threads()  # noqa: NPY002
    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        np.random.seed(seed % (1 << 32))  # noqa: NPY002
        try:
            yield
        finally:
            np.random.set_state(state)  # noqa: NPY002
            torch.set_num_threads(threads)


def _steps(experience: Columns) -> Iterator[Columns]:
    for time in range(len(experience["rewards"])):
        yield {name: column[time] for name, column in experience.items()}


def _damaged(path: Path, error: Exception) -> DatasetError:
    return DatasetError(f"{path}: cannot be read ({error}); delete the folder {path.parent}")
