"""The figure of `rate inspect` for one transformer: attention, spans, depth and gates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from trainers.commands.figures import pyplot, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from rate.analysis.inside import Inside


def draw_inside(name: str, found: Inside, path: Path) -> None:
    """Draw the attention map, and beside it what the model has: memory, gates, spans, depth.

    Args:
        name: Of the run.
        found: What its layers did.
        path: The PNG to write.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    panels = [_openness]
    panels += [_memory] if bool(found.memory.any()) else []
    panels += [_spans] if found.spans is not None else []
    panels += [_depth] if found.depth is not None else []
    width = [1.4] + [1] * len(panels)
    figure, axes = pyplot().subplots(
        1,
        len(width),
        figsize=(3.3 * sum(width), 3.6),
        width_ratios=width,
        layout="constrained",
        squeeze=False,
    )
    figure.suptitle(name)
    _attention(axes[0, 0], found)
    for panel, axis in zip(panels, axes[0, 1:], strict=True):
        panel(axis, found)
    save(figure, path)


def _attention(axis: Axes, found: Inside) -> None:
    end = found.first + len(found.attention)
    extent = (found.first, end, end, found.first)
    image = axis.imshow(
        found.attention.sqrt().numpy(), cmap="Blues", extent=extent, interpolation="nearest"
    )
    image.set_clim(0)
    bar = axis.figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("square root of the share", fontsize=8)
    axis.set(xlabel="past step", ylabel="step", title="Attention to past steps")


def _memory(axis: Axes, found: Inside) -> None:
    axis.plot(range(found.first, found.first + len(found.memory)), found.memory, linewidth=1)
    axis.set(xlabel="step", ylim=(0, 1), title="Attention to memory tokens")


def _openness(axis: Axes, found: Inside) -> None:
    numbers = range(1, len(found.openness) + 1)
    axis.bar(numbers, found.openness)
    axis.set_xticks(numbers)
    axis.set(xlabel="sub-layer", ylim=(0, None), title="Change of the stream\n(openness of gates)")


def _spans(axis: Axes, found: Inside) -> None:
    spans = [] if found.spans is None else found.spans.tolist()
    for number, layer in enumerate(spans, start=1):
        axis.plot([number] * len(layer), layer, "o", alpha=0.6)
    axis.set_xticks(range(1, len(spans) + 1))
    axis.set(xlabel="layer", ylabel="tokens", ylim=(0, None), title="Learned spans of the heads")


def _depth(axis: Axes, found: Inside) -> None:
    depth = [] if found.depth is None else found.depth.tolist()
    axis.plot(range(found.first, found.first + len(depth)), depth, linewidth=1)
    axis.set(xlabel="step", ylim=(0, None), title="Layers until tokens halt\n(and remainder)")
