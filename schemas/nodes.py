"""Result tables of walks that nobody captured: every stable node, at its worst moment and at the end."""

from __future__ import annotations

from typing import Final

from schemas.kinds import count, flag, int64, nanoseconds, pointer, real, text
from schemas.table import Column, Table
from schemas.walks import MISS, STRATEGY_DOC, UNKNOWN_WALK, WALK

_ASKED = "replay: every-node"
_MOMENT = (
    "worst: the first instant of the node's life at which one pass of full costs most iterations; end: the "
    "end of the capture, for nodes that list rmap_items then."
)
EVIDENCE_DOC: Final = (
    "What the state of the trees rests on: exact (tree probes) or modelled. The walk itself is predicted in "
    "any case: nobody captured it."
)
_EVIDENCE: Final = text("evidence", EVIDENCE_DOC, _ASKED)
_KEY: Final = (
    int64("node", "Number of the life of the stable node, in order of its first merge.", _ASKED),
    text("moment", _MOMENT, _ASKED),
)


def _same(table: Table, *names: str) -> tuple[Column, ...]:
    """Columns that mean the same as in another table."""
    own = {column.name: column for column in table.columns}
    return tuple(own[name] for name in names)


NODE_SUMMARY: Final = Table(
    name="node_summary",
    version="1.0",
    doc="Every stable node under one strategy at one moment: what migrations and reclaims would cost. Maxima "
    "and totals of iterations are over the nodes whose folio is mapped.",
    columns=(
        text("moment", _MOMENT, _ASKED),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        _EVIDENCE,
        count("nodes", "Stable nodes asked.", _ASKED),
        count("nodes_mapped", "Of these, nodes whose folio is mapped: only such are walked.", _ASKED),
        count("rmap_items", "rmap_items that they list.", _ASKED),
        count("mappings", "Mapped pages that the nodes' rmap_items lead to.", _ASKED),
        count(
            "mappings_unlisted",
            "Mapped pages that no rmap_item of the node leads to: no strategy finds them.",
            _ASKED,
        ),
        count(
            "migration_iterations_max",
            "Most iterations of one migration: try_to_migrate() and remove_migration_ptes() together.",
            _ASKED,
            null="no node has a known value",
        ),
        count(
            "reclaim_iterations_max",
            "Most iterations of one reclaim: folio_referenced() and try_to_unmap() together.",
            _ASKED,
            null="no node has a known value",
        ),
        count(
            "migration_iterations_total",
            "Iterations of migrating every node once.",
            _ASKED,
            null="not known for at least one node",
        ),
        count(
            "reclaim_iterations_total",
            "Iterations of reclaiming every node once.",
            _ASKED,
            null="not known for at least one node",
        ),
        count("iterations_max", "Largest iterations of one loop.", _ASKED, null="no node has a known value"),
        real(
            "migration_ms_max",
            "Longest migration by the fit (both walks).",
            "replay: fit over the walks of this capture",
            null="no fit, or no node has a known value",
            unit="ms",
        ),
        real(
            "reclaim_ms_max",
            "Longest reclaim by the fit (both walks).",
            "replay: fit over the walks of this capture",
            null="no fit, or no node has a known value",
            unit="ms",
        ),
        count("found", "Mappings that a walk run to its end visits.", _ASKED, null="not known"),
        count(
            "missed", "Mappings that full would visit and the strategy does not.", _ASKED, null="not known"
        ),
    ),
)

NODE_WALK: Final = Table(
    name="node_walk",
    version="1.0",
    doc="One walk that was asked for, and that nobody captured: a stable node at one moment, one strategy. "
    "Where mappings and mappings_unlisted are 0 the kernel would not make it.",
    columns=(
        *_KEY,
        nanoseconds(
            "ts_ns",
            "Time of the event right after which the moment is, trace clock.",
            _ASKED,
            null="no event of the capture is at that place",
        ),
        pointer("stable_node", "The struct ksm_stable_node (a dup, never a chain).", "ev_append"),
        count("rmap_items", "rmap_items that the node lists.", _ASKED),
        count("anon_vmas", "Distinct anon_vmas of these.", _ASKED),
        count("mappings", "Mapped pages that these lead to.", _ASKED),
        count("mappings_unlisted", "Mapped pages that none of them leads to.", _ASKED),
        text(
            "caller",
            "rmap_one of the walk. Migration: try_to_migrate_one, then remove_migration_pte; reclaim: "
            "folio_referenced_one, then try_to_unmap_one.",
            _ASKED,
        ),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        _EVIDENCE,
        *_same(
            WALK,
            "loops",
            "iterations_total",
            "iterations_max",
            "skip_addr_out_of_range_max",
            "skip_mm_mismatch_max",
            "rmap_one_calls",
        ),
        count(
            "mappings_missed",
            "Mappings that full would visit and the strategy does not.",
            _ASKED,
            null=UNKNOWN_WALK,
        ),
        *_same(WALK, "predicted_ns"),
    ),
)

NODE_MISS: Final = Table(
    name="node_miss",
    version="1.0",
    doc="One mapping that every walk over the stable node at that moment would miss under the strategy.",
    columns=(*_KEY, *(column for column in MISS.columns if column.name != "walk_id")),
)

_SHARING = "replay: sharing"

SHARING: Final = Table(
    name="sharing",
    version="1.0",
    doc="One limit of max_page_sharing and one strategy: predicted, each node at its worst moment.",
    columns=(
        count("limit", "max_page_sharing: most pages of one stable node that ksmd merges.", _SHARING),
        flag("is_asked", "The limit that was asked for; the others are for comparison.", _SHARING),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        text("evidence", "predicted: nobody recorded a kernel with this limit.", _SHARING),
        count("rmap_items", "rmap_items listed.", _SHARING),
        count("nodes", "Stable nodes that they would be on.", _SHARING),
        count(
            "pages_saved",
            "Pages that sharing would save, at least: the rmap_items of each node but one.",
            _SHARING,
        ),
        count(
            "pages_saved_most",
            "The same at most: as if all nodes that reached the limit in force had one content.",
            _SHARING,
            null="pages_saved is what it would be: no node reached that limit, or this one is not above it",
        ),
        count("rmap_items_max", "rmap_items of the longest list, at least.", _SHARING),
        count(
            "rmap_items_most",
            "The same at most.",
            _SHARING,
            null="rmap_items_max is what it would be",
        ),
        count(
            "iterations_total",
            "Iterations of the longest walk to its end, both passes, over one node.",
            _SHARING,
            null=UNKNOWN_WALK,
        ),
        count(
            "iterations_max",
            "Iterations of the longest loop: what one hold of the lock lasts; no limit changes it.",
            _SHARING,
            null="no loop is known",
        ),
        nanoseconds(
            "predicted_ns",
            "Time of that walk by the fit.",
            "replay: fit over the walks of this capture",
            null="no fit",
        ),
    ),
)

TABLES: Final = (NODE_SUMMARY, NODE_WALK, NODE_MISS, SHARING)
