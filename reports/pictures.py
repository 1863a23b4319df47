"""One figure as a file: SVG by ourselves, HTML with plotly.js inside, PNG by a browser or by matplotlib."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import textwrap
import warnings
from html import escape
from typing import TYPE_CHECKING, Any, Final

from reports.escape import plotly_label
from reports.figures import svg_picture
from reports.figures.palette import INK
from schemas.errors import OutputError, printable

if TYPE_CHECKING:
    from reports.figures.figure import Figure

WIDTH: Final = 1200
"""Width of a PNG in CSS pixels; it has twice as many dots."""

_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
INK_ON_PAPER: Final = "#1b1f24"
_RULE: Final = "#d8dee4"


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
        from reports.figures.by_matplotlib import draw_png

        return draw_png(light_spec(figure), [*_wrapped(figure.finding)], figure.title, WIDTH)
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
    lines = [(line, 16, 600) for line in _wrapped(figure.finding)] + [(printable(figure.title), 13, 400)]
    head = "".join(
        f'<text x="14" y="{24 + 21 * place}" font-size="{size}" font-weight="{weight}">{escape(text)}</text>'
        for place, (text, size, weight) in enumerate(lines)
    )
    top = 21 * len(lines) + 20
    _, _, rest = figure.picture.partition(">")
    height = figure.spec["layout"]["height"]
    style = f"text{{fill:{INK_ON_PAPER}}}.grid{{stroke:{_RULE};stroke-width:1;fill:none}}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {svg_picture.WIDTH} {height + top}" '
        f'width="{svg_picture.WIDTH}" height="{height + top}" color="{INK_ON_PAPER}" '
        f'font-family="system-ui, DejaVu Sans, sans-serif" font-size="13">'
        f"<title>{escape(printable(figure.finding))}</title><style>{style}</style>"
        f'<rect width="100%" height="100%" fill="#ffffff"/>{head}'
        f'<g transform="translate(0 {top})">{rest.removesuffix("</svg>")}</g></svg>\n'
    )


def light_spec(figure: Figure) -> dict[str, Any]:
    """The specification with the colours of light paper."""
    spec = json.loads(json.dumps(figure.spec), object_hook=_inked)
    layout = spec["layout"]
    layout |= {"paper_bgcolor": "#ffffff", "plot_bgcolor": "#ffffff"}
    for name in [name for name in layout if name.startswith(("xaxis", "yaxis"))]:
        layout[name] = dict.fromkeys(("gridcolor", "zerolinecolor"), _RULE) | layout[name]
    return {"data": spec["data"], "layout": layout}


def _inked(part: dict[str, Any]) -> dict[str, Any]:
    return part | {"color": INK_ON_PAPER} if part.get("color") == INK else part


def _wrapped(text: str) -> list[str]:
    """The finding in lines that fit above a picture."""
    return textwrap.wrap(printable(text), 118, break_on_hyphens=False)[:3]


def _by_kaleido(figure: Figure) -> bytes:
    import kaleido

    spec = light_spec(figure)
    layout = spec["layout"]
    lines = _wrapped(figure.finding)
    head = 21 * len(lines) + 34
    height = layout["height"] + head
    title = "<br>".join([*(f"<b>{plotly_label(line)}</b>" for line in lines), plotly_label(figure.title)])
    layout |= {
        "width": WIDTH,
        "height": height,
        "margin": {**layout["margin"], "t": layout["margin"]["t"] + head},
        "title": {
            "text": title,
            "x": 0.01,
            "xanchor": "left",
            "y": 1,
            "yanchor": "top",
            "pad": {"t": 2 + 11 * len(lines)},
        },
        "font": {"color": INK_ON_PAPER, "family": "DejaVu Sans, sans-serif", "size": 13},
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
