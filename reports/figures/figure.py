"""What a figure of the report consists of, and the few parts that all figures are made of.

A specification is the plain dictionary that plotly.js takes (``plotly.graph_objects.Figure(spec)`` takes it
as well), made of `boxes`, `lines`, `marks`, `labels` and `note` only, so that `reports.svg_picture` and
`reports.by_matplotlib` draw the same. It names no font; colours of text and lines that are `INK` are the
page's, for light and dark paper. Every string of the capture in it is escaped with
`reports.escape.plotly_label`, and hover texts are whole strings, never templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from reports.figures import svg_picture
from reports.figures.palette import INK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.grid import Grid

FILLED: Final = ("circle", "triangle-up", "triangle-down")
SECONDS: Final = "time (s after the first event of the capture)"


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: Stable name, id of its place in the page.
        finding: What it shows, in a sentence.
        title: What is drawn.
        caption: Sentences below it: how to read it, what was put together.
        spec: ``data`` and ``layout`` for plotly.js.
        table: The same numbers.
    """

    name: str
    finding: str
    title: str
    caption: Sequence[str]
    spec: Mapping[str, Any]
    table: Grid

    @property
    def picture(self) -> str:
        """The same as SVG, for readers without JavaScript, and for print."""
        return svg_picture.draw(self.spec, self.finding)


def boxes(
    spans: Sequence[tuple[float, float, float, float]],
    name: str,
    colour: str,
    *,
    edge: float = 0,
    outline: str = INK,
    **more: Any,
) -> dict[str, Any]:
    """Boxes ``(left, right, bottom, top)`` of one colour; ``edge``: width of their ``outline``."""
    return {
        "type": "bar",
        "orientation": "h",
        "name": name,
        "base": [left for left, _, _, _ in spans],
        "x": [round(right - left, 9) for left, right, _, _ in spans],
        "y": [(bottom + top) / 2 for _, _, bottom, top in spans],
        "width": [top - bottom for _, _, bottom, top in spans],
        "marker": {"color": colour, "line": {"color": outline, "width": edge}},
        "hoverinfo": "text" if "hovertext" in more else "skip",
        **more,
    }


def lines(
    x: Sequence[float | None],
    y: Sequence[float | None],
    name: str,
    colour: str,
    *,
    width: float = 2,
    **more: Any,
) -> dict[str, Any]:
    """A line through points; None breaks it."""
    line = {"color": colour, "width": width, **more.pop("line", {})}
    hover = "text" if "hovertext" in more else "skip"
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "line": line,
        "hoverinfo": hover,
    } | more


def marks(
    x: Sequence[float], y: Sequence[float], name: str, symbol: str, size: float, colour: str, **more: Any
) -> dict[str, Any]:
    """Marks at points; symbols: those of `reports.svg_picture.SYMBOLS`."""
    outline = {"color": colour, "width": 0 if symbol in FILLED else 2}
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": x,
        "y": y,
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": outline},
        "hoverinfo": "text" if "hovertext" in more else "skip",
        **more,
    }


def labels(x: Sequence[float], y: Sequence[float], texts: Sequence[str], **more: Any) -> dict[str, Any]:
    """Texts above points."""
    return {
        "type": "scatter",
        "mode": "text",
        "name": "",
        "x": x,
        "y": y,
        "text": texts,
        "textposition": "top center",
        "textfont": {"size": 11},
        "cliponaxis": False,
        "hoverinfo": "skip",
        "showlegend": False,
        **more,
    }


def note(text: str, x: float, y: float, **more: Any) -> dict[str, Any]:
    """A text in the figure; ``xref`` and ``yref``: ``paper``, or an axis."""
    return {"text": text, "x": x, "y": y, "xref": "paper", "yref": "paper", "xanchor": "left"} | {
        "yanchor": "bottom",
        "showarrow": False,
        **more,
    }


def seconds_axis(left: float, right: float, **more: Any) -> dict[str, Any]:
    """The axis of time."""
    return {"title": axis_title(SECONDS), "range": [left, right], "zeroline": False} | more


def axis_title(text: str) -> dict[str, Any]:
    """Title of an axis."""
    return {"text": text, "standoff": 8, "font": {"size": 13}}


def layout(height: int, left: int, top: int, **more: Any) -> dict[str, Any]:
    """What all figures have in common; ``left``, ``top``: margins in px."""
    return {
        "height": height,
        "margin": {"l": left, "r": 20, "t": top, "b": 54},
        "barmode": "overlay",
        "hovermode": "closest",
        "showlegend": False,
        "legend": {"orientation": "h", "x": 0, "y": 1 + 6 / (height - top - 54), "yanchor": "bottom"},
        **more,
    }
