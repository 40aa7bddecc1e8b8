"""The frame of a video: the environment and the action on the left, memory on the right."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rate.analysis.recording import EpisodeRecord, Moment
from rate.backbones.settings import SegmentTransformerConfig
from rate.config import ModelConfig
from trainers.commands import video_panels as panels

WIDTH, HEIGHT = 960, 540  # pixels; even, as video codecs want them
_DOTS_PER_INCH = 100

Pixels = NDArray[np.uint8]


class Screen:
    """Draws a frame for each moment of an episode.

    The static background is drawn once. Only the artists that change are drawn for each moment,
    which takes milliseconds.

    Args:
        record: The episode.
        config: The configuration of the model.
        title: The text at the top of each frame.
    """

    def __init__(self, record: EpisodeRecord, config: ModelConfig, title: str) -> None:
        size = WIDTH / _DOTS_PER_INCH, HEIGHT / _DOTS_PER_INCH
        self._figure = Figure(figsize=size, dpi=_DOTS_PER_INCH)
        self._canvas = _canvas(self._figure)
        self._figure.text(0.03, 0.95, title, fontsize=11, weight="bold")
        draws = record.moments[0].picture is not None
        where = (0.03, 0.44, 0.46, 0.45) if draws else (0.06, 0.49, 0.43, 0.40)
        self._draws = [
            self._status(record, config),
            panels.view(self._axes(*where), record),
            panels.actions(self._axes(0.06, 0.11, 0.18, 0.24), record),
            panels.returns(self._axes(0.30, 0.11, 0.19, 0.24), record),
            *self._memory(record, config),
        ]
        for draw in self._draws:
            for artist in draw(record.moments[0]):
                artist.set_animated(True)  # not part of the background
        self._canvas.draw()
        self._still = self._canvas.copy_from_bbox(self._figure.bbox)

    def show(self, moment: Moment) -> Pixels:
        """Returns the frame `(HEIGHT, WIDTH, 3)` uint8 of a moment."""
        self._canvas.restore_region(self._still)
        for draw in self._draws:
            for artist in draw(moment):
                self._figure.draw_artist(artist)
        pixels: Pixels = np.array(self._canvas.buffer_rgba())[..., :3]
        return pixels

    def _axes(self, left: float, bottom: float, width: float, height: float) -> Axes:
        axes = self._figure.add_axes((left, bottom, width, height))
        axes.tick_params(labelsize=panels.SMALL - 1, length=2)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        return axes

    def _status(self, record: EpisodeRecord, config: ModelConfig) -> panels.Draw:
        text = self._figure.text(0.97, 0.95, "", fontsize=10, ha="right")
        segments = config.carries_state
        end = "ended"
        if record.finished:
            end = "the end: " + ", ".join(f"{k} {v:g}" for k, v in record.outcome.items())

        def draw(moment: Moment) -> list[Artist]:
            where = f"step {moment.step} of {record.steps}"
            if segments:
                where += f"   segment {moment.segment + 1}"
            if moment.action is None:
                where = end if record.finished and record.outcome else f"{end}, {where}"
            text.set_text(f"{where}   earned {moment.earned:.2f}")
            return [text]

        return draw

    def _memory(self, record: EpisodeRecord, config: ModelConfig) -> list[panels.Draw]:
        """Returns the panels of the right half: memory tokens, cache, or context window."""
        top, middle = (0.57, 0.69, 0.36, 0.20), (0.57, 0.42, 0.36, 0.17)
        if record.memories:
            memories = np.stack(record.memories)
            draws = [
                panels.tokens(self._axes(*top), self._axes(0.94, top[1], 0.01, top[3]), memories),
                panels.change(
                    self._axes(*middle), self._axes(0.94, middle[1], 0.01, 0.17), memories
                ),
                panels.path(self._axes(0.57, 0.11, 0.16, 0.19), memories),
                panels.drift(self._axes(0.80, 0.11, 0.17, 0.19), memories),
            ]
            if record.caches and isinstance(config, SegmentTransformerConfig):
                self._figure.text(0.57, 0.015, _cache_note(config), fontsize=panels.SMALL)
            return draws
        self._figure.text(0.57, 0.86, "This model has no memory tokens.", fontsize=11)
        if record.caches and isinstance(config, SegmentTransformerConfig):
            self._figure.text(0.57, 0.80, _cache_note(config), fontsize=panels.SMALL + 1)
            return [panels.cache(self._axes(0.57, 0.44, 0.40, 0.28), np.stack(record.caches))]
        note = f"It looks back over the last {config.context_length} steps and knows nothing else:"
        self._figure.text(0.57, 0.80, note, fontsize=panels.SMALL + 1)
        return [panels.reach(self._axes(0.57, 0.62, 0.40, 0.08), record)]


def _canvas(figure: Figure) -> Any:
    """Returns the canvas of a figure, as `Any`: Matplotlib's types of the class are incomplete."""
    return FigureCanvasAgg(figure)


def _cache_note(config: SegmentTransformerConfig) -> str:
    return f"A cache hands {config.cache_length} states of each layer to the next segment."
