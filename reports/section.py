"""A section of the documents: what it says, its tables, its figures. `reports.sections` lists them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from reports.figures.figure import Figure
    from reports.grid import Grid


@dataclass(frozen=True)
class Section:
    """One section.

    Attributes:
        name: Its place in the page, ``#NAME``; keys of its grids are those of the JSON document.
        title: Its heading.
        sentences: What it says first; ends the heading's suspense with numbers of the tables.
        lines: The same for plain text and mail, one item a line; empty: it is not in the text report.
        grids: Its tables.
        draw: What draws its figures, when a document wants them, with a detail: 1 as usual, less for fewer
            parts, more for more; None: there is nothing to draw.
        empty: What the page says where there is neither table nor figure.
        in_text: Heading of the lines, or of the tables, in the text report.
        as_tables: The text report shows the tables, not the lines.
    """

    name: str
    title: str
    sentences: Sequence[str] = ()
    lines: Sequence[str] = ()
    grids: Sequence[Grid] = ()
    draw: Sequence[Callable[[float], Figure | None]] = ()
    empty: str = ""
    in_text: str = ""
    as_tables: bool = False
