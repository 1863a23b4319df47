"""How forks make families of anon_vmas grow: table ``family`` in words and as a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from reports.grid import Grid, grid
from reports.section import Section

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Rows = Sequence[Mapping[str, Any]]

MAX_FAMILIES: Final = 10


def section(rows: Rows) -> Section | None:
    """The section; None: no fork made a family grow.

    Args:
        rows: Table ``family``.
    """
    if not rows:
        return None
    return Section(
        "families",
        "How families of anon_vmas grow by fork",
        sentences=[_sentence(rows[0])],
        lines=[_sentence(rows[0])],
        in_text="How families of anon_vmas grow by fork:",
        grids=[_table(rows[:MAX_FAMILIES])],
    )


def _sentence(row: Mapping[str, Any]) -> str:
    return (
        f"{row['avcs_peak']:,} anon_vma_chains at once in the family of root {row['root']:#x}: "
        f"{row['anon_vmas']:,} anon_vmas, {row['mms']:,} address spaces; forks brought "
        f"{row['forked_vmas']:,} VMAs, each on up to {row['depth']:,} trees."
    )


def _table(rows: Rows) -> Grid:
    names = ("root", "avcs_peak", "anon_vmas", "mms", "depth", "forked_vmas", "reused", "evidence")
    columns = (
        "root:x,chains at once=avcs_peak:n,anon_vmas:n,address spaces=mms:n,trees of a VMA=depth:n,"
        "forked VMAs=forked_vmas:n,reused anon_vmas=reused:n,evidence"
    )
    caption = (
        "All of a family take one lock, that of the root. Reused: forked VMAs that got the anon_vma of a "
        "dead relative. tables/family_growth.parquet has their growth."
    )
    return grid("families", columns, [[row[name] for name in names] for row in rows], caption)
