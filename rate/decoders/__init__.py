"""Step-by-step inference: three new tokens a step against cached keys and values.

A decoder computes, at every step, exactly what `SequenceModel.forward` computes for that step when
it is shown the whole trajectory (to rounding), at a cost that does not grow with the episode.
Rows of a batch may stand at different steps, and can be reset one by one.
"""

from __future__ import annotations

from rate.decoders.base import Decoder
from rate.decoders.segments import SegmentDecoder
from rate.decoders.window import WindowDecoder
from rate.model import SequenceModel

__all__ = ["Decoder", "SegmentDecoder", "WindowDecoder", "make_decoder"]


def make_decoder(model: SequenceModel, batch_size: int, *, exact_window: bool = True) -> Decoder:
    """The decoder that fits a model.

    Args:
        model: In evaluation mode.
        batch_size: Rows decoded side by side.
        exact_window: For a sliding-window model past its context. True recomputes the window at
            every step, as Decision Transformer does. False keeps the keys of the last K steps,
            which were computed when earlier steps were still in view: the same as one long forward
            pass in which every layer looks back K steps, and far cheaper.
    """
    if model.config.context == "segments":
        return SegmentDecoder(model, batch_size)
    return WindowDecoder(model, batch_size, exact=exact_window)
