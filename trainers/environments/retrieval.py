"""Action-Associative Retrieval."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rate.envs.retrieval import Retrieval, RetrievalOptions, RetrievalVector, retrieval_spec
from rate.envs.spec import EnvironmentSpec
from trainers.environment import Environment

if TYPE_CHECKING:
    from datamodules.collector import Expert


class Record(Environment):
    """Retrieval; its expert repeats the first action of its seed at the flag."""

    name = "retrieval"
    options = RetrievalOptions
    env = Retrieval
    vector = RetrievalVector
    shortest = 3
    group = ("cue", ("0", "1"))

    @classmethod
    def make_spec(cls, settings: Any) -> EnvironmentSpec:
        return retrieval_spec(settings)

    def expert(self, noise: float) -> Expert:
        from datamodules.retrieval import RetrievalExpert

        return RetrievalExpert(noise)
