"""The records of the memory tasks (`rate.envs.tasks`), made from their classes."""

from __future__ import annotations

from dataclasses import fields, replace
from functools import cache
from importlib import import_module
from typing import Any, ClassVar

from rate.envs.spec import EnvironmentSpec
from rate.envs.tasks import TASKS
from rate.envs.tasks.base import Task
from trainers.environment import Environment, Length

_EXPERTS = {"key_to_door": "datamodules.oracle:KeyToDoorExpert"}  # others take the oracle action


class TaskRecord(Environment):
    """A memory task; its expert takes the task's oracle action."""

    env: ClassVar[type[Task[Any]]]
    expert_class = "datamodules.oracle:OracleExpert"
    preset_base = "memory_tasks"

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return replace(cls.env.spec_of(settings), name=cls.name)

    def expert_episode(self, length: Length) -> tuple[int, int, float]:
        task = self.env(self.settings, length)
        found = task.lengths[1]
        return found, int(task.expert_steps(found)), float(task.best_return)

    def data_lengths(self, max_length: int) -> int | tuple[int, int]:
        task = self.env(self.settings, max_length)
        return (task.shortest, max_length) if task.varies_length else max_length

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by name: the class is made, and other processes make it again."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return _made_again, (self.name, given)


@cache
def task_record(name: str) -> type[TaskRecord]:
    """Returns the record of a task; imports the task's module."""
    module, _, attribute = TASKS[name].partition(":")
    task: type[Task[Any]] = getattr(import_module(module), attribute)
    parts = {
        "name": name,
        "options": task.options_class,
        "env": task,
        "vector": task.make_vector,
        "expert_class": _EXPERTS.get(name, TaskRecord.expert_class),
        "length_name": task.length_name,
        "success_without_memory": task.success_without_memory,
        "__doc__": task.__doc__,
    }
    return type("Record", (TaskRecord,), parts)


def _made_again(name: str, given: dict[str, Any]) -> TaskRecord:
    return task_record(name)(**given)
