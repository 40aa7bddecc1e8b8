"""The panels of a video frame: each function draws a panel and returns its update function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from rate.analysis.recording import EpisodeRecord, Moment

SMALL = 8
_BLUE, _ORANGE, _GREEN, _GREY = "#0072B2", "#D55E00", "#009E73", "#999999"

# Updates a panel to a moment, and returns the artists that have changed.
Draw = Callable[[Moment], list[Artist]]
Array = NDArray[Any]

# The memory that the first segment reads is a parameter, far from those that segments write.
_FIRST_WRITTEN = 1


def title(axes: Axes, text: str) -> None:
    """Set the title of a panel."""
    axes.set_title(text, fontsize=SMALL + 1, loc="left", pad=4)


def view(axes: Axes, record: EpisodeRecord) -> Draw:
    """The image that the environment draws, or the observation as bars if it draws none."""
    first = record.moments[0]
    if first.picture is not None:
        axes.set_axis_off()
        grey = "gray" if first.picture.shape[-1] == 1 else None
        image = axes.imshow(first.picture.squeeze(), cmap=grey, interpolation="nearest")

        def draw(moment: Moment) -> list[Artist]:
            if moment.picture is not None:
                image.set_data(moment.picture.squeeze())
            return [image]

        return draw
    title(axes, "observation (this environment draws no picture)")
    seen = np.stack([moment.observation for moment in record.moments])
    low, high = min(0.0, float(seen.min())), max(0.0, float(seen.max()))
    room = 0.05 * (high - low or 1)
    axes.set_ylim(low - room, high + room)
    axes.set_xlabel("component", fontsize=SMALL)
    axes.axhline(0, color="black", linewidth=0.5)
    if seen.shape[1] <= 20:
        axes.set_xticks(range(seen.shape[1]))
    bars = axes.bar(range(seen.shape[1]), first.observation, color=_BLUE)

    def draw_bars(moment: Moment) -> list[Artist]:
        for bar, height in zip(bars, moment.observation, strict=True):
            bar.set_height(height)
        return list(bars)

    return draw_bars


def actions(axes: Axes, record: EpisodeRecord) -> Draw:
    """Probabilities of discrete actions, with the chosen ones in colour, or continuous values."""
    first = record.moments[0]
    sizes = [len(part) for part in first.odds]
    heights = np.concatenate(first.odds)
    # The parts of an action are separated by a gap.
    places = np.concatenate([np.arange(n) + sum(sizes[:i]) + i for i, n in enumerate(sizes)])
    starts = np.cumsum([0, *sizes[:-1]])
    drawn = first.action is not None and len(first.action) == len(sizes) and sum(sizes) > 1
    drawn = drawn and bool(np.isclose([part.sum() for part in first.odds], 1, atol=1e-3).all())
    title(axes, "action: probabilities" if drawn else "action")
    if drawn:
        axes.set_ylim(0, 1)
    else:
        values = [0.0, *(v for m in record.moments for part in m.odds for v in part)]
        axes.set_ylim(min(values) - 0.05, max(values) + 0.05)
        axes.axhline(0, color="black", linewidth=0.5)
    if len(places) <= 12:
        axes.set_xticks(places, [str(i) for n in sizes for i in range(n)])
    bars = axes.bar(places, heights, color=_GREY)

    def draw(moment: Moment) -> list[Artist]:
        if moment.action is None:
            return []
        chosen = {int(s + a) for s, a in zip(starts, moment.action, strict=True)} if drawn else ()
        for index, (bar, height) in enumerate(zip(bars, np.concatenate(moment.odds), strict=True)):
            bar.set_height(height)
            bar.set_color(_ORANGE if index in chosen else _GREY)
        return list(bars)

    return draw


def returns(axes: Axes, record: EpisodeRecord) -> Draw:
    """Return-to-go over the episode, and the steps in the context window."""
    title(axes, "return-to-go (shaded: in view)")
    axes.plot(record.returns_to_go, color="#dddddd")
    (line,) = axes.plot([], [], color=_BLUE)
    (point,) = axes.plot([], [], "o", color=_BLUE, markersize=4)
    span = axes.axvspan(0, 1, color=_ORANGE, alpha=0.15, linewidth=0)
    axes.set_xlim(0, max(1, record.steps))
    low, high = min(0.0, *record.returns_to_go), max(0.0, *record.returns_to_go)
    axes.set_ylim(low - 0.05 * (high - low or 1), high + 0.1 * (high - low or 1))
    axes.set_xlabel("step", fontsize=SMALL, labelpad=1)

    def draw(moment: Moment) -> list[Artist]:
        line.set_data(range(moment.step + 1), record.returns_to_go[: moment.step + 1])
        point.set_data([moment.step], [moment.return_to_go])
        span.set_x(moment.first_in_view)
        span.set_width(moment.step - moment.first_in_view)
        return [span, line, point]

    return draw


def tokens(axes: Axes, bar: Axes, memories: Array) -> Draw:
    """The memory `(m, w)` that the segment reads, of `memories` `(S, m, w)`."""
    title(axes, "memory")
    image = _heat(axes, bar, memories, memories[_FIRST_WRITTEN:])

    def draw(moment: Moment) -> list[Artist]:
        image.set_data(memories[moment.segment])
        return [image]

    return draw


def change(axes: Axes, bar: Axes, memories: Array) -> Draw:
    """The change of the memory `(m, w)` in the last segment, of `memories` `(S, m, w)`."""
    title(axes, "their change in the segment before")
    axes.set_xlabel("component", fontsize=SMALL, labelpad=1)
    changes = np.diff(memories, axis=0, prepend=memories[:1])
    image = _heat(axes, bar, changes, changes[_FIRST_WRITTEN + 1 :])

    def draw(moment: Moment) -> list[Artist]:
        image.set_data(changes[moment.segment])
        return [image]

    return draw


def _heat(axes: Axes, bar: Axes, images: Array, typical: Array) -> Any:
    """Returns an image of the first of `images` `(S, m, d)`; the colours span `typical` values."""
    limit = float(np.quantile(np.abs(typical if typical.size else images), 0.995)) or 1.0
    image = axes.imshow(
        images[0], cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest"
    )
    axes.set_ylabel("row", fontsize=SMALL, labelpad=1)
    if images.shape[1] <= 10:
        axes.set_yticks(range(images.shape[1]))
    figure = axes.get_figure(root=True)
    if figure is not None:
        figure.colorbar(image, cax=bar).ax.tick_params(labelsize=SMALL - 1, length=2)
    return image


def path(axes: Axes, memories: Array) -> Draw:
    """The path of the memory in its first two principal components."""
    written = memories.reshape(len(memories), -1)[_FIRST_WRITTEN:]
    points, shares = principal_components(written)
    title(axes, "path (□ segment 2)")
    axes.set_xlabel(f"PC 1 ({shares[0]:.0%})", fontsize=SMALL, labelpad=1)
    axes.set_ylabel(f"PC 2 ({shares[1]:.0%})", fontsize=SMALL, labelpad=1)
    axes.plot(*points.T, alpha=0)  # for the limits
    axes.margins(0.15)
    (line,) = axes.plot([], [], "-", color=_GREY, linewidth=0.8, marker=".", markersize=4)
    (start,) = axes.plot([], [], "s", color="black", markersize=5, fillstyle="none")
    (point,) = axes.plot([], [], "o", color=_ORANGE, markersize=7)

    def draw(moment: Moment) -> list[Artist]:
        known = points[: moment.segment + 1 - _FIRST_WRITTEN] if moment.segment else points[:0]
        for artist, some in ((line, known), (start, known[:1]), (point, known[-1:])):
            artist.set_data(*some.T)
        return [line, start, point]

    return draw


def principal_components(rows: Array) -> tuple[Array, Array]:
    """Returns the scores `(S, 2)` of rows `(S, D)` in their first two principal components.

    Returns:
        The scores, and the shares of variance `(2,)`; zeros if there are fewer components.
    """
    centred = rows - rows.mean(0) if len(rows) else rows
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    points, shares = np.zeros((len(rows), 2)), np.zeros(2)
    count = min(2, len(sizes))
    points[:, :count] = left[:, :count] * sizes[:count]
    total = float(np.square(sizes).sum())
    if total > 0:
        shares[:count] = np.square(sizes[:count]) / total
    return points, shares


def drift(axes: Axes, memories: Array) -> Draw:
    """The norm of the memory's change between segments, relative to the norm of the memory."""
    flat = memories.reshape(len(memories), -1)
    size = np.maximum(np.linalg.norm(flat[:-1], axis=1), 1e-12)
    change = np.maximum(np.linalg.norm(np.diff(flat, axis=0), axis=1) / size, 1e-9)
    title(axes, "change / size")
    axes.set_xlabel("segment", fontsize=SMALL, labelpad=1)
    axes.set(xlim=(1, max(2, len(memories))), yscale="log")
    axes.set_ylim(0.5 * change.min(initial=1.0), 2 * change.max(initial=1.0))
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    (line,) = axes.plot([], [], "-", color=_GREEN, marker=".", markersize=4)

    def draw(moment: Moment) -> list[Artist]:
        line.set_data(range(2, moment.segment + 2), change[: moment.segment])
        return [line]

    return draw


def cache(axes: Axes, caches: Array) -> Draw:
    """The sizes of the cached states `(L, C)`, of `caches` `(S, L, C)`; grey where empty (NaN)."""
    title(axes, "size of the cached states (grey: empty)")
    axes.set_xlabel("place in the cache (newest at the right)", fontsize=SMALL)
    axes.set_ylabel("layer", fontsize=SMALL)
    axes.set_facecolor("#dddddd")
    axes.set_yticks(range(caches.shape[1]))
    known = caches[np.isfinite(caches)]
    limits = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    image = axes.imshow(
        caches[0], vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest"
    )
    text = axes.text(1, 1.02, "", transform=axes.transAxes, fontsize=SMALL + 1, ha="right")

    def draw(moment: Moment) -> list[Artist]:
        filled = int(np.isfinite(caches[moment.segment][0]).sum())
        image.set_data(caches[moment.segment])
        text.set_text(f"{filled} of {caches.shape[2]} filled")
        return [image, text]

    return draw


def reach(axes: Axes, record: EpisodeRecord) -> Draw:
    """The steps in the context window, on an axis of all steps."""
    axes.set(xlim=(0, max(1, record.steps)), ylim=(0, 1), yticks=[])
    axes.set_xlabel("step", fontsize=SMALL)
    axes.set_facecolor("#eeeeee")
    span = axes.axvspan(0, 1, color=_ORANGE, linewidth=0)

    def draw(moment: Moment) -> list[Artist]:
        span.set_x(moment.first_in_view)
        span.set_width(moment.step - moment.first_in_view + 1)
        return [span]

    return draw
