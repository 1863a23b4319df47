"""What a figure of the report consists of.

A specification is the plain dictionary that plotly.js takes (``plotly.graph_objects.Figure(spec)`` takes it
as well). It names no font and no colour of text: the page sets these for light and dark paper. Every string
of the capture in it is escaped with `reports.escape.plotly_label`, and hover texts are whole strings, never
templates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class Figure:
    """One figure of the report.

    Attributes:
        name: Stable name, id of its place in the page.
        title: What is drawn.
        alt: What a reader who does not see it should know.
        caption: Sentences below it: how to read it, what was put together.
        spec: ``data`` and ``layout`` for plotly.js.
        picture: The same as SVG.
        header: Columns of the table beside it, as `reports.excerpts.grid` takes them.
        rows: Cells of the table, unescaped.
    """

    name: str
    title: str
    alt: str
    caption: Sequence[str]
    spec: Mapping[str, Any]
    picture: str
    header: str
    rows: Sequence[Sequence[str]]
