"""The report as plain text for mail and commit messages: ASCII, at most 72 columns, below 4 kB, no tabs.

Long capture texts are cut so that the limits hold for any input; what was cut is said.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any, Final

from reports import facts as report_facts
from reports import node_words, words
from reports.escape import ascii_only
from reports.facts import COLUMNS, Facts
from reports.words import cell

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

WIDTH: Final = 72
MAX_BYTES: Final = 4000
MAX_STRATEGIES: Final = 8
MAX_VERDICT: Final = 5
MAX_NAME: Final = 40
MAX_WORST: Final = 3
MAX_VALUE: Final = 160
"""Characters of one value (a path, a sentence) that are printed."""

_NAME_WIDTH: Final = 10
_KEPT_BYTES: Final = 700
"""Room that is kept for causes and limits."""

_EVIDENCE_WIDTH: Final = len("  predicted")
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
        _lines(*(_wrap(f"* {_cut(line)}", "  ") for line in words.verdict(facts)[:MAX_VERDICT])),
        strategy_table(facts.rows),
        _legend(facts),
    ]
    end = [] if report is None else [_wrap(f"Full report: {_cut(report)}", "  ")]
    room = MAX_BYTES - len("\n\n".join([*blocks, *end]))
    for block in (*_nodes(facts), *_walks(facts)):
        if len(block) + 2 + _KEPT_BYTES <= room:
            blocks.append(block)
            room -= len(block) + 2
    if facts.misses:
        causes = (miss.sentence for miss in facts.misses)
        # A third at most, so that what limits the evidence is never left out.
        blocks.append(_list("What made the mappings be missed:", causes, "tables/miss.parquet", room // 3))
        room -= len(blocks[-1])
    if facts.notes:
        limits = (f"{note.severity}: {note.head}: {note.effect}" for note in facts.notes)
        blocks.append(_list("What limits the evidence:", limits, "tables/quality.parquet", room))
    else:
        blocks.append("Nothing is known to limit the evidence.")
    return "\n\n".join([*blocks, *end]) + "\n"


def strategy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strategy table; each column's full name stands in a staircase above its right edge."""
    shown = rows[:MAX_STRATEGIES]
    columns = [[cell(row[column]) for row in shown] for column, _ in COLUMNS]
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


def _nodes(facts: Facts) -> list[str]:
    """Walks over every node that were asked for: a table a moment."""
    names = [name for _, name in node_words.COLUMNS]
    blocks = []
    for sentence, rows in node_words.moments(facts.nodes):
        cells = [[cell(row[column]) for column, _ in node_words.COLUMNS] for row in rows[:MAX_STRATEGIES]]
        widths = [max(map(len, column)) + 1 for column in zip(names, *cells, strict=True)]
        lines = [
            f"{ascii_only(name)[:_NAME_WIDTH]:<{_NAME_WIDTH}}"
            + "".join(text.rjust(width) for text, width in zip(texts, widths, strict=True))
            for name, texts in zip(
                ["strategy", *(row["strategy"] for row in rows)], [names, *cells], strict=False
            )
        ]
        blocks.append(_lines(_wrap(f"  {sentence}", "  "), *(lines if rows else [])))
    legend = [_wrap(sentence, "  ") for sentence in node_words.MEASURES] if blocks else []
    return [_lines(f"{node_words.TITLE}:", *blocks, *legend)] if blocks else []


def _walks(facts: Facts) -> list[str]:
    """What is left out first where there is no room."""
    blocks = []
    if facts.worst.rows:
        title, lines = words.worst_walks(facts, MAX_WORST)
        blocks.append(_lines(title, *(_wrap(f"  {_cut(line)}", "    ") for line in lines)))
    if facts.spread:
        blocks.append(digit_plot(facts))
    return blocks


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


def _provenance(facts: Facts) -> list[str]:
    lines = []
    for label, value in words.provenance(facts):
        lines.append(_wrap(f"{label:<7} {_cut(value)}", " " * 8))
    return lines


def _legend(facts: Facts) -> str:
    lines = [_wrap(sentence, "  ") for sentence in words.measures(facts)]
    lines += [_wrap(f"{word}: {meaning}.", "  ") for word, meaning in words.evidence(facts)]
    return _lines(*lines)


def _list(title: str, values: Iterable[str], place: str, room: int) -> str:
    """Title and values, the first at least, as many as there is room for; then where the others are."""
    lines = [title]
    left_out = 0
    room -= len(title) + len(f"\n  (1,000,000 more in {place})\n\n")
    for value in values:
        line = _wrap(f"  {_cut(value)}", "    ")
        room -= len(line) + 1
        if left_out or (room < 0 and len(lines) > 1):
            left_out += 1
        else:
            lines.append(line)
    if left_out:
        lines.append(f"  ({left_out:,} more in {place})")
    return _lines(*lines)


def _cut(value: object) -> str:
    text = ascii_only(str(value))
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 14]}... (cut here)"


def _wrap(text: str, indent: str) -> str:
    return "\n".join(textwrap.wrap(text, WIDTH, subsequent_indent=indent, break_on_hyphens=False))


def _lines(*lines: str) -> str:
    return "\n".join(lines)
