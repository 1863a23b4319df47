"""Two results side by side, as text of at most 72 columns, as Markdown and as JSON."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any, Final

from reports import markdown
from reports.escape import ascii_only
from reports.words.sentences import cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_WIDTH: Final = 72
_MAX_VALUE: Final = 160


def render_json(document: Mapping[str, Any]) -> str:
    """The comparison as JSON."""
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def render_text(document: Mapping[str, Any]) -> str:
    """The comparison as plain text, differences first."""
    blocks = ["\n".join(["Two results of replay", *_origins(document)])]
    for title, header, rows in _tables(document):
        blocks.append("\n".join([title, *_table(header, rows)]))
    blocks.append(_same(document))
    return "\n\n".join(blocks) + "\n"


def render_markdown(document: Mapping[str, Any]) -> str:
    """The comparison as Markdown, differences first."""
    blocks = ["### Two results of replay", markdown.bullets(_captures(document))]
    for title, header, rows in _tables(document):
        aligned = "--" + "r" * (len(header) - 2)
        blocks += [title, markdown.table(header, rows, aligned)]
    blocks.append(_same(document))
    return "\n\n".join(blocks) + "\n"


def _captures(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for side, capture, ran in zip("AB", document["captures"], document["ran"], strict=True):
        kernel = capture["kernel_release"] or "kernel not known"
        how = "runs" if capture["native_strategy"] else "by its tree key runs"
        lines.append(f"{side}: {capture['path']}, {kernel}{f', {how} {ran}' if ran else ''}")
    return lines


def _origins(document: Mapping[str, Any]) -> list[str]:
    lines = []
    for line in _captures(document):
        lines += textwrap.wrap(ascii_only(line)[:_MAX_VALUE], _WIDTH, subsequent_indent="   ")
    return lines


def _tables(document: Mapping[str, Any]) -> list[tuple[str, list[str], list[list[str]]]]:
    """Title, header and rows of the tables that hold something."""
    found = []
    for title, differs in (
        ("What differs:", True),
        ("What only one side knows:", None),
    ):
        rows = [
            [row["strategy"], row["measure"], cell(row["a"]), cell(row["b"])]
            for row in document["rows"]
            if row["differs"] is differs
        ]
        found.append((title, ["strategy", "measure", "A", "B"], rows))
    predictions = []
    for side, other in ("AB", "BA"):
        own = [row for row in document["predictions"] if row["from"] == side]
        rows = [
            [row["strategy"], row["measure"], cell(row["predicted"]), cell(row["observed"])] for row in own
        ]
        title = f"Predicted from {side} under the strategy that {other} ran, observed in {other}:"
        predictions.append((title, ["strategy", "measure", f"from {side}", f"in {other}"], rows))
    found[1:1] = predictions
    return [entry for entry in found if entry[2]]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    shown = [[ascii_only(text)[:24] for text in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    return [
        "  ".join(
            text.ljust(width) if place < 2 else text.rjust(width)
            for place, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in shown
    ]


def _same(document: Mapping[str, Any]) -> str:
    same = sum(row["differs"] is False for row in document["rows"])
    known = sum(row["differs"] is not None for row in document["rows"])
    return f"{same} of {known} values that both sides know are the same. -: not known."
