"""What a notebook shows of an analysis: verdict and strategy table as plain HTML, everything escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from reports import excerpts
from reports.facts import all as report_facts
from reports.words import sentences as words
from schemas.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa


def analysis_html(tables: Mapping[str, pa.Table]) -> str:
    """Verdict and strategy table.

    Args:
        tables: Result tables by name.
    """
    facts = report_facts.gather(tables)
    said = "".join(f"<li>{_safe(sentence)}</li>" for sentence in words.verdict(facts))
    grid = excerpts.strategies(facts)
    head = "".join(f"<th>{_safe(column.name)}</th>" for column in grid.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td>{_safe(text)}</td>' for text in row)}</tr>" for row in grid.texts(grouped=True)
    )
    return (
        f"<p>rmap_walk_ksm() replayed from <code>{_safe(facts.capture['path'])}</code></p><ul>{said}</ul>"
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
    )


def _safe(text: str) -> str:
    return escape(printable(text))
