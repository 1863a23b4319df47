"""A figure's specification drawn as SVG: without JavaScript, in print, and as a file of its own.

Draws what `reports.figure` makes of plotly.js: boxes, lines, marks and texts on one x axis and stacked
y axes. Colours that are `INK` are ``currentColor``, which the page (or the file) sets.
"""

from __future__ import annotations

from html import escape, unescape
from typing import TYPE_CHECKING, Any, Final

from reports.figures.palette import INK
from reports.figures.scales import Axis, ticks_between
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

WIDTH: Final = 1080
CHARACTER: Final = 7.3
"""Width of a character of 13 px, roughly."""

SYMBOLS: Final = {
    "circle": "M{x:.1f} {y:.1f}h.01",
    "diamond-open": "M{x:.1f} {t:.1f}L{r:.1f} {y:.1f}L{x:.1f} {b:.1f}L{l:.1f} {y:.1f}z",
    "line-ew-open": "M{l:.1f} {y:.1f}H{r:.1f}",
    "line-ns-open": "M{x:.1f} {t:.1f}V{b:.1f}",
    "x-thin-open": "M{l:.1f} {t:.1f}L{r:.1f} {b:.1f}M{l:.1f} {b:.1f}L{r:.1f} {t:.1f}",
    "triangle-up": "M{l:.1f} {b:.1f}H{r:.1f}L{x:.1f} {t:.1f}z",
    "triangle-down": "M{l:.1f} {t:.1f}H{r:.1f}L{x:.1f} {b:.1f}z",
}
_FILLED: Final = ("triangle-up", "triangle-down")
DASHES: Final = {"solid": "", "dash": "9 5", "dot": "2 4", "dashdot": "9 4 2 4"}
_ANCHORS: Final = {"left": "start", "center": "middle", "right": "end"}
_BELOW: Final = {"bottom": -3, "middle": 4, "top": 13}
"""From where a note stands to its base line, in px."""


def draw(spec: Mapping[str, Any], label: str) -> str:
    """Draw a specification.

    Args:
        spec: ``data`` and ``layout``.
        label: Accessible name of the picture.
    """
    layout = spec["layout"]
    height, margin = layout["height"], layout["margin"]
    x = _axis(layout["xaxis"], margin["l"], WIDTH - margin["r"])
    top, bottom = margin["t"], height - margin["b"]
    panels = {}
    for key in [key for key in layout if key.startswith("yaxis")]:
        low, high = (bottom - share * (bottom - top) for share in layout[key].get("domain", (0, 1)))
        panels["y" + key.removeprefix("yaxis")] = _axis(layout[key], low, high)
    parts: list[str] = []
    for name, panel in panels.items():
        parts += _grid(x, panel, layout["xaxis"], layout["yaxis" + name[1:]])
    parts += _below(x, panels[layout["xaxis"].get("anchor", "y")], layout["xaxis"])
    for trace in spec["data"]:
        parts += _trace(trace, x, panels[trace.get("yaxis", "y")])
    paper = Axis(0, 1, x.from_px, x.to_px, ()), Axis(0, 1, bottom, top, ())
    for each in layout.get("annotations", ()):
        across = paper[0] if each["xref"] == "paper" else x
        up = paper[1] if each["yref"] == "paper" else panels[each["yref"]]
        parts.append(_note(each, across.at(each["x"]), up.at(each["y"])))
    if layout["showlegend"]:
        parts += _legend(spec["data"], margin["l"])
    name = escape(printable(label))
    head = f'<svg class="static" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{name}">'
    return "\n".join([head, *parts, "</svg>"])


def _axis(axis: Mapping[str, Any], start: float, end: float) -> Axis:
    low, high = axis["range"]
    if "tickvals" in axis:
        ticks = list(zip(axis["tickvals"], map(unescape, axis["ticktext"]), strict=True))
    else:
        ticks = ticks_between(low, high, axis.get("nticks", 10))
    return Axis(low, high, start, end, ticks)


def _grid(x: Axis, y: Axis, across: Mapping[str, Any], up: Mapping[str, Any]) -> Iterator[str]:
    """Grid lines of one panel, and what stands left of it."""
    path = ""
    if across.get("showgrid", True):
        path += "".join(f"M{x.at(value):.1f} {y.from_px:.1f}V{y.to_px:.1f}" for value, _ in x.ticks)
    if up.get("showgrid", True):
        path += "".join(f"M{x.from_px:.1f} {y.at(value):.1f}H{x.to_px:.1f}" for value, _ in y.ticks)
    if path:
        yield f'<path class="grid" d="{path}"/>'
    for value, name in y.ticks:
        yield _text(x.from_px - 8, y.at(value) + 4, name, "end")
    title = unescape(up.get("title", {}).get("text", ""))
    if title:
        middle = (y.from_px + y.to_px) / 2
        yield _text(16, middle, title, "middle", f' transform="rotate(-90 16 {middle:.1f})"')


def _below(x: Axis, y: Axis, across: Mapping[str, Any]) -> Iterator[str]:
    for value, name in x.ticks:
        yield _text(x.at(value), y.from_px + 18, name, "middle")
    if "title" in across:
        yield _text((x.from_px + x.to_px) / 2, y.from_px + 42, across["title"]["text"], "middle")


def _trace(trace: Mapping[str, Any], x: Axis, y: Axis) -> Iterator[str]:
    faint = f' opacity="{trace["opacity"]}"' if "opacity" in trace else ""
    if trace["type"] == "bar":
        yield f'<path {_filled(trace["marker"])}{faint} d="{"".join(_boxes(trace, x, y))}"/>'
    elif trace["mode"] == "lines":
        yield f'<path {_stroked(trace["line"])}{faint} d="{"".join(_line(trace, x, y))}"/>'
    elif trace["mode"] == "text":
        size = f' font-size="{trace["textfont"]["size"]}"'
        for (across, up), text in zip(_points(trace), trace["text"], strict=True):
            yield _text(x.at(across), y.at(up) - 3, unescape(text), "middle", size)
    else:
        yield _marks(trace["marker"], [(x.at(across), y.at(up)) for across, up in _points(trace)])


def _boxes(trace: Mapping[str, Any], x: Axis, y: Axis) -> Iterator[str]:
    for left, wide, middle, tall in zip(trace["base"], trace["x"], trace["y"], trace["width"], strict=True):
        start, end = x.at(left), x.at(left + wide)
        bottom, top = y.at(middle - tall / 2), y.at(middle + tall / 2)
        yield f"M{start:.1f} {bottom:.1f}H{end:.1f}V{top:.1f}H{start:.1f}z"


def _line(trace: Mapping[str, Any], x: Axis, y: Axis) -> Iterator[str]:
    stepped = trace["line"].get("shape") == "hv"
    begun = False
    for across, up in _points(trace):
        if across is None or up is None:
            begun = False
        elif not begun:
            begun = True
            yield f"M{x.at(across):.1f} {y.at(up):.1f}"
        elif stepped:
            yield f"H{x.at(across):.1f}V{y.at(up):.1f}"
        else:
            yield f"L{x.at(across):.1f} {y.at(up):.1f}"


def _marks(marker: Mapping[str, Any], points: Iterable[tuple[float, float]]) -> str:
    symbol, half = marker["symbol"], marker["size"] / 2
    shape = SYMBOLS[symbol]
    path = "".join(shape.format(x=x, y=y, l=x - half, r=x + half, t=y - half, b=y + half) for x, y in points)
    if symbol in _FILLED:
        return f'<path {_filled(marker)} d="{path}"/>'
    width = 2 * half if symbol == "circle" else marker["line"]["width"]
    cap = ' stroke-linecap="round"' if symbol == "circle" else ""
    return f'<path {_stroked({"color": marker["color"], "width": width})}{cap} d="{path}"/>'


def _note(each: Mapping[str, Any], x: float, y: float) -> str:
    bold, _, text = each["text"].rpartition("</b>")
    font = each.get("font", {})
    more = f' font-size="{font["size"]}"' if "size" in font else ""
    if "color" in font:
        more += f' style="fill:{_paint(font["color"])}"'
    x, y = x + each.get("xshift", 0), y + _BELOW[each["yanchor"]] - each.get("yshift", 0)
    return _text(
        x, y, unescape(text), _ANCHORS[each["xanchor"]], more, bold=unescape(bold.removeprefix("<b>"))
    )


def _legend(data: Sequence[Mapping[str, Any]], left: float) -> Iterator[str]:
    """One entry for each trace that has one, in rows from the top."""
    x, y = left, 16
    for trace in data:
        if not trace.get("showlegend", True):
            continue
        name = unescape(trace["name"])
        width = 28 + len(name) * CHARACTER
        if x > left and x + width > WIDTH - 20:
            x, y = left, y + 18
        if trace["type"] == "bar":
            yield f'<path {_filled(trace["marker"])} d="M{x:.1f} {y - 10}h22v12h-22z"/>'
        elif trace["mode"] == "lines":
            yield f'<path {_stroked(trace["line"])} d="M{x:.1f} {y - 4}h22"/>'
        else:
            yield _marks(trace["marker"], [(x + 11, y - 4)])
        yield _text(x + 28, y, name, "start")
        x += width + 22


def _points(trace: Mapping[str, Any]) -> Iterator[tuple[Any, Any]]:
    return zip(trace["x"], trace["y"], strict=True)


def _filled(marker: Mapping[str, Any]) -> str:
    edge = marker["line"]
    stroke = f' stroke="{_paint(edge["color"])}" stroke-width="{edge["width"]}"' if edge["width"] else ""
    return f'fill="{_paint(marker["color"])}"{stroke}'


def _stroked(line: Mapping[str, Any]) -> str:
    dash = DASHES[line.get("dash", "solid")]
    dashed = f' stroke-dasharray="{dash}"' if dash else ""
    return f'fill="none" stroke="{_paint(line["color"])}" stroke-width="{line["width"]:g}"{dashed}'


def _paint(colour: str) -> str:
    return "currentColor" if colour == INK else colour


def _text(x: float, y: float, value: str, anchor: str, more: str = "", *, bold: str = "") -> str:
    """One line of text, after a bold word where there is one."""
    begin = f'<tspan font-weight="600">{escape(printable(bold))}</tspan>' if bold else ""
    head = f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{more}>'
    return f"{head}{begin}{escape(printable(value))}</text>"
