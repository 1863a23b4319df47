"""The report as plain text for mail and commit messages: ASCII, at most 72 columns, below 4 kB, no tabs.

Long capture texts are cut so that the limits hold for any input; what was cut is said.
"""

from __future__ import annotations

import re
import textwrap
from typing import TYPE_CHECKING, Any, Final

from reports import sections
from reports.escape import ascii_only
from reports.facts import all as report_facts
from reports.facts.all import COLUMNS, Facts
from reports.words import sentences as words
from reports.words.sentences import bounded, cell

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.grid import Grid
    from reports.section import Section

WIDTH: Final = 72
MAX_BYTES: Final = 4000
MAX_STRATEGIES: Final = 8
MAX_VERDICT: Final = 6
MAX_NAME: Final = 40
MAX_LINES: Final = 3
"""Lines of a list, but of the last one, which says what limits the evidence."""

MAX_VALUE: Final = 240
"""Characters of one value (a path, a sentence) that are printed."""

_NAME_WIDTH: Final = 10
_KEPT_BYTES: Final = 300
"""Room that a list leaves to each one below it."""

_EVIDENCE_WIDTH: Final = len("  predicted")
_UNIT: Final = re.compile(r"(?<=\d) (?=(?:%|ms|us|s)(?:\W|$))")
_MIN_WIDTHS: Final = (8, 6, 6, 6, 6, 6)


def render_text(tables: Mapping[str, pa.Table], *, report: str | os.PathLike[str] | None = None) -> str:
    """Render the report as plain text.

    Args:
        tables: Result tables by name.
        report: Where the full report lies, for the last line; None: no such line.

    Returns:
        Lines of at most 72 ASCII characters, with a final newline; the same for the same tables.
    """
    facts = report_facts.gather(tables)
    return text_of(facts, sections.sections(tables, facts), report=report)


def text_of(facts: Facts, parts: Sequence[Section], *, report: str | os.PathLike[str] | None = None) -> str:
    """As `render_text`, from facts and sections already made."""
    provenance = [_fitting(f"{label:<7} ", value) for label, value in words.short_provenance(facts)]
    blocks = [
        _lines(f"rmap_walk_ksm() replayed: {words.counts(facts)}", *provenance),
        _lines(*(_wrap(f"* {_cut(line)}", "  ") for line in words.verdict(facts)[:MAX_VERDICT])),
    ]
    if facts.rows:
        blocks += [strategy_table(facts.rows), _legend(facts)]
    end = [] if report is None else [_wrap(f"Full report: {_cut(report)}", "  ")]
    room = MAX_BYTES - len("\n\n".join([*blocks, *end])) - 2
    room = _add_tables(blocks, parts, room)
    lists = [part for part in parts if part.in_text and not part.as_tables and (part.lines or part.empty)]
    *others, limits = sorted(lists, key=lambda part: (part.name == "quality", part.name != "walks"))
    for left, part in zip(range(len(others) - 1, -1, -1), others, strict=True):
        block = _list(part, room - _KEPT_BYTES * (left + 2), MAX_LINES)
        if block and len(block) + 2 + _KEPT_BYTES * 2 <= room:
            blocks.append(block)
            room -= len(block) + 2
    if facts.spread:
        digits = digit_plot(facts)
        if len(digits) + 2 + _KEPT_BYTES * 2 <= room:
            blocks.append(digits)
            room -= len(digits) + 2
    blocks.append(_list(limits, room, len(limits.lines)) or limits.empty)
    return "\n\n".join([*blocks, *end]) + "\n"


def strategy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strategy table; each column's full name stands in a staircase above its right edge."""
    shown = rows[:MAX_STRATEGIES]
    columns = [[cell(bounded(row, column)) for row in shown] for column, _ in COLUMNS]
    widths = [
        max(least, *map(len, texts)) if texts else least
        for least, texts in zip(_MIN_WIDTHS, columns, strict=True)
    ]
    numbers = sum(widths) + len(widths) - 1
    name_width = max(1, min(_NAME_WIDTH, WIDTH - numbers - _EVIDENCE_WIDTH))
    edges = [name_width + sum(widths[: place + 1]) + place for place in range(len(widths))]
    lines = _staircase(edges)
    for number, row in enumerate(shown):
        name = ascii_only(row["strategy"])
        if len(name) >= name_width:
            lines.append(name[:MAX_NAME])
            name = ""
        cells = " ".join(texts[number].rjust(width) for texts, width in zip(columns, widths, strict=True))
        lines.append(f"{name:<{name_width}}{cells}  {row['evidence']}")
    if len(rows) > len(shown):
        lines.append(f"({len(rows) - len(shown)} more strategies in summary.json)")
    return "\n".join(lines)


def digit_plot(facts: Facts) -> str:
    """Loops by iterations: a row a strategy, a column each power of two, a digit for the number of loops."""
    names = [name for name in facts.strategies if name in facts.spread][:MAX_STRATEGIES]
    columns = max(len(facts.spread[name]) for name in names)
    rows = []
    for name in names:
        counts = facts.spread[name]
        digits = [str(min(9, len(str(n)))) if n else "." for n in counts] + ["."] * (columns - len(counts))
        rows.append(f"  {ascii_only(name)[:_NAME_WIDTH]:<{_NAME_WIDTH}} {' '.join(digits)}")
    top = 0 if columns < 2 else 2 ** (columns - 1) - 1
    scale = "" if columns < 2 else f", then 1, 2-3, 4-7, ... up to {top:,}"
    return _lines(
        "Inner loops by iterations:",
        *rows,
        _wrap(f"  columns: no iteration{scale}", "    "),
        "  digit: digits of the number of loops (1: 1-9, 2: 10-99, ...)",
    )


def _add_tables(blocks: list[str], parts: Sequence[Section], room: int) -> int:
    """Append the sections that are tables, as far as there is room; return what room is left."""
    for part in parts:
        if part.as_tables:
            tables = [_table(each) for each in part.grids]
            block = _lines(part.in_text, *tables, *(_wrap(each, "  ") for each in part.sentences))
            if len(block) + 2 + _KEPT_BYTES * 2 <= room:
                blocks.append(block)
                room -= len(block) + 2
    return room


def _table(each: Grid) -> str:
    """Caption and rows, the first column cut to its width; columns that do not fit any more are left out."""
    rows = [[column.name for column in each.columns], *each.texts()[:MAX_STRATEGIES]]
    lines = [f"{ascii_only(row[0])[:_NAME_WIDTH]:<{_NAME_WIDTH}}" for row in rows]
    for place in range(1, len(each.columns)):
        width = max(len(row[place]) for row in rows) + 1
        if len(lines[0]) + width <= WIDTH:
            lines = [line + row[place].rjust(width) for line, row in zip(lines, rows, strict=True)]
    return _lines(_wrap(f"  {each.caption}", "  "), *(lines if each.rows else []))


def _staircase(edges: Sequence[int]) -> list[str]:
    """Header lines: the three long names one below the other, a bar from each down to its column."""
    names = [name for _, name in COLUMNS]
    lines = []
    stairs = (3, 2, 1)
    for step, column in enumerate(stairs):
        line = names[column].rjust(edges[column])
        for higher in reversed(stairs[:step]):
            line = f"{line:<{edges[higher] - 1}}|"
        lines.append(line)
    last = "strategy"
    for column, edge in enumerate(edges):
        text = "|" if column in stairs else names[column]
        last = f"{last}{text.rjust(edge - len(last))}"
    return [*lines, f"{last}  evidence"]


def _legend(facts: Facts) -> str:
    lines = [_wrap(sentence, "  ") for sentence in words.measures(facts)]
    lines += [_wrap(f"{word}: {meaning}.", "  ") for word, meaning in words.evidence(facts)]
    return _lines(*lines)


def _list(part: Section, room: int, most: int) -> str:
    """Heading and lines, the first at least, as many as there is room for; empty: there are none."""
    if not part.lines:
        return ""
    place = f"report.html#{part.name}"
    lines = [part.in_text]
    left_out = 0
    room -= len(part.in_text) + len(f"\n  (1,000,000 more in {place})\n\n")
    for value in part.lines:
        line = _wrap(f"  {_cut(value)}", "    ")
        room -= len(line) + 1
        if left_out or len(lines) > most or (room < 0 and len(lines) > 1):
            left_out += 1
        else:
            lines.append(line)
    if left_out:
        lines.append(f"  ({left_out:,} more in {place})")
    return _lines(*lines)


def _fitting(label: str, value: str) -> str:
    """One line; a value that is too long loses its begin if that is a path, else its end."""
    value, width = ascii_only(value), WIDTH - len(label)
    if len(value) > width:
        kept = width - 3
        value = f"...{value[-kept:]}" if label.startswith("capture") else f"{value[:kept]}..."
    return label + value


def _cut(value: object) -> str:
    text = ascii_only(str(value))
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 14]}... (cut here)"


def _wrap(text: str, indent: str) -> str:
    """Lines of the width; a number stays with its unit."""
    lines = textwrap.wrap(_UNIT.sub("\0", text), WIDTH, subsequent_indent=indent, break_on_hyphens=False)
    return "\n".join(lines).replace("\0", " ")


def _lines(*lines: str) -> str:
    return "\n".join(lines)
