"""The report as plain text for mail and commit messages: ASCII, at most 72 columns, below 4 kB, no tabs.

Long capture texts are cut so that the limits hold for any input; what was cut is said.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from reports import facts as report_facts
from reports.escape import ascii_only
from reports.facts import COLUMNS, Facts, MissCause, Note, cell

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

WIDTH: Final = 72
MAX_STRATEGIES: Final = 12
MAX_MISSES: Final = 6
MAX_NOTES: Final = 6
MAX_VALUE: Final = 200
"""Characters of one value (a path, a sentence) that are printed."""

_NAME_WIDTH: Final = 10
_MIN_WIDTHS: Final = (8, 6, 6, 6, 6, 6)


def render_text(tables: Mapping[str, pa.Table], *, report: str | os.PathLike[str] | None = None) -> str:
    """Render the report as plain text.

    Args:
        tables: Result tables by name.
        report: Where the full report lies, for the last line; None: no such line.

    Returns:
        Lines of at most 72 ASCII characters, with a final newline; the same for the same tables.
    """
    return text_of(report_facts.gather(tables), report=report)


def text_of(facts: Facts, *, report: str | os.PathLike[str] | None = None) -> str:
    """As `render_text`, from facts already gathered."""
    blocks = [
        _lines("rmap_walk_ksm() replayed from a capture", *_provenance(facts)),
        _wrap(" ".join(report_facts.verdict(facts)[:MAX_STRATEGIES])),
        strategy_table(facts.rows),
        _legend(facts),
    ]
    if facts.misses:
        blocks.append(_misses(facts.misses))
    blocks.append(_notes(facts.notes))
    if report is not None:
        blocks.append(_wrap(f"Full report: {_cut(report)}", indent="  "))
    return "\n\n".join(blocks) + "\n"


def strategy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strategy table; each column's full name stands in a staircase above its right edge."""
    shown = rows[:MAX_STRATEGIES]
    columns = [[cell(row[column]) for row in shown] for column, _ in COLUMNS]
    widths = [
        max(least, *map(len, texts)) if texts else least
        for least, texts in zip(_MIN_WIDTHS, columns, strict=True)
    ]
    edges: list[int] = []
    at = _NAME_WIDTH
    for width in widths:
        at += width + (1 if edges else 0)
        edges.append(at)
    lines = _staircase(edges)
    for number, row in enumerate(shown):
        name = ascii_only(row["strategy"])
        if len(name) > _NAME_WIDTH - 1:
            lines.append(name[:WIDTH])
            name = ""
        cells = " ".join(texts[number].rjust(width) for texts, width in zip(columns, widths, strict=True))
        lines.append(f"{name:<{_NAME_WIDTH}}{cells}  {row['evidence']}")
    if len(rows) > len(shown):
        lines.append(f"({len(rows) - len(shown)} more strategies in summary.json)")
    return "\n".join(lines)


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
    last = f"{'strategy':<{_NAME_WIDTH}}"
    for column, edge in enumerate(edges):
        text = "|" if column in stairs else names[column]
        last = f"{last}{text.rjust(edge - len(last))}"
    return [*lines, f"{last}  evidence"]


def _provenance(facts: Facts) -> list[str]:
    lines = []
    for label, value in report_facts.provenance(facts):
        lines.append(_wrap(f"{label:<7} {_cut(value)}", indent=" " * 8))
    return lines


def _legend(facts: Facts) -> str:
    lines = [_wrap(sentence, indent="  ") for sentence in report_facts.measures(facts)]
    lines += [_wrap(f"{word}: {meaning}.", indent="  ") for word, meaning in report_facts.evidence(facts)]
    return _lines(*lines)


def _misses(misses: Sequence[MissCause]) -> str:
    lines = ["What made the mappings be missed:"]
    for miss in misses[:MAX_MISSES]:
        cause = "cause not known" if miss.cause is None else _cut(miss.cause)
        lines.append(_wrap(f"  {_cut(miss.strategy)}: {miss.mappings} by {cause}", indent="    "))
    if len(misses) > MAX_MISSES:
        lines.append(f"  ({len(misses) - MAX_MISSES} more causes in tables/miss.parquet)")
    return _lines(*lines)


def _notes(notes: Sequence[Note]) -> str:
    if not notes:
        return "Nothing is known to limit the evidence."
    lines = ["What limits the evidence:"]
    for note in notes[:MAX_NOTES]:
        lines.append(_wrap(f"  {note.severity}: {_cut(note.head)}: {_cut(note.effect)}", indent="    "))
    if len(notes) > MAX_NOTES:
        lines.append(f"  ({len(notes) - MAX_NOTES} more in tables/quality.parquet)")
    return _lines(*lines)


def _cut(value: object) -> str:
    text = ascii_only(str(value))
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 14]}... (cut here)"


def _wrap(text: str, indent: str = "") -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False))


def _lines(*lines: str) -> str:
    return "\n".join(lines)
