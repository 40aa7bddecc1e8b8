"""The figure of `rate inspect`: statistics of memory, linear probes and saliency."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainers.commands.figures import pyplot, save
from trainers.commands.styles import Style, styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from trainers.commands.inspect import Inspection


def draw(found: Mapping[str, Inspection], path: Path) -> None:
    """Draw seven panels: spread, change, rank, survival of noise; probes; saliency; and a legend.

    Args:
        found: What was found, by name of the run.
        path: The PNG to write.

    Raises:
        ConfigError: If the figure cannot be written.
    """
    plt = pyplot()
    figure, panels = plt.subplots(2, 4, figsize=(14, 6.6), layout="constrained")
    looks = styles(found)
    for name, each in found.items():
        _memory(panels[0], name, each, looks[name])
        _probes(panels[1], each, looks[name])
        _saliency(panels[1][2], each, looks[name])
        panels[1][3].plot([], [], label=name, **_line(looks[name]))
    _label(panels)
    save(figure, path)


def _line(style: Style) -> dict[str, Any]:
    return {"color": style.colour, "linestyle": style.dash}


def _memory(panels: Any, name: str, each: Inspection, style: Style) -> None:
    report, look = each.memory, _line(style)
    if report is None:
        return
    panels[0].plot(range(1, len(report.spread) + 1), report.spread, **look)
    panels[1].plot(range(2, len(report.drift) + 2), report.drift, **look)
    panels[2].plot(range(1, len(report.rank) + 1), report.rank, **look)
    strengths = list(report.survival)
    values = [report.survival[strength] for strength in strengths]
    panels[3].plot(strengths, values, marker=style.marker, markersize=4, **look)
    panels[3].set_xticks(strengths, [str(strength) for strength in strengths])


def _probes(panels: Any, each: Inspection, style: Style) -> None:
    """The best part of the memory, and the features, at every label; thin after the first label."""
    for number, parts in enumerate(each.probes.accuracy.values()):
        look = {**_line(style), "linewidth": 0.5 if number else 1.5}
        memory = [values for part, values in parts.items() if part != "features"]
        if memory:
            best = [max(values) for values in zip(*memory, strict=True)]
            panels[0].plot(range(1, len(best) + 1), best, **look)
        features = parts["features"]
        panels[1].plot(range(1, len(features) + 1), features, **look)


def _saliency(panel: Axes, each: Inspection, style: Style) -> None:
    shares = each.saliency
    back = range(len(shares), 0, -1)  # steps back, from 1
    panel.plot(back, shares, linewidth=0.8, **_line(style))


def _label(panels: Any) -> None:
    spread, change, rank, survival = panels[0]
    spread.set(xscale="log", xlabel="segment", ylabel="distance, relative to size")
    spread.set(ylim=(0, None), title="Distance between episodes")
    change.set(xscale="log", yscale="log", xlabel="segment", ylabel="change, relative to size")
    change.set_title("Change at each segment (open gates)")
    rank.set(xscale="log", xlabel="segment", ylabel="effective rank", ylim=(0.9, None))
    rank.set_title("Directions in use")
    survival.set(xscale="log", ylim=(0, 1.05), ylabel="episodes that keep their actions")
    survival.set(xlabel="standard deviation of noise, once", title="Basin")
    survival.minorticks_off()
    memory, features, saliency, legend = panels[1]
    for panel, what in ((memory, "the best part of the memory"), (features, "the features")):
        panel.set(xscale="log", xlabel="segment", ylabel="held-out accuracy", ylim=(0, 1.05))
        panel.set_title(f"Linear probe of {what}")
    saliency.set(xscale="log", yscale="log", xlabel="steps back", ylabel="share of the gradient")
    saliency.set_title("What the last prediction depends on")
    legend.axis("off")
    legend.legend(frameon=False, fontsize=9, loc="upper left")
