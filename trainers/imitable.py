"""How much of an expert can be learnt from what the agent sees (`rate validate --imitable`).

Four students imitate the expert of a data set by behaviour cloning, and predict its actions in
episodes that none of them was trained on:

- the history: an LSTM that sees observations and previous actions from the start of the episode on;
- the observation: an MLP that sees the present observation alone;
- the observation and the previous action: an expert that repeats its actions looks imitable;
- these and the privileged state, where the data have it: what an omniscient expert knows.

What the last predicts better than the first, no agent can learn from what it sees. What the first
predicts better than the second is what memory is worth.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
import torch
from gymnasium import spaces
from torch import Tensor

from datamodules.episodes import (
    DatasetError,
    Episode,
    from_items,
    observation_items,
    observation_spaces,
)
from datamodules.held_out import HeldOut, held_out_episodes
from datamodules.source import Source, ValidEpisodes
from datamodules.step_arrays import StepArrays
from datamodules.store import Store
from datamodules.writing import write_store
from rate.architecture import make_config
from rate.envs.spec import EnvironmentSpec
from rate.heads import ContinuousHead
from rate.model import SequenceModel
from rate.progress import OnProgress, no_progress
from rate.spaces import choices_of
from rate.weights import load_model
from trainers.config import (
    NO_ENVIRONMENT,
    DataConfig,
    EvaluationConfig,
    LoggingConfig,
    OptimizerConfig,
    RunConfig,
    TrainingConfig,
)
from trainers.train import train

Array = npt.NDArray[Any]
Shown = Literal["own", "previous", "privileged"]
PRIVILEGED, PREVIOUS, OWN = "privileged", "previous_action", "observation"  # keys of observations
HISTORY, PRESENT = "the whole history", "the present observation"
REPEATED, INFORMED = f"{PRESENT} and the previous action", "these and the privileged state"

_HELD_OUT = 0.2  # share of the episodes to predict; of the others, the share to choose weights on
_LEAST = 10  # episodes
_MOST = 100_000  # steps: training does not read many more
_WINDOW, _UPDATE = 256, 2048  # steps of the longest window, and of an update
_MEASUREMENTS = 5  # of which the best weights are kept


@dataclass(frozen=True)
class Student:
    """A student.

    Attributes:
        name: What it sees, for people.
        backbone: `lstm` or `mlp`.
        shown: What its observations hold: the agent's `own`, with the `previous` action, and with
            the `privileged` state as well.
    """

    name: str
    backbone: str
    shown: Shown


STUDENTS = (
    Student(HISTORY, "lstm", "own"),  # the LSTM reads previous actions as tokens
    Student(PRESENT, "mlp", "own"),
    Student(REPEATED, "mlp", "previous"),
    Student(INFORMED, "mlp", "privileged"),
)


@dataclass(frozen=True)
class Prediction:
    """How well a student predicts the expert in held-out episodes.

    Attributes:
        errors: `(E,)` the number of wrong actions in each episode; for continuous actions the sum
            of the squared errors in units of the actions' range.
        total: The errors of all episodes for a score of 0: the number of steps; for continuous
            actions the sum of the squared differences from the mean action.
        continuous: Whether actions are continuous.
    """

    errors: Array
    total: float
    continuous: bool

    @property
    def score(self) -> float:
        """The share of the actions, or of their variance, that is predicted."""
        return 1 - float(self.errors.sum()) / self.total

    def exceeds(self, other: Prediction) -> bool:
        """Whether the score is higher by more than two standard errors, paired by episode."""
        gains = other.errors - self.errors
        return bool(gains.sum() > 2 * np.sqrt(len(gains)) * gains.std(ddof=1))


def imitable(
    source: Source, episodes: int, steps: int, budget: int, tell: OnProgress = no_progress
) -> dict[str, Prediction]:
    """Returns the predictions of the students by name, in the order of `STUDENTS`.

    Every student has the same budget, and the same episodes to learn from and to predict. The
    weights that are measured are the best of five on a part of the training episodes.

    Args:
        source: The data, all of whose episodes are valid.
        episodes: Their number.
        steps: The number of their steps.
        budget: Updates of each student, of about 2,000 steps.
        tell: Called with the progress.

    Raises:
        DatasetError: If there are too few episodes to hold some out, or actions never vary.
    """
    if episodes < _LEAST:
        raise DatasetError(
            f"{source.path}: {episodes} episodes are too few to hold some out, which --imitable "
            f"measures on; it needs at least {_LEAST}"
        )
    stride = max(1, min(-(-steps // _MOST), episodes // _LEAST))
    chosen = range(0, episodes, stride)
    held_out = {chosen[i] for i in held_out_episodes(len(chosen), _HELD_OUT)}
    has_state = PRIVILEGED in observation_spaces(source.spec.observation_space)
    rest = set(chosen) - held_out
    found: dict[str, Prediction] = {}
    for student in STUDENTS:
        if student.shown == "privileged" and not has_state:
            continue
        with TemporaryDirectory(prefix="rate-imitable-") as name, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on settings that are not the user's
            folder = Path(name)
            stores = [
                _write(source, folder / part, student.shown, kept)
                for part, kept in (("train", rest), ("held_out", held_out))
            ]
            model = _train(student, stores[0], budget, folder, tell)
            found[student.name] = _predict(model, stores[1])
    return found


def _write(source: Source, path: Path, shown: Shown, kept: set[int]) -> Store:
    """Writes the chosen episodes as a store, with what a student sees as observations."""
    episodes = (e for number, e in enumerate(ValidEpisodes(source)) if number in kept)
    known = observation_spaces(source.spec.observation_space)
    own = {key or OWN: space for key, space in known.items() if key != PRIVILEGED}
    action_space = source.spec.action_space
    if shown != "own":
        choices = choices_of(action_space)
        size = int(np.prod(action_space.shape or ()))
        own[PREVIOUS] = (
            spaces.Box(-np.inf, np.inf, (size,), np.float32)
            if choices is None
            else spaces.MultiDiscrete([size + 1 for size in choices.sizes])  # 0 stands for none
        )
    if shown == "privileged":
        own[PRIVILEGED] = known[PRIVILEGED]
    alone = len(own) == 1

    def seen(episode: Episode) -> Episode:
        parts = {
            key or OWN: value for key, value in observation_items(episode.observations).items()
        }
        if shown != "own":
            parts[PREVIOUS] = _previous_actions(episode.actions, action_space)
        parts = {"" if alone else key: parts[key] for key in own}
        return replace(episode, observations=from_items(parts), last_observation=None)

    space = next(iter(own.values())) if alone else spaces.Dict(list(own.items()))
    spec = EnvironmentSpec("imitable", space, action_space, source.spec.target_return)
    return write_store(map(seen, episodes), path, spec, {"source": str(source.path)})


def _previous_actions(actions: Array, space: spaces.Space[Any]) -> Array:
    """Returns the action before each step, `(T, A)`; zeros at the first.

    Whole numbers are counted from 1 on, so that 0 stands for none.
    """
    flat = actions.reshape(len(actions), -1)  # (T, A)
    choices = choices_of(space)
    if choices is not None:
        flat = flat.astype(np.int64) - np.array(choices.starts) + 1
    else:
        flat = flat.astype(np.float32)
    return np.concatenate((np.zeros_like(flat[:1]), flat[:-1]))


def _train(
    student: Student, store: Store, budget: int, folder: Path, tell: OnProgress
) -> SequenceModel:
    """Returns a student, trained in a run in `folder`.

    The LSTM carries its state through whole episodes. Its gradient reaches back to the start of
    windows of at most 256 steps.
    """
    window = min(int(store.lengths.max()), _WINDOW)
    has_memory = student.backbone == "lstm"
    config = RunConfig(
        environment=NO_ENVIRONMENT,
        model=make_config(
            backbone=student.backbone,
            tokenizer="pairs",
            context_length=window,
            image_channels=16,
            image_norm=True,  # as the parts of a dictionary are, which some students see
            condition_on_return=False,
        ),
        data=DataConfig(
            store=str(store.path),
            normalise=bool(store.normalisation),
            window="consecutive" if has_memory else "random",
            sampling="episodes" if has_memory else "steps",
            held_out=_HELD_OUT,
        ),
        training=TrainingConfig(
            segments=1,
            batch_size=min(_UPDATE // window, 64),
            max_steps=budget,
            checkpoint_every_n_steps=budget,
        ),
        optimizer=OptimizerConfig(learning_rate=3e-3),
        evaluation=EvaluationConfig(held_out_every_n_steps=max(1, budget // _MEASUREMENTS)),
        logging=LoggingConfig(output=str(folder), tensorboard=False, progress=False),
    )

    def report(phase: str, done: int, total: int) -> None:
        tell(f"learning from {student.name}", done, total)

    return load_model(train(config, report=report).folder).model


@torch.no_grad()
def _predict(model: SequenceModel, store: Store) -> Prediction:
    """Measures a model on all episodes of a store, each from its start to its end."""
    longest = int(store.lengths.max())
    every = HeldOut(store, 1.0, longest)
    size = max(1, _WINDOW * 8 // longest)
    source = every.batches(StepArrays.of(store), size, store.num_episodes)
    errors: list[Tensor] = []
    for index in range(len(source)):
        batch = source.batch(index)
        predictions = model.head(model.features(batch)[0])
        wrong = (
            model.head.loss(predictions, batch.actions)
            if isinstance(model.head, ContinuousHead)
            else ~model.head.correct(predictions, batch.actions)
        )  # (B, T)
        errors.append((wrong * batch.mask).double().sum(1))
    total, continuous = float(store.num_steps), isinstance(model.head, ContinuousHead)
    if continuous:
        actions = torch.from_numpy(np.array(store.arrays["actions"])).flatten(1)[None]  # (1, S, A)
        mean = actions.mean(1, keepdim=True).expand_as(actions)
        total = float(cast("ContinuousHead", model.head).loss(mean, actions).double().sum())
        if not total:
            raise DatasetError(
                f"{store.manifest['provenance']['source']}: the actions of the held-out episodes "
                "never vary: there is nothing to imitate"
            )
    return Prediction(torch.cat(errors).numpy(), total, continuous)
