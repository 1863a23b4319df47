"""The report as Markdown (GitHub's dialect) for issue trackers: the same facts as the plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports import facts as report_facts
from reports import node_words, words
from reports.escape import markdown
from reports.facts import COLUMNS, Facts
from reports.words import cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

MAX_LISTED: Final = 30
MAX_WORST: Final = 3


def render_markdown(tables: Mapping[str, pa.Table]) -> str:
    """Render the report as Markdown; the same for the same tables, with a final newline."""
    return markdown_of(report_facts.gather(tables))


def markdown_of(facts: Facts) -> str:
    """As `render_markdown`, from facts already gathered."""
    legend = [
        *words.measures(facts),
        *(f"{word}: {text}." for word, text in words.evidence(facts)),
    ]
    blocks = [
        "### rmap_walk_ksm() replayed from a capture",
        " ".join(markdown(sentence) for sentence in words.verdict(facts)),
        strategy_table(facts.rows),
        bullets(legend),
    ]
    blocks += _nodes(facts)
    if facts.worst.rows:
        title, lines = words.worst_walks(facts, MAX_WORST)
        blocks += [markdown(title), bullets(lines)]
    if facts.misses:
        causes = [miss.sentence for miss in facts.misses]
        blocks += ["What made the mappings be missed:", bullets(_first(causes, "tables/miss.parquet"))]
    if facts.notes:
        limits = [f"{note.severity}: {note.head}: {note.effect}" for note in facts.notes]
        blocks += ["What limits the evidence:", bullets(_first(limits, "tables/quality.parquet"))]
    else:
        blocks.append("Nothing is known to limit the evidence.")
    blocks.append(table(("provenance", ""), words.provenance(facts), "--"))
    return "\n\n".join(blocks) + "\n"


def _nodes(facts: Facts) -> list[str]:
    """Walks over every node that were asked for: a table a moment."""
    header = ("strategy", *(name for _, name in node_words.COLUMNS))
    blocks = [f"{markdown(node_words.TITLE)}:"] if facts.nodes else []
    for sentence, rows in node_words.moments(facts.nodes):
        body = [(row["strategy"], *(cell(row[column]) for column, _ in node_words.COLUMNS)) for row in rows]
        blocks.append(markdown(sentence))
        if rows:
            blocks.append(table(header, body, "-" + "r" * len(node_words.COLUMNS)))
    return [*blocks, bullets(node_words.MEASURES)] if facts.nodes else []


def strategy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strategy table as a Markdown table, one row a strategy."""
    header = ("strategy", *(name for _, name in COLUMNS), "evidence")
    body = [(row["strategy"], *(cell(row[column]) for column, _ in COLUMNS), row["evidence"]) for row in rows]
    return table(header, body, "-" + "r" * len(COLUMNS) + "-")


def _first(lines: Sequence[str], place: str) -> Sequence[str]:
    """The first lines, and where the others are."""
    if len(lines) <= MAX_LISTED:
        return lines
    return [*lines[:MAX_LISTED], f"{len(lines) - MAX_LISTED} more in {place}"]


def bullets(lines: Iterable[str]) -> str:
    """A list, its lines escaped."""
    return "\n".join(f"- {markdown(line)}" for line in lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table; ``align`` has one character a column, ``r`` for right."""
    lines = [_row(header), _row(["---:" if mark == "r" else "---" for mark in align], escape=False)]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def _row(cells: Sequence[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(markdown(text) if escape else text for text in cells)} |"
