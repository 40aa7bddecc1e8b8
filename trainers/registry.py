"""The environments that can be trained on. A new one is one entry here.

Nothing here imports PyTorch or a simulator, so that a command line is refused at once.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gymnasium import spaces

from rate.envs.spec import EnvironmentSpec
from rate.errors import ConfigError
from rate.progress import OnProgress
from trainers.config import DataConfig, RunConfig
from trainers.entries import EnvironmentEntry, Kind


@dataclass(frozen=True)
class Registration:
    """An environment by name, before anything of it is loaded.

    Attributes:
        options: Module and name of the dataclass of its settings.
        make: Its entry, from its settings and the number of processes for simulators.
        needs: The packages it needs.
        extra: The extra of this project that installs them.
        length_name: What a length is, for tables and figures.
    """

    options: tuple[str, str]
    make: Callable[[Any, int | None], EnvironmentEntry]
    needs: tuple[str, ...] = ()
    extra: str = ""
    length_name: str = "episode length (steps)"


def environment_options(name: str) -> type:
    """The dataclass of an environment's settings.

    Raises:
        ConfigError: If there is no environment of this name; names the nearest.
    """
    module, kind = _registration(name).options
    found: type = getattr(importlib.import_module(module), kind)
    return found


def length_name(name: str) -> str:
    """What a length is in an environment, for tables and figures."""
    return _registration(name).length_name


def get_environment(
    name: str,
    options: dict[str, Any] | None = None,
    workers: int | None = None,
    frame_stack: int = 1,
) -> EnvironmentEntry:
    """The entry of an environment; only its own packages are imported.

    Args:
        name: Its name.
        options: Its settings; what is left out has its default.
        workers: Processes that step a simulator; see `EvaluationConfig`.
        frame_stack: Frames that make one observation of what models see.

    Raises:
        ConfigError: If there is none of this name, a setting does not work, or its packages are
            not installed; says how to install them.
    """
    registration = _registration(name)
    missing = [package for package in registration.needs if find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"{name} needs {' and '.join(missing)}, which this Python does not have. Install it "
            f"with: make install EXTRAS={registration.extra} "
            f"(or pip install '.[{registration.extra}]'). "
            "python scripts/doctor.py tells what runs here."
        )
    try:
        settings = environment_options(name)(**(options or {}))
    except TypeError as error:  # of a model saved by another version; a file's are checked before
        raise ConfigError(f"{name} does not have these settings: {error}.") from error
    entry = registration.make(settings, workers)
    entry = replace(entry, spec=replace(entry.spec, name=name, options=asdict(settings)))
    return entry if frame_stack == 1 else _stacking(entry, frame_stack)


def environment_of(spec: EnvironmentSpec, workers: int | None = None) -> EnvironmentEntry:
    """The entry of the environment that a saved model was trained for, with its own target."""
    return replace(get_environment(spec.name, spec.options, workers, spec.frame_stack), spec=spec)


def hint_space(name: str, options: dict[str, Any]) -> spaces.Box:
    """The space of an environment's hidden state.

    Raises:
        ConfigError: If it does not say what its hidden state is, or between which bounds.
    """
    if "hint" in {field.name for field in fields(environment_options(name))}:
        observation = get_environment(name, {**options, "hint": True}).spec.observation_space
        hint = observation["hint"] if isinstance(observation, spaces.Dict) else None
        if isinstance(hint, spaces.Box) and hint.is_bounded():
            return hint
    raise ConfigError(
        f"loss.hint_weight is set, but {name} has no hidden state with bounds to be told "
        "(env.hint); set loss.hint_weight=0."
    )


def check_run(config: RunConfig) -> None:
    """Refuse a run whose environment cannot be as the settings say.

    Raises:
        ConfigError: If an episode length does not exist there, no episode fills a window, nothing
            here can play the data, or the loss asks for a hidden state that it does not tell.
    """
    if config.loss.hint_weight:
        hint_space(config.environment, config.env)
    entry = get_environment(config.environment, config.env, frame_stack=config.data.frame_stack)
    for name in ("lengths", "selection_lengths"):
        check_lengths(entry, getattr(config.evaluation, name), f"evaluation.{name}")
    if config.data.store is None:
        if entry.no_expert and not config.data.random_policy:
            raise ConfigError(
                f"{entry.no_expert} Data made here are of a random policy, which teaches little; "
                "to train on them all the same: --data.random_policy true."
            )
        longest = check_lengths(entry, [config.max_length], "data.max_length")
        # Where episodes have an end of their own, the last of several segments need not be full.
        own_end = longest < config.max_length and config.training.segments > 1
        spare = config.model.context_length - 1 if own_end else 0
        if longest < config.window - spare:
            raise ConfigError(
                f"data.max_length={config.max_length} is shorter than a training window of K * N = "
                f"{config.model.context_length} * {config.training.segments} = {config.window} "
                "steps: no episode would ever fill it. Lower model.context_length or "
                "training.segments, or raise data.max_length."
            )


def check_lengths(entry: EnvironmentEntry, lengths: list[int], name: str) -> int:
    """Find a length that the environment does not have before anything is rolled out.

    Returns:
        The most steps that an episode of one of the lengths has, 0 if there are none.

    Raises:
        ConfigError: If there is one, saying so of the setting `name`.
    """
    longest = 0
    for length in lengths:
        try:
            longest = max(longest, entry.steps_at(length))
        except ValueError as error:
            raise ConfigError(f"{name} has {length}: {error}.") from error
    return longest


def _stacking(entry: EnvironmentEntry, count: int) -> EnvironmentEntry:
    """The environment as it is to who sees its last frames at once."""
    from rate.envs.frame_stack import FrameStackVector, stacked_space

    space, make_vector = stacked_space(entry.spec.observation_space, count), entry.make_vector
    return replace(
        entry,
        spec=replace(entry.spec, observation_space=space, frame_stack=count),
        make_vector=lambda num_envs, length: FrameStackVector(make_vector(num_envs, length), count),
    )


def _registration(name: str) -> Registration:
    if name not in ENVIRONMENTS:
        close = difflib.get_close_matches(name, ENVIRONMENTS, n=1)
        hint = f"did you mean '{close[0]}'? " if close else ""
        raise ConfigError(
            f"There is no environment '{name}'; {hint}There are: {', '.join(ENVIRONMENTS)}."
        )
    return ENVIRONMENTS[name]


def _tmaze(options: Any, workers: int | None) -> EnvironmentEntry:
    from rate.envs.tmaze import TMAZE_SPEC, TMazeVector, check_length

    def prepare(data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        from datamodules.tmaze import generate_tmaze

        return generate_tmaze(data.root, max_length, data.num_episodes, data.seed, tell)

    return EnvironmentEntry(TMAZE_SPEC, TMazeVector, check_length, prepare)


def _atari(options: Any, workers: int | None) -> EnvironmentEntry:
    def make_vector(num_envs: int, length: int) -> Any:
        return _ATARI.load("AtariVector")(num_envs, options, length, workers)

    no_expert = (
        ""
        if options.rom == "pong"
        else (
            f"No expert plays {options.game} here. Train on public data: scripts/convert.py "
            f"data/dqn/{options.game}/1 data/{options.rom}, then --data.store data/{options.rom}."
        )
    )
    entry = _ATARI.entry(options, workers)
    return replace(entry, make_vector=make_vector, no_expert=no_expert)


def _mujoco(options: Any, workers: int | None) -> EnvironmentEntry:
    def prepare(data: DataConfig, max_length: int, tell: OnProgress) -> Path:
        from datamodules.mujoco import prepare_mujoco

        return prepare_mujoco(
            data.root,
            options,
            data.dataset,
            num_episodes=data.num_episodes,
            seed=data.seed,
            agent_steps=data.agent_steps,
            on_progress=tell,
        )

    return replace(_MUJOCO.entry(options, workers), prepare_data=prepare)


def _of(kind: Kind, *needs: str, **others: str) -> Registration:
    return Registration(kind.options, kind.entry, needs, **others)


_MINIGRID = Kind(
    "minigrid_memory",
    "MinigridMemory",
    "minigrid_memory_spec",
    shortest=7,
    num_envs=25,
    group=("cue", ("ball", "key")),
)
_VIZDOOM = Kind(
    "two_colors",
    "TwoColors",
    "two_colors_spec",
    num_envs=32,
    group=("red", ("green", "red")),
)
_MEMORY_MAZE = Kind("memory_maze", "MemoryMaze", "memory_maze_spec", num_envs=12)
_RETRIEVAL = Kind(
    "retrieval",
    "Retrieval",
    "retrieval_spec",
    shortest=3,
    vector="RetrievalVector",
    group=("cue", ("0", "1")),
)
_POPGYM = Kind("popgym", "Popgym", "popgym_spec", vector="PopgymVector", keep_hint=False)
_MUJOCO = Kind("mujoco", "Mujoco", "mujoco_spec", num_envs=20, vector="MujocoVector")
_ATARI = Kind("atari", "Atari", "atari_spec", num_envs=16)
ENVIRONMENTS = {
    "tmaze": Registration(("rate.envs.tmaze", "TMazeOptions"), _tmaze),
    "retrieval": _of(_RETRIEVAL),
    "minigrid": _of(_MINIGRID, "minigrid", extra="minigrid", length_name="size of the grid"),
    "vizdoom": _of(_VIZDOOM, "vizdoom", extra="vizdoom"),
    "memory_maze": _of(_MEMORY_MAZE, "memory_maze", "dm_control", extra="memory-maze"),
    "atari": Registration(_ATARI.options, _atari, ("ale_py",), extra="atari"),
    "mujoco": Registration(_MUJOCO.options, _mujoco, ("mujoco",), extra="mujoco"),
    "popgym": _of(_POPGYM, "popgym", "mazelib", extra="popgym"),
}
