"""What ``replay inspect`` says for scripts: one JSON document, versioned, keys in a stable order."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

SCHEMA_VERSION: Final = "1.0"
"""``MAJOR.MINOR``: a new key raises MINOR; one that is removed, retyped or means something else, MAJOR."""

MAX_ROWS: Final = 10_000
"""Rows of ``quality`` that the document holds; ``omitted`` counts the others."""


def render_json(tables: Mapping[str, pa.Table]) -> str:
    """Render the tables of ``replay.inspect.inspect`` as JSON; byte-identical for the same tables.

    Keys: ``schema_version``; ``capture`` (the row of that table); ``answers``, ``events``, ``quality``,
    ``recordings`` (rows of tables ``answer``, ``event``, ``quality``, ``recording``, with their columns: see
    `replay schema`); ``omitted`` (rows of ``quality`` beyond the first 10,000). Null means not known.

    Raises:
        ValueError: A number is not finite.
    """
    quality = tables["quality"]
    document = {
        "schema_version": SCHEMA_VERSION,
        "capture": tables["capture"].to_pylist()[0],
        "answers": tables["answer"].to_pylist(),
        "events": tables["event"].to_pylist(),
        "quality": quality.slice(0, MAX_ROWS).to_pylist(),
        "recordings": tables["recording"].to_pylist(),
        "omitted": {"quality": max(0, quality.num_rows - MAX_ROWS)},
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
