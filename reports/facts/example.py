"""One missed mapping of each strategy, told in full: where the page is, where it is sought, since when."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

PAGE_SHIFT = 12


@dataclass(frozen=True)
class Span:
    """Page offsets of one or more VMAs, both ends inclusive."""

    first: int
    last: int

    @property
    def pages(self) -> int:
        """Number of pages."""
        return self.last - self.first + 1


@dataclass(frozen=True)
class Example:
    """One missed mapping; page offsets are those of the tree, times are trace clock.

    Attributes:
        strategy: Name of the strategy that misses it.
        walk_id: The walk.
        walk_ns: Its start.
        address: Address of the mapping.
        page: Page offset of the mapping.
        merged_ns: When the page was merged.
        looked: What the strategy asks the tree for.
        merged_in: The VMA that held the page at the merge; None: not known.
        held_by: The VMA that holds the page at the walk.
        met: VMAs that the lookup finds at the walk, together; None: none.
        vmas: VMAs on the tree at the walk.
        cause: The event since which the VMA is passed by; None: not known.
        cause_ns: Its time; None: not known.
        cause_pid: Its task; None: not known.
    """

    strategy: str
    walk_id: int
    walk_ns: int
    address: int
    page: int
    merged_ns: int
    looked: Span
    merged_in: Span | None
    held_by: Span
    met: Span | None
    vmas: int
    cause: str | None
    cause_ns: int | None
    cause_pid: int | None

    @property
    def displaced(self) -> int:
        """Page offset of the mapping less its address's page; not 0: the VMA was moved, or maps a file.

        0 as well where that explains nothing: the strategy looks inside the VMA of the merge.
        """
        if self.merged_in is not None and self.merged_in.first <= self.looked.first <= self.merged_in.last:
            return 0
        return self.page - (self.address >> PAGE_SHIFT)

    def far(self, page: int) -> str:
        """A page offset, counted from the page of the mapping."""
        away = page - self.page
        return f"{abs(away):,} page{'' if abs(away) == 1 else 's'} {'above' if away > 0 else 'below'}"


def examples(tables: Mapping[str, pa.Table], names: Sequence[str]) -> dict[str, Example]:
    """One example for each strategy that misses a mapping of which enough is known.

    Taken from the anon_vma on which the strategy misses most, the first walk that misses there, and of its
    misses the one in the middle.

    Args:
        tables: Tables ``miss``, ``loop``, ``rmap_item`` and ``avc``.
        names: The strategies.
    """
    key = ["walk_id", "rmap_item", "strategy"]
    miss = pl.DataFrame(tables["miss"]).drop("first_pgoff", "last_pgoff")
    miss = miss.filter(pl.col("strategy").is_in(list(names)))
    if miss.is_empty():
        return {}
    loop = pl.DataFrame(tables["loop"].select([*key, "ts_ns", "anon_vma", "first_pgoff", "last_pgoff"]))
    loop = loop.join(miss.select(key).unique(), on=key, how="semi").drop_nulls()
    loop = loop.unique(key, keep="first", maintain_order=True)
    items = pl.DataFrame(tables["rmap_item"]).drop_nulls(["born_ts_ns", "linear_page_index"])
    items = items.select("rmap_item", "address", page="linear_page_index", merged_ns="born_ts_ns")
    told = (
        miss.join(loop, on=key, maintain_order="left")
        .sort("ts_ns", maintain_order=True)
        .join_asof(
            items.sort("merged_ns"),
            left_on="ts_ns",
            right_on="merged_ns",
            by=["rmap_item", "address"],
            check_sortedness=False,
        )
        .drop_nulls(["page", "vm_start", "vm_end"])
    )
    avc = pl.DataFrame(tables["avc"]).drop_nulls(["anon_vma", "first_pgoff", "last_pgoff"])
    return {
        name: _example(told.filter(strategy=name), avc)
        for name in names
        if not told.filter(strategy=name).is_empty()
    }


def _example(told: pl.DataFrame, avc: pl.DataFrame) -> Example:
    told = told.sort(pl.col("cause_ts_ns").is_null(), "ts_ns", maintain_order=True)
    busiest = (
        told.group_by("anon_vma").len().sort(["len", "anon_vma"], descending=[True, False])["anon_vma"][0]
    )
    own = told.filter(anon_vma=busiest)
    own = own.filter(walk_id=own["walk_id"][0]).sort("page")
    row = own.row(len(own) // 2, named=True)
    tree = avc.filter(anon_vma=busiest)
    before = _alive(tree, row["merged_ns"]).filter(
        (pl.col("first_pgoff") <= row["page"]) & (pl.col("last_pgoff") >= row["page"])
    )
    now = _alive(tree, row["ts_ns"])
    met = now.filter(
        (pl.col("last_pgoff") >= row["first_pgoff"]) & (pl.col("first_pgoff") <= row["last_pgoff"])
    )
    first = row["page"] - ((row["address"] - row["vm_start"]) >> PAGE_SHIFT)
    return Example(
        strategy=row["strategy"],
        walk_id=row["walk_id"],
        walk_ns=row["ts_ns"],
        address=row["address"],
        page=row["page"],
        merged_ns=row["merged_ns"],
        looked=Span(row["first_pgoff"], row["last_pgoff"]),
        merged_in=None if before.is_empty() else Span(before["first_pgoff"][0], before["last_pgoff"][0]),
        held_by=Span(first, first + ((row["vm_end"] - row["vm_start"]) >> PAGE_SHIFT) - 1),
        met=None if met.is_empty() else Span(min(met["first_pgoff"]), max(met["last_pgoff"])),
        vmas=len(now),
        cause=row["cause_event"],
        cause_ns=row["cause_ts_ns"],
        cause_pid=row["cause_pid"],
    )


def _alive(tree: pl.DataFrame, ts_ns: int) -> pl.DataFrame:
    born, died = pl.col("born_ts_ns"), pl.col("died_ts_ns")
    return tree.filter((born.is_null() | (born <= ts_ns)) & (died.is_null() | (died > ts_ns)))
