"""The report as Markdown (GitHub's dialect) for issue trackers: the same facts as the plain text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports import sections
from reports.escape import markdown
from reports.facts import all as report_facts
from reports.facts.all import COLUMNS, Facts
from reports.words import sentences as words
from reports.words.sentences import bounded, cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from reports.section import Section

MAX_LISTED: Final = 30


def render_markdown(tables: Mapping[str, pa.Table]) -> str:
    """Render the report as Markdown; the same for the same tables, with a final newline."""
    facts = report_facts.gather(tables)
    return markdown_of(facts, sections.sections(tables, facts))


def markdown_of(facts: Facts, parts: Sequence[Section]) -> str:
    """As `render_markdown`, from facts and sections already made."""
    legend = [*words.measures(facts), *(f"{word}: {text}." for word, text in words.evidence(facts))]
    blocks = [
        f"### rmap\\_walk\\_ksm() replayed: {words.counts(facts)}",
        bullets(words.verdict(facts)),
        *([strategy_table(facts.rows), bullets(legend)] if facts.rows else []),
    ]
    for part in parts:
        if part.name not in ("strategies", "provenance"):
            blocks += _section(part)
    blocks += ["#### Where this comes from", table(("", ""), words.short_provenance(facts), "--")]
    return "\n\n".join(blocks) + "\n"


def _section(part: Section) -> list[str]:
    """Heading, sentences and the first tables, long ones cut."""
    blocks = [f"#### {markdown(part.title)}"]
    if part.sentences:
        blocks.append(" ".join(map(markdown, part.sentences)))
    elif not part.grids:
        return [*blocks, markdown(part.empty)] if part.empty else []
    for each in part.grids:
        if each.caption and part.as_tables:
            blocks.append(markdown(each.caption))
        if not each.rows:
            continue
        header = [column.name for column in each.columns]
        align = "".join("r" if column.is_number else "-" for column in each.columns)
        blocks.append(table(header, each.texts()[:MAX_LISTED], align))
        if len(each.rows) > MAX_LISTED:
            blocks.append(f"{len(each.rows) - MAX_LISTED} more rows in report.html.")
    return blocks


def strategy_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The strategy table as a Markdown table, one row a strategy."""
    header = ("strategy", *(name for _, name in COLUMNS), "evidence")
    body = [
        (row["strategy"], *(cell(bounded(row, column)) for column, _ in COLUMNS), row["evidence"])
        for row in rows
    ]
    return table(header, body, "-" + "r" * len(COLUMNS) + "-")


def bullets(lines: Iterable[str]) -> str:
    """A list, its lines escaped."""
    return "\n".join(f"- {markdown(line)}" for line in lines)


def table(header: Sequence[str], rows: Iterable[Sequence[str]], align: str) -> str:
    """A table; ``align`` has one character a column, ``r`` for right."""
    lines = [_row(header), _row(["---:" if mark == "r" else "---" for mark in align], escape=False)]
    return "\n".join([*lines, *(_row(row) for row in rows)])


def _row(cells: Sequence[str], *, escape: bool = True) -> str:
    return f"| {' | '.join(markdown(text) if escape else text for text in cells)} |"
