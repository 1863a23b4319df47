"""A figure's specification drawn by matplotlib, for machines without a browser.

Draws what our figures use of plotly.js: lines, markers and closed shapes on one x axis and stacked y axes.
"""

from __future__ import annotations

import io
import re
from html import unescape
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

_MARKERS: Final = {
    "circle": "o",
    "diamond-open": "D",
    "line-ew-open": "_",
    "line-ns-open": "|",
    "x-thin-open": "x",
}
_DASHES: Final = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}


def draw_png(spec: Mapping[str, Any], title: str, finding: str, width: int) -> bytes:
    """Draw a specification.

    Args:
        spec: ``data`` and ``layout``, colours resolved.
        title: What is drawn.
        finding: What it shows; stands above the title.
        width: Width in CSS pixels; the PNG has twice as many dots.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = spec["layout"]
    height = layout["height"] + 70
    figure = Figure(figsize=(width / 100, height / 100), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    margin = layout["margin"]
    left, right = max(margin["l"], 110) / width, 1 - margin["r"] / width
    bottom, top = margin["b"] / height, 1 - (margin["t"] + 70) / height
    panels: dict[str, Axes] = {}
    for key in [key for key in layout if key.startswith("yaxis")]:
        axis = layout[key]
        low, high = axis.get("domain", (0, 1))
        place = (left, bottom + low * (top - bottom), right - left, (high - low) * (top - bottom))
        panels["y" + key.removeprefix("yaxis")] = _panel(figure.add_axes(place), axis, layout["xaxis"])
    below = panels.get(layout["xaxis"].get("anchor", "y"), next(iter(panels.values())))
    for panel in panels.values():
        if panel is not below:
            panel.tick_params(labelbottom=False)
    below.set_xlabel(layout["xaxis"]["title"]["text"])
    keys = {}
    for trace in spec["data"]:
        drawn = _trace(panels[trace.get("yaxis", "y")], trace)
        if layout.get("showlegend") and trace.get("showlegend", True):
            keys[_plain(trace["name"])] = drawn
    for note in layout.get("annotations", ()):
        at = bottom + note["y"] * (top - bottom) + 0.003
        figure.text(left, at, _plain(note["text"]), fontsize=10, va="bottom", parse_math=False)
    figure.text(0.012, 1 - 14 / height, finding, fontsize=13, weight="bold", va="top", parse_math=False)
    figure.text(0.012, 1 - 42 / height, title, fontsize=10, va="top", parse_math=False)
    if keys:
        columns = 5 if max(map(len, keys)) < 24 else 2
        corner = (left, 1 - 62 / height)
        legend = figure.legend(
            list(keys.values()),
            list(keys),
            loc="upper left",
            bbox_to_anchor=corner,
            ncols=columns,
            frameon=False,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
            text.set_fontsize(9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _panel(panel: Axes, axis: Mapping[str, Any], across: Mapping[str, Any]) -> Axes:
    panel.set_axisbelow(True)
    panel.grid(color="#d8dee4", linewidth=0.8)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_xlim(*across["range"])
    panel.set_ylim(*axis["range"])
    if "tickvals" in axis:
        panel.set_yticks(axis["tickvals"], [_plain(text) for text in axis["ticktext"]], parse_math=False)
    else:
        panel.yaxis.set_major_formatter("{x:,.0f}")
    if "tickvals" in across:
        panel.set_xticks(across["tickvals"], [_plain(text) for text in across["ticktext"]])
    panel.set_ylabel(axis.get("title", {}).get("text", ""))
    return panel


def _trace(panel: Axes, trace: Mapping[str, Any]) -> Any:
    x, y = _gaps(trace["x"]), _gaps(trace["y"])
    if trace.get("fill") == "toself":
        return _shapes(panel, trace)
    if trace["mode"] == "lines":
        line = trace["line"]
        (drawn,) = panel.plot(x, y, linestyle=_DASHES[line.get("dash", "solid")], color=line.get("color"))
        drawn.set_linewidth(line.get("width", 2) * 0.7)
        if line.get("shape") == "hv":
            drawn.set_drawstyle("steps-post")
        return drawn
    marker = trace["marker"]
    symbol = marker.get("symbol", "circle")
    sizes = marker["size"] if isinstance(marker["size"], list) else [marker["size"]] * len(x)
    colour = {"facecolors": "none", "edgecolors": marker["color"]} if symbol == "diamond-open" else {}
    points = panel.scatter(
        x,
        y,
        s=[(0.72 * size) ** 2 for size in sizes],
        marker=_MARKERS[symbol],
        alpha=marker.get("opacity", 1),
        clip_on=trace.get("cliponaxis", True),
        **(colour or {"color": marker["color"]}),
        zorder=3,
    )
    if "text" in trace["mode"]:
        for across, up, text, size in zip(x, y, trace["text"], sizes, strict=True):
            panel.annotate(
                text, (across, up), (0, size * 0.36 + 3), textcoords="offset points", ha="center", fontsize=9
            )
    return points


def _shapes(panel: Axes, trace: Mapping[str, Any]) -> Any:
    from matplotlib.collections import PolyCollection

    shapes: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(trace["x"], trace["y"], strict=True):
        if x is None:
            shapes.append([])
        else:
            shapes[-1].append((x, y))
    drawn = PolyCollection([shape for shape in shapes if shape])
    drawn.set_facecolor(_rgba(trace["fillcolor"]))
    drawn.set_edgecolor(_rgba(trace["line"]["color"]))
    drawn.set_linewidth(trace["line"]["width"])
    panel.add_collection(drawn, autolim=False)
    return drawn


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _plain(text: str) -> str:
    return unescape(re.sub(r"<br>", " ", text))


def _rgba(text: str) -> tuple[float, float, float, float]:
    red, green, blue, alpha = (float(part) for part in text[5:-1].split(","))
    return (red / 255, green / 255, blue / 255, alpha)
