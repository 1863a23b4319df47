"""Small tables of values, shown in every document: one cell has one value, and one text for it.

A cell holds the value as the result tables have it (times and durations in ns, addresses as numbers); the
kind of its column says how it reads. JSON takes the values, text, Markdown and HTML the texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind: TypeAlias = Literal["", "wide", "n", "bad", "ms", "s", "x"]
KINDS: Final[dict[str, Kind]] = {
    "": "",  # a word
    "wide": "wide",  # text that may wrap
    "n": "n",  # a number
    "bad": "bad",  # a number that had better be 0
    "ms": "ms",  # ns, shown as ms
    "s": "s",  # ns after the first event, shown as seconds
    "x": "x",  # an address
}
MAX_ROWS: Final = 200
UNKNOWN: Final = "-"


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its heading.
        key: Its key in the JSON document.
        kind: How its values read.
    """

    name: str
    key: str
    kind: Kind

    @property
    def is_number(self) -> bool:
        """Whether it stands at the right."""
        return self.kind in ("n", "bad", "ms", "s")

    def show(self, value: Any, *, grouped: bool = False) -> str:
        """A value as text, unescaped; ``grouped``: with commas between thousands."""
        if value is None:
            return UNKNOWN
        if self.kind == "ms":
            value = value / 1e6
        elif self.kind == "s":
            return f"{value / 1e9:.6f}"
        elif self.kind == "x":
            return f"{value:#x}"
        comma = "," if grouped and self.is_number else ""
        if isinstance(value, float):
            return f"{value:{comma}.3f}"
        return f"{value:{comma}}" if isinstance(value, int) else str(value)


@dataclass(frozen=True)
class Grid:
    """A small table.

    Attributes:
        name: Its key in the JSON document.
        columns: Its columns.
        rows: Values, a sequence a row; None: not known.
        caption: What it shows and what it leaves out.
        title: Stands on what opens it, where the page has it closed; empty: it is open.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    caption: str = ""
    title: str = ""

    def texts(self, *, grouped: bool = False) -> list[list[str]]:
        """The cells of all rows as texts, unescaped."""
        return [
            [column.show(value, grouped=grouped) for column, value in zip(self.columns, row, strict=True)]
            for row in self.rows
        ]

    def values(self) -> list[dict[str, Any]]:
        """The rows for JSON; addresses as hexadecimal strings, which every reader of JSON keeps whole."""
        return [
            {
                column.key: column.show(value) if column.kind == "x" and value is not None else value
                for column, value in zip(self.columns, row, strict=True)
            }
            for row in self.rows
        ]


def grid(name: str, columns: str, rows: Sequence[Sequence[Any]], caption: str = "", title: str = "") -> Grid:
    """A grid from its columns in one string, ``heading``, ``heading:kind`` or ``heading=key:kind`` each.

    Without a key, the heading with underscores is the key. At most `MAX_ROWS` rows are kept; the caption says
    so.
    """
    parsed = []
    for part in columns.split(","):
        heading, _, kind = part.strip().partition(":")
        shown, _, key = heading.partition("=")
        parsed.append(Column(shown, key or shown.replace(" ", "_"), KINDS[kind]))
    cut = f"First {MAX_ROWS} of {len(rows):,} rows." if len(rows) > MAX_ROWS else ""
    return Grid(name, parsed, rows[:MAX_ROWS], " ".join(filter(None, (caption, cut))), title)
