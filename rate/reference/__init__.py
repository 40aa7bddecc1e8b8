"""Inference with weights of the public RATE and ELMUR implementations.

`load_reference` takes the arguments of one of RATE's two constructors and a state dict;
`run_segments` returns the same logits, memory tokens and cached hidden states as the public code,
segment by segment. `load_elmur` and `run_elmur` are the same for ELMUR.

What is peculiar to the public code is in this package only, and documented where it is computed
(`blocks`: residual connections, norms, attention masks, the relative shift; `encoders`: which layer
has a tanh; `backbone`: the state between two segments). Dropout is off, and there are no gradients.
"""

from __future__ import annotations

from rate.reference.config import ReferenceConfig
from rate.reference.elmur import ElmurModel, ElmurSegment, load_elmur, run_elmur
from rate.reference.model import ReferenceModel, SegmentResult, load_reference, run_segments

__all__ = [
    "ElmurModel",
    "ElmurSegment",
    "ReferenceConfig",
    "ReferenceModel",
    "SegmentResult",
    "load_elmur",
    "load_reference",
    "run_elmur",
    "run_segments",
]
