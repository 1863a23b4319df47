"""The tables described for readers: as text for a terminal, as Markdown, as JSON."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from schemas.table import Column, Table

WIDTH = 80


def list_text(tables: Mapping[str, Table]) -> str:
    """One entry a table: name, version, what one row is."""
    indent = " " * (2 + max(len(name) for name in tables) + 2)
    entries = [
        _wrap(f"  {table.name}".ljust(len(indent)) + table.doc, subsequent=indent)
        for table in tables.values()
    ]
    return "Tables (`replay schema TABLE` lists the columns):\n" + "".join(entries)


def list_markdown(tables: Mapping[str, Table]) -> str:
    """One row a table."""
    rows = [f"| `{table.name}` | {table.version} | {_cell(table.doc)} |\n" for table in tables.values()]
    return "| table | version | one row is |\n| --- | --- | --- |\n" + "".join(rows)


def text(tables: Mapping[str, Table]) -> str:
    """The tables with all their columns, 80 characters wide."""
    return "\n".join(_table_text(table) for table in tables.values())


def markdown(tables: Mapping[str, Table]) -> str:
    """The tables with all their columns, one row a column."""
    return "\n".join(_table_markdown(table) for table in tables.values())


def _table_text(table: Table) -> str:
    head = _wrap(f"{table.name} (version {table.version}): {table.doc}", subsequent="")
    return head + "".join("\n" + _column_text(column) for column in table.columns)


def _table_markdown(table: Table) -> str:
    rows = [
        f"| `{column.name}` | {column.type} | {column.unit or ''} | {_cell(column.null or 'never')} "
        f"| {_cell(column.doc)} | {_cell(column.source)} |\n"
        for column in table.columns
    ]
    return (
        f"## {table.name} ({table.version})\n\n{table.doc}\n\n"
        "| column | type | unit | null | meaning | source |\n"
        "| --- | --- | --- | --- | --- | --- |\n" + "".join(rows)
    )


def as_json(tables: Mapping[str, Table]) -> str:
    """``{NAME: {version, doc, columns: [{name, type, unit, null, doc, source}]}}``."""
    described = {
        table.name: {
            "version": table.version,
            "doc": table.doc,
            "columns": [
                {
                    "name": column.name,
                    "type": str(column.type),
                    "unit": column.unit,
                    "null": column.null,
                    "doc": column.doc,
                    "source": column.source,
                }
                for column in table.columns
            ],
        }
        for table in tables.values()
    }
    return json.dumps(described, indent=2) + "\n"


def _column_text(column: Column) -> str:
    unit = f", {column.unit}" if column.unit else ""
    parts = [_wrap(f"  {column.name}  ({column.type}{unit})", subsequent="      ")]
    parts.append(_wrap(f"      {column.doc}", subsequent="      "))
    if column.null is not None:
        parts.append(_wrap(f"      null: {column.null}", subsequent="        "))
    parts.append(_wrap(f"      source: {column.source}", subsequent="        "))
    return "".join(parts)


def _wrap(words: str, *, subsequent: str) -> str:
    lines = textwrap.wrap(
        words, WIDTH, subsequent_indent=subsequent, break_long_words=False, break_on_hyphens=False
    )
    return "\n".join(lines) + "\n"


def _cell(words: str) -> str:
    """Text for a cell of a Markdown table."""
    return words.replace("|", "\\|")
