"""Walks over ordinary anonymous pages: table ``anon_summary`` in words and as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.grid import Grid, grid
from reports.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

TITLE: Final = "Walks over ordinary anonymous pages"


def section(rows: Rows) -> Section | None:
    """The section; None: no such walk was recorded.

    Args:
        rows: Table ``anon_summary``.
    """
    if not rows:
        return None
    sentences = [_relatives(rows), *_compared(rows)]
    return Section(
        "anon",
        TITLE,
        sentences=sentences,
        lines=[*sentences, *(_line(row) for row in rows)],
        in_text=f"{TITLE} (rmap_walk_anon):",
        grids=_tables(rows),
    )


def verdict(rows: Rows) -> list[str]:
    """The sentence of the verdict; none: no such walk was recorded."""
    if not rows:
        return []
    return [f"{TITLE}: {_relatives(rows)}"]


def _sum(rows: Rows, name: str) -> int:
    return sum(row[name] for row in rows)


def _relatives(rows: Rows) -> str:
    walks, known = _sum(rows, "walks"), _sum(rows, "known")
    if not known:
        return (
            f"{walks:,} walks; of none are both relatives and those that map the page known: trees older "
            "than the capture stay unknown."
        )
    relatives, mapping = _sum(rows, "relatives_total"), _sum(rows, "mapping_total")
    return (
        f"{walks:,} walks; in {known:,} of them, whose trees are known, {relatives:,} relatives have the "
        f"page's offset (replayed) and {mapping:,} of these map it (observed)."
    )


def _compared(rows: Rows) -> list[str]:
    compared, bounded = _sum(rows, "compared"), _sum(rows, "bounded")
    said = []
    if compared:
        agreeing = f"{_sum(rows, 'agreeing'):,} of {compared:,} walks"
        said.append(f"The kernel's own count of relatives visited (observed) is the replayed in {agreeing}.")
    if bounded:
        within = f"{_sum(rows, 'within'):,} of {bounded:,} walks"
        said.append(f"Where only bounds of it are known, its count is within them in {within}.")
    return said


def _line(row: Mapping[str, Any]) -> str:
    most = "-" if row["relatives_max"] is None else f"{row['relatives_max']:,}"
    return (
        f"{row['caller'] or 'caller not known'}: {row['walks']:,} walks, at most {most} relatives, longest "
        f"{row['longest_ns'] / 1e6:.3f} ms"
    )


def _tables(rows: Rows) -> list[Grid]:
    known = (
        "Relatives: VMAs on the trees that have the page's offset (replayed), and those that map the page "
        "(observed), of the walks of which both are known. tables/anon_walk.parquet has each walk."
    )
    counted = (
        "Replayed: walks whose relatives visited are known, and their sum. Compared: those of them that the "
        "kernel counted too; bounded: others that it counted."
    )
    return [
        _grid(
            rows,
            "anon",
            "caller:wide,walks:n,known:n,relatives=relatives_total:n,mapping=mapping_total:n,"
            "most relatives=relatives_max:n,longest ms=longest_ns:ms,all ms=together_ns:ms",
            known,
        ),
        _grid(
            rows,
            "anon_counts",
            "caller:wide,replayed:n,visited=iterations_total:n,compared:n,agreeing:n,bounded:n,within:n",
            counted,
        ),
    ]


def _grid(rows: Rows, name: str, columns: str, caption: str) -> Grid:
    names = [each.partition(":")[0].rpartition("=")[2] for each in columns.split(",")]
    return grid(name, columns, [[row[each] for each in names] for row in rows], caption)
