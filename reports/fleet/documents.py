"""Documents of a fleet: text and one HTML page, from the datasets of a batch."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from reports.fleet import page as fleet_page
from reports.fleet import text as fleet_text
from reports.fleet.facts import gather

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import polars as pl

    from reports.fleet.facts import FleetFacts

DOCUMENTS: Final = ("report.html", "report.txt")

SCHEMA_VERSION: Final = "1.0"
"""``MAJOR.MINOR`` of the JSON form, as in `reports.summary_json`."""


def facts_of(frames: Mapping[str, pl.LazyFrame]) -> FleetFacts:
    """What all documents say.

    Args:
        frames: ``captures``, ``fleet``, ``fleet_miss`` and ``fleet_bins`` by name.
    """
    return gather(frames)


def render_text(facts: FleetFacts, *, shown: str) -> str:
    """Render the report as plain text; the same for the same facts.

    Args:
        facts: What it says.
        shown: Name of the folder that the page is in, for the last line.
    """
    return fleet_text.text_of(facts, report=f"{shown}/{DOCUMENTS[0]}")


def render_json(facts: FleetFacts) -> str:
    """Render what the report says as JSON: a key for each attribute of the facts but the curves."""
    keys = ("strategies", "causes", "releases", "longest", "missing", "failures")
    document = {
        "schema_version": SCHEMA_VERSION,
        "captures": dict(facts.statuses),
        "kernels": [{"kernel_release": name, "captures": number} for name, number in facts.kernels],
        **{key: getattr(facts, key) for key in keys},
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"


def write_documents(facts: FleetFacts, folder: Path, *, shown: str) -> None:
    """Write ``DOCUMENTS`` into a folder that exists.

    Args:
        facts: What they say.
        folder: The folder.
        shown: Name of the folder where they will be.
    """
    html, plain = DOCUMENTS
    (folder / html).write_text(fleet_page.page_of(facts), encoding="utf-8")
    (folder / plain).write_text(render_text(facts, shown=shown), encoding="ascii")
