"""What the documents say of walks that nobody captured: table ``node_summary`` in words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

TITLE: Final = "Walks over every stable node (predicted: no such walk was captured)"
COLUMNS: Final = (
    ("migration_ms_max", "migr_ms"),
    ("migration_iterations_max", "migration"),
    ("reclaim_ms_max", "recl_ms"),
    ("reclaim_iterations_max", "reclaim"),
    ("iterations_max", "one_loop"),
    ("found", "found"),
    ("missed", "missed"),
)
"""Columns of ``node_summary`` that are printed, and their headings."""

MEASURES: Final = (
    "migration: most iterations of try_to_migrate() and remove_migration_ptes() together; reclaim: of "
    "folio_referenced() and try_to_unmap(); one_loop: of one inner loop; each the maximum over the nodes.",
    "Reclaim without VM_LOCKED mappings, mappings of other memory cgroups and writers at the lock, each of "
    "which ends or prolongs folio_referenced().",
)
_EVIDENCE: Final = {"exact": "as the probes tell", "modelled": "modelled by the kernel's rules"}
_WHEN: Final = {"worst": "each at its worst moment", "end": "at the end of the capture"}


def moments(rows: Rows) -> list[tuple[str, str, Rows]]:
    """For each moment its name, a sentence of which nodes these are, and its rows if there is a walk."""
    found: list[tuple[str, str, Rows]] = []
    for moment, when in _WHEN.items():
        own = [row for row in rows if row["moment"] == moment]
        if own:
            found.append((moment, _asked(own[0], when), own if own[0]["nodes_mapped"] else []))
    return found


def _asked(row: Mapping[str, Any], when: str) -> str:
    nodes = f"{row['nodes']:,} stable nodes, {when}: {row['rmap_items']:,} rmap_items"
    if not row["nodes_mapped"]:
        return f"{nodes}, no mapped page: none of their folios would be walked."
    unlisted = row["mappings_unlisted"]
    more = f" and {unlisted:,} that no rmap_item leads to" if unlisted else ""
    trees = _EVIDENCE.get(row["evidence"], row["evidence"])
    return f"{nodes}, {row['mappings']:,} mapped pages{more}; trees {trees}."


def verdict(rows: Rows) -> list[str]:
    """For a capture without walks: the most that one would cost, and what would be missed."""
    worst = [row for row in rows if row["moment"] == "worst"]
    costs = [
        f"{row['strategy']} {row['migration_iterations_max']:,}"
        for row in worst
        if row["migration_iterations_max"] is not None
    ]
    if not costs:
        return []
    misses = [f"{row['strategy']} {row['missed']:,}" for row in worst if row["missed"]]
    pages = f"Of {worst[0]['mappings']:,} mappings these would miss: {', '.join(misses)}."
    return [
        f"Predicted: most iterations of migrating one folio: {', '.join(costs)}.",
        pages if misses else "No strategy is predicted to miss a mapping.",
    ]
