"""One figure as a file: SVG by ourselves, HTML with plotly.js inside, PNG by a browser or by matplotlib."""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, Final

from reports import svg
from reports.escape import plotly_label
from reports.palette import INK
from schemas.errors import OutputError, printable

if TYPE_CHECKING:
    from reports.figure import Figure

WIDTH: Final = 1200
"""Width of a PNG in CSS pixels; it has twice as many dots."""

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_COLOURS: Final = {"ink": "#1b1f24", "soft": "#57606a", "rule": "#d8dee4", "paper": "#ffffff"}
_HEAD: Final = 64


def render_figure(figure: Figure, suffix: str) -> bytes:
    """Render a figure with a title that says what it shows.

    Args:
        figure: The figure.
        suffix: ``.svg`` (needs nothing), ``.html`` (one file that needs no network) or ``.png`` (needs
            kaleido and a Chromium or Chrome, else matplotlib).

    Raises:
        OutputError: Nothing is installed that makes a PNG, or it failed.
    """
    if suffix == ".svg":
        return standalone_svg(figure).encode()
    if suffix == ".html":
        from reports.page import figure_page

        return figure_page(figure).encode()
    if find_browser() is not None and importlib.util.find_spec("kaleido") is not None:
        return _by_kaleido(figure)
    if importlib.util.find_spec("matplotlib") is not None:
        from reports.by_matplotlib import draw_png

        return draw_png(light_spec(figure), figure.title, figure.alt, WIDTH)
    raise OutputError(
        "nothing is installed that makes a PNG",
        path="<picture>",
        hint="pip install 'rmap-replay[plot]' (and apt install chromium for its best), or use -o FILE.svg",
    )


def find_browser() -> str | None:
    """Path of a Chromium or Chrome: the environment's BROWSER_PATH, or the first one on PATH."""
    named = os.environ.get("BROWSER_PATH")
    if named:
        return named
    return next((path for name in _BROWSERS if (path := shutil.which(name))), None)


def standalone_svg(figure: Figure) -> str:
    """The static picture as an SVG file: white paper, title above."""
    head = "".join(
        f'<text x="14" y="{24 + 22 * line}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
        for line, (text, size, weight) in enumerate(
            [(printable(figure.alt), 17, 600), (printable(figure.title), 13, 400)]
        )
    )
    start, _, rest = figure.picture.partition(">")
    height = int(start.partition('viewBox="0 0 ')[2].split()[1].partition('"')[0])
    style = (
        f"text{{fill:{_COLOURS['ink']}}}.grid{{stroke:{_COLOURS['rule']};stroke-width:1;fill:none}}"
        f".ink-stroke{{stroke:{_COLOURS['ink']};fill:none}}.ink-fill{{fill:{_COLOURS['ink']}}}"
    )
    box = f"0 0 {svg.WIDTH} {height + _HEAD}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}" width="{svg.WIDTH}" '
        f'height="{height + _HEAD}" font-family="system-ui, DejaVu Sans, sans-serif" font-size="12">'
        f"<title>{escape(printable(figure.alt))}</title><style>{style}</style>"
        f'<rect width="100%" height="100%" fill="{_COLOURS["paper"]}"/>{head}'
        f'<g transform="translate(0 {_HEAD})">{rest.removesuffix("</svg>")}</g></svg>\n'
    )


def light_spec(figure: Figure) -> dict[str, Any]:
    """The specification with the colours of light paper."""
    layout = {**figure.spec["layout"], "paper_bgcolor": _COLOURS["paper"], "plot_bgcolor": _COLOURS["paper"]}
    for name in [name for name in layout if name.startswith(("xaxis", "yaxis"))]:
        layout[name] = (
            dict.fromkeys(("gridcolor", "linecolor", "zerolinecolor"), _COLOURS["rule"]) | layout[name]
        )
    data = []
    for trace in figure.spec["data"]:
        marker = trace.get("marker", {})
        inked = {**marker, "color": _COLOURS["ink"]} if marker.get("color") == INK else marker
        data.append({**trace, "marker": inked} if marker else trace)
    return {"data": data, "layout": layout}


def _by_kaleido(figure: Figure) -> bytes:
    import kaleido

    spec = light_spec(figure)
    layout = spec["layout"]
    height = layout["height"] + _HEAD
    margin = layout["margin"]
    title = f"<b>{plotly_label(figure.alt)}</b><br>{plotly_label(figure.title)}"
    layout |= {
        "width": WIDTH,
        "height": height,
        "margin": {**margin, "l": max(margin["l"], 80), "t": margin["t"] + _HEAD},
        "title": {"text": title, "x": 0.01, "xanchor": "left", "y": 1, "yanchor": "top", "pad": {"t": 14}},
        "font": {"color": _COLOURS["ink"], "family": "DejaVu Sans, sans-serif", "size": 13},
    }
    layout["title"]["font"] = {"size": 15}
    options = {"format": "png", "width": WIDTH, "height": height, "scale": 2}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # kaleido warns of its own deprecations
            picture: bytes = kaleido.calc_fig_sync(spec, opts=options, kopts={"path": find_browser()})
    except Exception as error:
        raise OutputError(
            f"the browser made no picture: {printable(str(error))[:200]}",
            path=find_browser() or "<browser>",
            hint="BROWSER_PATH names another Chromium; -o FILE.svg needs none",
        ) from error
    return picture
