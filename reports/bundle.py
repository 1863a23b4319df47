"""Everything of one analysis in one zip, to attach to a report: byte-identical for the same tables."""

from __future__ import annotations

import io
import json
import zipfile
from hashlib import sha256
from typing import TYPE_CHECKING, Final

import pyarrow.parquet as pq

from reports import markdown, page, summary_json, text
from reports.facts import all as report_facts
from reports.sections import sections

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

MANIFEST_VERSION: Final = "1.0"
_LIMITS: Final = (("a GitHub issue", 25 * 2**20), ("a gitlab.com issue", 100 * 2**20))
_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


def make_bundle(tables: Mapping[str, pa.Table], max_bytes: int = page.MAX_BYTES) -> bytes:
    """Make the zip.

    Args:
        tables: Result tables by name.
        max_bytes: Largest page.

    Returns:
        A zip of ``report.txt``, ``report.md``, ``report.html``, ``summary.json``, ``tables/*.parquet`` and
        ``manifest.json`` (``schema_version``; ``files``: name, size in bytes, sha256 of each other file).
    """
    facts = report_facts.gather(tables)
    parts = sections(tables, facts)
    content = {
        "report.txt": text.text_of(facts, parts, report="report.html").encode("ascii"),
        "report.md": markdown.markdown_of(facts, parts).encode(),
        "report.html": page.page_of(facts, parts, tables, max_bytes).encode(),
        "summary.json": summary_json.json_of(facts, parts).encode("ascii"),
    }
    for name, table in tables.items():
        stream = io.BytesIO()
        pq.write_table(table, stream, compression="zstd")
        content[f"tables/{name}.parquet"] = stream.getvalue()
    files = [
        {"name": name, "size_bytes": len(data), "sha256": sha256(data).hexdigest()}
        for name, data in content.items()
    ]
    manifest = json.dumps({"schema_version": MANIFEST_VERSION, "files": files}, indent=2) + "\n"
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in {"manifest.json": manifest.encode(), **content}.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return packed.getvalue()


def where_it_fits(size_bytes: int) -> str:
    """Size of a bundle, and which trackers take it."""
    takers = [name for name, limit in _LIMITS if size_bytes <= limit]
    fits = f"fits {' and '.join(takers)}" if takers else "too big for GitHub and gitlab.com issues"
    return f"{size_bytes / 1e6:.1f} MB, {fits}; to a mailing list send report.txt inline"
