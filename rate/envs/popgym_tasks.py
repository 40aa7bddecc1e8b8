"""The 48 tasks of POPGym: lengths of episodes and mean returns of our experts."""

from __future__ import annotations

from dataclasses import dataclass

DIFFICULTIES = ("Easy", "Medium", "Hard")


@dataclass(frozen=True)
class Task:
    """Constants of a task.

    Attributes:
        family: The task without its difficulty, for example `RepeatFirst`.
        difficulty: One of `DIFFICULTIES`.
        steps: Largest number of steps of an episode.
        expert_return: Mean return of our expert (`datamodules.popgym`) over 1000 episodes.
    """

    family: str
    difficulty: str
    steps: int
    expert_return: float

    @property
    def name(self) -> str:
        return self.family + self.difficulty


# By family: steps and expert returns, from easy to hard.
_FAMILIES: dict[str, tuple[tuple[int, int, int], tuple[float, float, float]]] = {
    "Autoencode": ((103, 207, 311), (1.0, 1.0, 1.0)),
    "Battleship": ((64, 100, 144), (0.53, 0.58, 0.60)),
    "Concentration": ((104, 208, 104), (0.81, 0.81, 0.70)),
    "CountRecall": ((51, 103, 207), (1.0, 1.0, 1.0)),
    "HigherLower": ((51, 103, 155), (0.53, 0.52, 0.51)),
    "LabyrinthEscape": ((1023, 1023, 1023), (0.96, 0.92, 0.87)),
    "LabyrinthExplore": ((1023, 1023, 1023), (0.97, 0.93, 0.87)),
    "MineSweeper": ((14, 30, 54), (0.77, 0.58, 0.57)),
    "MultiarmedBandit": ((200, 400, 600), (0.74, 0.82, 0.85)),
    "NoisyPositionOnlyCartPole": ((200, 200, 200), (1.0, 1.0, 1.0)),
    "NoisyPositionOnlyPendulum": ((200, 200, 200), (0.91, 0.91, 0.91)),
    "PositionOnlyCartPole": ((200, 400, 600), (1.0, 1.0, 1.0)),
    "PositionOnlyPendulum": ((200, 150, 100), (0.91, 0.88, 0.82)),
    "RepeatFirst": ((51, 415, 831), (1.0, 1.0, 1.0)),
    "RepeatPrevious": ((51, 103, 155), (1.0, 1.0, 1.0)),
    "VelocityOnlyCartPole": ((200, 400, 600), (1.0, 1.0, 1.0)),
}
TASKS = {
    task.name: task
    for family, (steps, returns) in _FAMILIES.items()
    for task in map(Task, [family] * 3, DIFFICULTIES, steps, returns)
}
