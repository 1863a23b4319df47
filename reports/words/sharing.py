"""What the documents say of another limit of sharing: table ``sharing`` in words and as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.grid import Grid, grid
from reports.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_STRATEGIES: Final = 4
MEASURES: Final = (
    "saved: pages; longest: rmap_items of the longest list; then, by strategy, iterations of the longest "
    "walk to its end. One hold of the lock is one rmap_item's loop: no limit changes it.",
    "Assumed: pages fill one node after the other; forked pages pass the limit; the limit in force was 256, "
    "or the longest list. Which nodes have equal content is not in the capture: a limit above it shows "
    "at least..at most.",
)


def section(rows: Sequence[Mapping[str, Any]]) -> Section | None:
    """The section; None: no limit was asked for."""
    if not rows:
        return None
    title = "Other limits of max_page_sharing (predicted, nodes at their worst)"
    return Section(
        "sharing",
        title,
        sentences=MEASURES,
        grids=[_table(rows)],
        in_text=f"{title}:",
        as_tables=True,
    )


def _table(rows: Sequence[Mapping[str, Any]]) -> Grid:
    names = list(dict.fromkeys(row["strategy"] for row in rows))[:MAX_STRATEGIES]
    by_limit: dict[int, dict[str, Mapping[str, Any]]] = {}
    for row in rows:
        by_limit.setdefault(row["limit"], {})[row["strategy"]] = row
    cells = [
        [
            f"{limit}{' *' if own[names[0]]['is_asked'] else ''}",
            own[names[0]]["nodes"],
            _between(own[names[0]], "pages_saved", "pages_saved_most"),
            _between(own[names[0]], "rmap_items_max", "rmap_items_most"),
            *(own[name]["iterations_total"] for name in names),
        ]
        for limit, own in by_limit.items()
    ]
    columns = ",".join(["limit", "nodes:n", "saved", "longest", *(f"{name}:n" for name in names)])
    return grid("sharing", columns, cells, "*: the limit that was asked for.")


def _between(row: Mapping[str, Any], least: str, most: str) -> str:
    return f"{row[least]}" if row[most] is None else f"{row[least]}..{row[most]}"
