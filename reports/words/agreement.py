"""What the documents say of how well the model agrees with the probes: table ``agreement``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from reports.grid import grid

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from reports.grid import Grid

    Rows = Sequence[Mapping[str, Any]]


def sentence(rows: Rows) -> str:
    """The number, and what it counts; rows of table ``agreement``."""
    if not rows:
        return (
            "There is nothing to compare: the probes saw no change of a tree whose first mapping the capture "
            "saw made."
        )
    agreeing, instants = rows[0]["instants"], sum(row["instants"] for row in rows)
    return (
        f"After {agreeing:,} of {instants:,} probed tree changes ({rows[0]['share']:.4f}) the tree rebuilt "
        "from system calls alone holds the same intervals."
    )


def causes(rows: Rows) -> list[str]:
    """One line a cause of disagreement."""
    return [f"{row['cause']}: {row['instants']:,}: {row['meaning']}" for row in rows[1:]]


def table(rows: Rows) -> Grid:
    """The causes with their numbers."""
    body = [(row["cause"], row["instants"], row["share"], row["meaning"]) for row in rows[1:]]
    return grid("causes", "cause,tree changes:n,share:n,meaning", body)


def document(rows: Rows | None) -> dict[str, Any] | None:
    """Value of ``evidence.agreement`` in the JSON document; None: nobody asked, or nothing to compare."""
    if not rows:
        return None
    return {
        "share": rows[0]["share"],
        "agreeing": rows[0]["instants"],
        "instants": sum(row["instants"] for row in rows),
        "agreeing_trees": rows[0]["trees"],
        "causes": {row["cause"]: row["instants"] for row in rows[1:]},
    }
