"""The one door to models of the public RATE implementation.

`load_reference` takes the arguments of one of its two constructors and a state dict, `run_segments`
answers as it does: the same logits, memory tokens and cached hidden states, segment by segment.

Everything peculiar to that code lives behind this door and nowhere else in the package; each
peculiarity is named where it is computed (`blocks`: residuals, norms, masks, the relative shift;
`encoders`: which layer is squashed; `model`: what is carried from one segment to the next).
The model is for inference: dropout is off, gradients are not recorded.
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
