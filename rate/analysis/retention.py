"""Whether memory will hold: the distance between memories after segments of filler."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from rate.analysis.memory import memory_vector, spread
from rate.analysis.states import memory_parts, written_memory
from rate.batch import Batch
from rate.model import SequenceModel

FILLER = (0, 1, 10, 100)  # segments


@torch.no_grad()
def retention(
    model: SequenceModel, openings: Batch, repeats: Sequence[int] = FILLER
) -> list[float]:
    """Returns the distance between the memories of episodes after segments of filler.

    Every episode's first segment is followed by the same segment again and again: the second one of
    the first episode. What episodes then differ in is what memory keeps of their first segment. The
    distance is that of `rate.analysis.memory.spread`: at 0 all is forgotten. A segment transformer
    with neither memory tokens nor a cache has no memory, and no distances.

    Args:
        model: A model that carries a state, in evaluation mode.
        openings: `(E, 2K)` the first two segments of episodes.
        repeats: Segments of filler after which to measure, increasing.
    """
    length, rows = model.config.context_length, openings.batch_size
    _, state = model.features(openings.steps(0, length))
    if written_memory(state) is None and not memory_parts(state):
        return []
    filler = openings.take(slice(0, 1)).steps(length, 2 * length)
    mask = filler.mask.expand(rows, -1)
    found = []
    for number in range(max(repeats) + 1):
        if number in repeats:
            found.append(float(spread(memory_vector(state))))
        # Timesteps go on, and frames are encoded for one row.
        tokens = model.tokenizer(filler).expand(rows, -1, -1, -1)
        _, state = model.segment(tokens, mask, state)
        filler.timesteps = filler.timesteps + length
    return found
