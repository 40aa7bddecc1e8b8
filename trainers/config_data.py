"""Settings of the source of trajectories and of reading them: typed and validated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from datamodules.readers.roles import read_map
from rate.errors import ConfigError
from trainers.checks import at_least, choice

if TYPE_CHECKING:
    from trainers.config import RunConfig

Window = Literal["start", "random", "consecutive"]
Sampling = Literal["episodes", "steps"]
Unfinished = Literal["keep", "drop"]
Source = Literal["offline", "online"]


@dataclass(frozen=True)
class ReadingConfig:
    """What data of other formats do not tell of themselves; a store tells all of it.

    Attributes:
        columns: Which of their columns is what, `{theirs: ours}` (`--map THEIRS=OURS`): ours are
            observations, actions, rewards, terminated, truncated, dones, is_first, is_last,
            episode, lengths and none.
        time_limit: After how many steps the environment of the data ends an episode, where no
            column tells it.
        unfinished: What becomes of steps after the last end. None keeps them as a truncated
            episode, but for D4RL's files, whose published readers drop them.
        zero_rewards: Take data without rewards, as if all were 0.
        action_range: The bounds of continuous actions, `[low, high]`; None is the environment's,
            or the data's own.
        keep_actions: Keep actions that are outside of the bounds, instead of clipping them.
        skip_bad: Leave out episodes that are not valid.
        format: The name of the data's format, or the import path of your own, `module:FORMAT`,
            where it is not to be recognised.
    """

    columns: dict[str, str] = field(default_factory=dict)
    time_limit: int | None = None
    unfinished: Unfinished | None = None
    zero_rewards: bool = False
    action_range: list[float] | None = None
    keep_actions: bool = False
    skip_bad: bool = False
    format: str | None = None

    def __post_init__(self) -> None:
        if self.unfinished is not None:
            choice("data.reading.unfinished", self.unfinished, Unfinished)
        if self.time_limit is not None:
            at_least("data.reading.time_limit", self.time_limit, 1)
        for theirs, ours in self.columns.items():
            try:
                read_map(f"{theirs}={ours}")
            except ValueError as error:
                raise ConfigError(f"data.reading.columns: {error}.") from None
        bounds = self.action_range
        if bounds is not None and (len(bounds) != 2 or not bounds[0] < bounds[1]):
            raise ConfigError(
                f"data.reading.action_range is {bounds}; it must be the lower bound and the upper."
            )


@dataclass(frozen=True)
class DataConfig:
    """Where trajectories come from and how windows are cut from them.

    Attributes:
        source: Where batches come from: recorded trajectories (`offline`), or the environment, in
            which the model acts while it learns (`online`, `--source`; see the section `online`).
        root: Folder of data sets. Generated ones are made here at first use.
        store: What to train on (`--data`): a packed store, a file or folder of any other format,
            of which a store is made at first use, or the name of a public data set that is here.
            None generates the environment's own.
        reading: What data of other formats do not tell.
        dataset: Which data set, where an environment has several. Those of mujoco are D4RL's
            (`hopper-medium-v2`), Minari's (`mujoco/hopper/medium-v0`) and our own
            (`hopper-medium-sac`); `--dataset` sets the task as well.
        max_length: Length of the environment that data are generated in (see
            `evaluation.lengths`): the longest episode; for minigrid the largest grid. None is
            K * N; online it is the environment's own.
        num_episodes: Episodes to generate.
        seed: Seed of the generation.
        noise: How noisy the expert is: the share of steps at which it begins to act at random.
        expert: Import path of a policy that plays instead of the environment's own expert, with
            any environment: `my_package.policies:name`, of a policy of stable-baselines3, of a
            function from an observation to an action, or of a function that makes one. For
            memory_maze, `datamodules.memory_maze_explorer:MemoryMazeExplorer` searches for targets
            that it has not seen; its own expert knows them all.
        random_policy: Let a random policy make the data where an environment has no expert (atari
            but for Pong): poor data, to be asked for by name.
        agent_steps: Steps that an agent learns for before it generates (mujoco); None is the
            environment's own choice.
        workers: Processes that generate; None is one per core. 1 generates in this process, where
            nothing ends a simulator that hangs.
        min_return: Train only on episodes with at least this return.
        best_share: Train only on the share of the episodes with the largest returns, in (0, 1]:
            behaviour cloning is then "%BC" (Chen et al. 2021). Those that are as good as the last
            of them are among them.
        min_length: Train only on episodes of at least so many steps.
        normalise: Normalise vectors in observations by the data's mean and standard deviation (at
            least 0.001; a component that never varies is centred alone); the weights carry both.
        window: Cut windows from the `start` of episodes, or at `random` places, so that every step
            of an episode is equally likely to be drawn. `consecutive`: every row of a batch reads
            whole episodes, a window in each batch, and carries its state from batch to batch
            (truncated BPTT; Williams and Peng 1990): training then reads memories as old as acting
            does.
        sampling: Draw all `episodes` equally often, or so that all `steps` are, in proportion to
            the episodes' lengths, as published Decision Transformers do.
        frame_stack: Frames of an image environment that make one observation. Data keep single
            frames, and so does a batch on its way to the device.
        held_out: Share of the episodes that no model is trained on, and on which its predictions
            are measured, in [0, 1). Which ones depends on their numbers in the data alone.
    """

    source: Source = "offline"
    root: str = "data"
    store: str | None = None
    dataset: str | None = None
    max_length: int | None = None
    num_episodes: int = 2000
    seed: int = 0
    noise: float = 0.0
    expert: str | None = None
    random_policy: bool = False
    agent_steps: int | None = None
    workers: int | None = None
    min_return: float | None = None
    best_share: float | None = None
    min_length: int | None = None
    normalise: bool = False
    window: Window = "start"
    sampling: Sampling = "episodes"
    frame_stack: int = 1
    held_out: float = 0.05
    reading: ReadingConfig = field(default_factory=ReadingConfig)

    def __post_init__(self) -> None:
        choice("data.source", self.source, Source)
        choice("data.window", self.window, Window)
        choice("data.sampling", self.sampling, Sampling)
        at_least("data.frame_stack", self.frame_stack, 1)
        at_least("data.num_episodes", self.num_episodes, 2)
        if not 0 <= self.seed < 2**20:
            raise ConfigError(f"data.seed is {self.seed}; it must be in [0, {2**20}).")
        if not 0 <= self.held_out < 1:
            raise ConfigError(f"data.held_out is {self.held_out}; it must be in [0, 1).")
        if self.best_share is not None:
            if not 0 < self.best_share <= 1:
                raise ConfigError(f"data.best_share is {self.best_share}; it must be in (0, 1].")
            if self.min_return is not None:
                raise ConfigError(
                    "data.min_return and data.best_share both choose episodes by their returns; "
                    "leave one of them out."
                )
        if not 0 <= self.noise <= 1:
            raise ConfigError(f"data.noise is {self.noise}; it must be in [0, 1].")
        for name in ("workers", "min_length", "agent_steps"):
            if getattr(self, name) is not None:
                at_least(f"data.{name}", getattr(self, name), 1)
        if self.max_length is not None:
            at_least("data.max_length", self.max_length, 1)


def check_consecutive(run: RunConfig) -> None:
    """Check that the state of a run can be carried from batch to batch.

    Raises:
        ConfigError: If another setting is in the way.
    """
    training = run.training
    obstacles = {
        f"model.backbone={run.model.backbone}, which carries no state": (
            not run.model.carries_state
        ),
        "curriculum.enabled=true, whose stages change the windows": run.curriculum.enabled,
        "data.sampling=steps; every step is reached equally often": (run.data.sampling == "steps"),
        "training.cuda_graphs=always": training.cuda_graphs == "always",
        f"{training.devices} x {training.nodes} devices (training.devices=1 works)": (
            training.devices * training.nodes > 1
        ),
    }
    for obstacle, is_there in obstacles.items():
        if is_there:
            raise ConfigError(
                f"data.window=consecutive carries the state from batch to batch, which does "
                f"not go with {obstacle}. Change that, or use data.window=random."
            )
