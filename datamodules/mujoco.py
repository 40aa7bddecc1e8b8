"""MuJoCo data sets: files of D4RL and Minari, found by name, and our own, played by an agent.

Our own are files in D4RL's format, of the same qualities: `expert` is played by the best agent of a
run, `medium` by the first with 40 % of its return (D4RL's: 35 to 68 %), `medium-replay` is the
experience until then, and `medium-expert` is `medium` and `expert` together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.collector import expert_seeds
from datamodules.episodes import DatasetError, Episode
from datamodules.local_data import find_d4rl, find_minari
from datamodules.mujoco_names import DatasetName, read_name
from datamodules.options import Options
from datamodules.readers.minari_source import (
    UNKNOWN_VERSION,
    recorded_environment,
    reference_scores,
)
from datamodules.source import Source, ValidEpisodes
from datamodules.store import Store
from datamodules.writing import make_once, write_store
from rate.envs.mujoco import MujocoOptions, mujoco_spec
from rate.envs.recorded import Recorded, mujoco_recorded, mujoco_settings
from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.files import file_sha256, load_json
from rate.locks import locked
from rate.progress import OnProgress, no_progress, with_progress

if TYPE_CHECKING:
    from datamodules.mujoco_agent import Learner
    from datamodules.mujoco_recording import Columns

MEDIUM = 0.4  # how good a medium agent is, of the way from chance to the best
STEPS = {"halfcheetah": 200_000, "hopper": 300_000, "walker2d": 400_000}
VERSION = 1  # of how data are made
ROWS = 10  # episodes played side by side


def prepare_mujoco(
    root: Path | str,
    options: MujocoOptions,
    dataset: str | None = None,
    *,
    num_episodes: int = 100,
    seed: int = 0,
    agent_steps: int | None = None,
    on_progress: OnProgress = no_progress,
) -> Path:
    """Returns the store of a data set, which is made at first use.

    Args:
        root: The data root.
        options: The environment.
        dataset: The name of the data set; None is `TASK-medium-sac`.
        num_episodes: The number of episodes of our own data.
        seed: The seed of our own data.
        agent_steps: Training steps of the agent; None is the task's default.
        on_progress: Called with the progress: rounds of learning, steps of a round, episodes.

    Raises:
        ConfigError: If there is no such data set, or it is not of the task.
        DatasetError: If its file is missing or damaged; says how to get it.
    """
    known = read_name(dataset or f"{options.task}-medium-sac")
    if known.task != options.task:
        raise ConfigError(
            f"data.dataset {known.name} is of {known.task}, but env.task is {options.task}; "
            f"--dataset {known.name} sets both."
        )
    if known.source == "sac":
        steps = agent_steps or STEPS[options.task]
        own = OwnData(Path(root), options, known, num_episodes, seed, steps)
        return own.prepare(on_progress)
    return _convert(Path(root), options, known, on_progress)


def _convert(
    root: Path, options: MujocoOptions, known: DatasetName, on_progress: OnProgress
) -> Path:
    """Converts a public file to a store."""
    store = root / f"mujoco-{known.name.replace('/', '-')}"
    try:
        path = (find_d4rl if known.source == "d4rl" else find_minari)(root, known.name)
    except DatasetError:
        if store.exists():  # of a file that was removed since
            return store
        raise
    file = path if path.is_file() else path / "data" / "main_data.hdf5"
    provenance: dict[str, Any] = {"source": f"{known.source} {known.name}"}
    if file.is_file():
        provenance["sha256"] = file_sha256(file)

    def make() -> None:
        from datamodules.formats import open_source

        source = open_source(path)
        known = source.spec.options.get("task") == options.task
        spec = source.spec if known else mujoco_spec(options)
        episodes = with_progress(
            _episodes(source, spec), "packing", source.num_episodes, on_progress
        )
        write_store(episodes, store, spec, provenance)

    return make_once(store, provenance, make)


def _episodes(source: Source, spec: EnvironmentSpec) -> Iterator[Episode]:
    """Yields the episodes of a source, with actions clipped to the bounds of a task."""
    episodes = ValidEpisodes(replace(source, spec=spec))
    yield from episodes
    episodes.clipped.warn(source.path)


def minari_settings(root: Path, known: DatasetName) -> dict[str, Any]:
    """Returns the settings of the environment of a Minari data set, and its reference scores.

    Settings that the data set does not give are those of Minari's own data.

    Raises:
        DatasetError: If it is not there, or cannot be read.
    """
    path = find_minari(root, known.name) / "data" / "metadata.json"
    try:
        metadata = load_json(path)
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path}: cannot be read ({error}); get the data set again") from error
    settings: dict[str, Any] = {"task": known.task, "version": UNKNOWN_VERSION}
    recorded = Recorded.parse(recorded_environment(metadata))
    if recorded is not None and recorded.task == known.task:
        settings = mujoco_settings(recorded)
    return settings | reference_scores(metadata)


def has_published_target(store: Store) -> bool:
    """Whether published work may say what to ask for: not for Minari's data, nor for our own."""
    known = store.manifest["provenance"]
    of_minari = known.get("format") == "minari" or str(known.get("source")).startswith("minari ")
    return not (of_minari or "collector" in known)


def _simulator(options: MujocoOptions) -> dict[str, Any]:
    """Returns the settings that the data depend on, without the names of scores."""
    settings: dict[str, Any] = {"task": options.task, "version": options.version}
    return settings | ({"arguments": options.arguments} if options.arguments else {})


class OwnData:
    """A data set that is made here.

    Args:
        root: The data root.
        options: The environment.
        known: The data set.
        num_episodes: The number of episodes to play.
        seed: The seed of the agent and the episodes.
        steps: Training steps of the agent.
    """

    def __init__(
        self,
        root: Path,
        options: MujocoOptions,
        known: DatasetName,
        num_episodes: int,
        seed: int,
        steps: int,
    ) -> None:
        self.root, self.known, self.num_episodes, self.seed = root, known, num_episodes, seed
        self.options, self.steps = options, steps
        self.provenance: dict[str, Any] = {
            "source": f"SAC on {options.task}-{options.version}",
            "collector": f"mujoco-sac-{VERSION}",
            "quality": known.quality,
            **_simulator(options),
            "num_episodes": num_episodes,
            "seed": seed,
            "agent_steps": steps,
        }
        text = json.dumps(self.provenance, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:8]
        name = f"{known.name}-{options.version}-{num_episodes}-seed{seed}-{digest}"
        self.store, self.file = root / f"mujoco-{name}", root / "mujoco" / f"{name}.hdf5"

    def prepare(self, tell: OnProgress) -> Path:
        """Makes the store, and beside it the file in D4RL's format, unless they exist."""

        def make() -> None:
            from datamodules.formats import open_source

            if not self.file.is_file():
                self._make_file(tell)
            spec = replace(
                mujoco_spec(self.options),
                options=_simulator(self.options),
                recorded=mujoco_recorded(self.options),
            )
            source = open_source(self.file, Options(spec=spec))
            episodes = with_progress(_episodes(source, spec), "packing", source.num_episodes, tell)
            write_store(episodes, self.store, spec, self.provenance)

        return make_once(self.store, self.provenance, make)

    def _make_file(self, tell: OnProgress) -> None:
        from datamodules.mujoco_agent import Learner
        from datamodules.mujoco_recording import write_d4rl

        run = f"agent-{self.options.task}-{self.options.version}-seed{self.seed}-{VERSION}"
        folder = self.root / "mujoco" / run
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / ".lock", f"learning in {folder}"):
            learner = Learner(folder, self.options, self.seed, self.steps)
            learner.learn(tell)
        medium, best = _rounds(learner)
        metadata: dict[str, Any] = {"algorithm": "SAC", "iteration": medium}
        if self.known.quality == "medium-replay":
            learnt = range(1, medium + 1)
            replay = (episode for number in learnt for episode in learner.episodes(number))
            write_d4rl(self.file, replay, metadata)
            return
        chosen = {"medium": [medium], "expert": [best]}.get(self.known.quality, [medium, best])
        metadata["iteration"] = chosen[-1]
        for name, value in learner.policy(chosen[-1]).items():
            metadata[f"policy/{name}"] = value
        episodes = with_progress(self._play(learner, chosen), "collecting", self.num_episodes, tell)
        write_d4rl(self.file, episodes, metadata)

    def _play(self, learner: Learner, chosen: Sequence[int]) -> Iterator[Columns]:
        """Yields episodes of the agent after the chosen rounds, equally many of each."""
        from datamodules.mujoco_recording import Rows, play

        rows, seeds = Rows(self.options, ROWS), expert_seeds(self.num_episodes, self.seed)
        for number, part in zip(chosen, np.array_split(seeds, len(chosen)), strict=True):
            for first in range(0, len(part), ROWS):
                batch = part[first : first + ROWS].tolist()
                with learner.as_after(number, seed=batch[0]):
                    episodes = play(learner.act, rows, batch)
                yield from episodes


def _rounds(learner: Learner) -> tuple[int, int]:
    """Returns the rounds after which an agent was `medium`, and the best."""
    returns = [learner.mean_return(number) for number in range(1, learner.rounds + 1)]
    chance, best = returns[0], max(returns)
    wanted = chance + MEDIUM * (best - chance)
    medium = next(number for number, mean in enumerate(returns, start=1) if mean >= wanted)
    return medium, 1 + returns.index(best)
