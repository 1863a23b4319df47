"""A figure's specification drawn by matplotlib, for machines without a browser.

Draws what `reports.figure` makes of plotly.js: boxes, lines, marks and texts on one x axis and stacked
y axes.
"""

from __future__ import annotations

import io
from html import unescape
from typing import TYPE_CHECKING, Any, Final

from reports.figures.scales import ticks_between

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes

_MARKERS: Final = {
    "circle": "o",
    "diamond-open": "D",
    "line-ew-open": "_",
    "line-ns-open": "|",
    "x-thin-open": "x",
    "triangle-up": "^",
    "triangle-down": "v",
}
_DASHES: Final = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-."}
_SHIFT: Final = {"bottom": 3, "middle": 0, "top": -3}
_RULE: Final = "#d8dee4"
_DOTS: Final = 72 / 100
"""Points of a CSS pixel, at 100 pixels an inch."""


def draw_png(spec: Mapping[str, Any], finding: Sequence[str], title: str, width: int) -> bytes:
    """Draw a specification.

    Args:
        spec: ``data`` and ``layout``, colours resolved.
        finding: What it shows, in lines; stands above the title.
        title: What is drawn.
        width: Width in CSS pixels; the PNG has twice as many dots.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    layout = spec["layout"]
    head = 21 * len(finding) + 34
    height = layout["height"] + head
    figure = Figure(figsize=(width / 100, height / 100), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    margin = layout["margin"]
    left, right = margin["l"] / width, 1 - margin["r"] / width
    bottom, top = margin["b"] / height, 1 - (margin["t"] + head) / height
    panels: dict[str, Axes] = {}
    for key in [key for key in layout if key.startswith("yaxis")]:
        axis = layout[key]
        low, high = axis.get("domain", (0, 1))
        place = (left, bottom + low * (top - bottom), right - left, (high - low) * (top - bottom))
        panels["y" + key.removeprefix("yaxis")] = _panel(figure.add_axes(place), axis, layout["xaxis"])
    below = panels[layout["xaxis"].get("anchor", "y")]
    for panel in panels.values():
        if panel is not below:
            panel.tick_params(labelbottom=False)
    below.set_xlabel(layout["xaxis"].get("title", {}).get("text", ""))
    keys = {}
    for trace in spec["data"]:
        drawn = _trace(panels[trace.get("yaxis", "y")], trace)
        if drawn is not None and layout["showlegend"] and trace.get("showlegend", True):
            keys[unescape(trace["name"])] = drawn
    paper = figure.add_axes((left, bottom, right - left, top - bottom))
    paper.set_axis_off()
    for note in layout.get("annotations", ()):
        _note(note, paper if note["yref"] == "paper" else panels[note["yref"]])
    for place_, line in enumerate(finding):
        figure.text(
            0.012,
            1 - (10 + 21 * place_) / height,
            line,
            fontsize=12,
            weight="bold",
            va="top",
            parse_math=False,
        )
    figure.text(0.012, 1 - (12 + 21 * len(finding)) / height, title, fontsize=10, va="top", parse_math=False)
    if keys:
        corner = (left, 1 - (head - 4) / height)
        legend = figure.legend(
            list(keys.values()),
            list(keys),
            loc="upper left",
            bbox_to_anchor=corner,
            ncols=max(1, int(width / (60 + 7 * max(map(len, keys))))),
            frameon=False,
            borderpad=0,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)
            text.set_fontsize(9)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def _panel(panel: Axes, axis: Mapping[str, Any], across: Mapping[str, Any]) -> Axes:
    panel.set_axisbelow(True)
    panel.patch.set_alpha(0)
    if axis.get("showgrid", True):
        panel.grid(axis="y", color=_RULE, linewidth=0.8)
    if across.get("showgrid", True):
        panel.grid(axis="x", color=_RULE, linewidth=0.8)
    panel.spines[:].set_visible(False)
    panel.tick_params(length=0)
    panel.set_xlim(*across["range"])
    panel.set_ylim(*axis["range"])
    for described, put in ((axis, panel.set_yticks), (across, panel.set_xticks)):
        if "tickvals" in described:
            put(described["tickvals"], [unescape(text) for text in described["ticktext"]], parse_math=False)
        else:
            ticks = _ticks(described)
            put([value for value, _ in ticks], [text for _, text in ticks])
    panel.set_ylabel(axis.get("title", {}).get("text", ""))
    return panel


def _ticks(axis: Mapping[str, Any]) -> list[tuple[float, str]]:
    low, high = axis["range"]
    return ticks_between(low, high, axis.get("nticks", 10))


def _trace(panel: Axes, trace: Mapping[str, Any]) -> Any:
    if trace["type"] == "bar":
        return _boxes(panel, trace)
    if trace["mode"] == "text":
        for across, up, text in zip(trace["x"], trace["y"], trace["text"], strict=True):
            panel.annotate(text, (across, up), (0, 2), textcoords="offset points", ha="center", fontsize=8)
        return None
    x, y = _gaps(trace["x"]), _gaps(trace["y"])
    if trace["mode"] == "lines":
        line = trace["line"]
        (drawn,) = panel.plot(x, y, linestyle=_DASHES[line.get("dash", "solid")], color=line["color"])
        drawn.set_linewidth(line["width"] * _DOTS)
        drawn.set_alpha(trace.get("opacity", 1))
        if line.get("shape") == "hv":
            drawn.set_drawstyle("steps-post")
        return drawn
    marker = trace["marker"]
    symbol = marker["symbol"]
    colour = {"facecolors": "none", "edgecolors": marker["color"]} if symbol == "diamond-open" else {}
    return panel.scatter(
        x,
        y,
        s=(_DOTS * marker["size"]) ** 2,
        marker=_MARKERS[symbol],
        clip_on=trace.get("cliponaxis", True),
        **(colour or {"color": marker["color"]}),
        zorder=3,
    )


def _boxes(panel: Axes, trace: Mapping[str, Any]) -> Any:
    edge = trace["marker"]["line"]
    return panel.barh(
        trace["y"],
        trace["x"],
        trace["width"],
        trace["base"],
        color=_colour(trace["marker"]["color"]),
        edgecolor=_colour(edge["color"]),
        linewidth=edge["width"] * _DOTS,
    )


def _note(note: Mapping[str, Any], panel: Axes) -> None:
    text = unescape(note["text"])
    bold = text.startswith("<b>")
    font = note.get("font", {})
    panel.annotate(
        text.replace("<b>", "", 1).replace("</b>", "", 1),
        (note["x"], note["y"]),
        (note.get("xshift", 0) * _DOTS, note.get("yshift", 0) * _DOTS + _SHIFT[note["yanchor"]]),
        textcoords="offset points",
        ha=note["xanchor"],
        va={"middle": "center"}.get(note["yanchor"], note["yanchor"]),
        fontsize=9.5,
        weight="bold" if bold else "normal",
        color=_colour(font.get("color", "#1b1f24")),
        annotation_clip=False,
        parse_math=False,
    )


def _gaps(values: Sequence[float | None]) -> list[float]:
    return [float("nan") if value is None else value for value in values]


def _colour(text: str) -> Any:
    """A colour as matplotlib takes it: plotly's ``rgba(...)`` as four numbers."""
    if not text.startswith("rgba("):
        return text
    red, green, blue, alpha = (float(part) for part in text[5:-1].split(","))
    return (red / 255, green / 255, blue / 255, alpha)
