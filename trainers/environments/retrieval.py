"""Action-Associative Retrieval."""

from __future__ import annotations

from rate.envs.retrieval import Retrieval, RetrievalOptions, RetrievalVector, retrieval_spec
from trainers.environment import Environment


class Record(Environment):
    """Retrieval; its expert repeats the first action of its seed at the flag."""

    name = "retrieval"
    options = RetrievalOptions
    expert_class = "datamodules.retrieval:RetrievalExpert"
    spec_of = staticmethod(retrieval_spec)
    env = Retrieval
    vector = RetrievalVector
    shortest = 3
    group = ("cue", ("0", "1"))
