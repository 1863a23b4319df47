"""One anon_vma in page offset and time, few enough parts to draw: VMAs, merges, lookups, missed mappings.

Rows that would be drawn at about the same place become one part that keeps their number and their hull.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from schemas.walks import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

MAX_BOXES: Final = 400
MAX_MARKS: Final = 350
"""Most marks of one kind and strategy."""

GAP: Final = 8
"""Page offsets further away than this many times the pages of the VMAs are another place."""

_STEPS: Final = ((200, 100), (100, 60), (60, 30), (30, 20), (12, 12), (6, 6))
"""Bins over time and over page offsets, tried until there are few enough parts."""

_FEW_PAGES: Final = 14
"""Bins over page offsets of marks that would hide each other."""


@dataclass(frozen=True)
class Scene:
    """What is drawn of one anon_vma; times are trace clock, page offsets inclusive.

    Attributes:
        anon_vma: Its address.
        start_ns: Start of the time drawn.
        end_ns: End of the time drawn.
        low: First page offset drawn.
        high: Last page offset drawn.
        boxes: ``first, last, born, died, n, many, cause``; many: the VMAs lie side by side, not one after the
            other; cause: the system call that made the first of them.
        merges: ``ts, page, n``: merged pages at their page offsets.
        lookups: By strategy, ``ts, first, last, n``: what loops looked up.
        misses: By strategy, ``ts, page, first, n, walk_id, address, vm_start, vm_end, cause_event,
            cause_ts_ns, cause_pid``: mappings missed, ``first`` being where the strategy looked; the columns
            after ``n`` are of the first of them.
        missed: Mappings missed on this anon_vma, by strategy.
        causes: By strategy, the miss with the earliest cause: ``cause_event, cause_ts_ns, cause_pid``.
        vmas: VMAs drawn (rows of table ``avc``).
        loops: Loops drawn, all strategies together.
    """

    anon_vma: int
    start_ns: int
    end_ns: int
    low: int
    high: int
    boxes: Sequence[Mapping[str, Any]]
    merges: Sequence[Mapping[str, Any]]
    lookups: Mapping[str, Sequence[Mapping[str, Any]]]
    misses: Mapping[str, Sequence[Mapping[str, Any]]]
    missed: Mapping[str, int]
    causes: Mapping[str, Mapping[str, Any]]
    vmas: int
    loops: int


def scene(tables: Mapping[str, pa.Table], last_ns: int, detail: float = 1) -> Scene | None:
    """The anon_vma with most missed mappings, or else with most loops; None: none has loops and VMAs.

    Args:
        tables: Tables ``avc``, ``vma``, ``rmap_item``, ``loop`` and ``miss``.
        last_ns: Time of the last event of the capture.
        detail: Factor on `MAX_BOXES` and `MAX_MARKS`.
    """
    loop = _read(
        tables["loop"],
        ["walk_id", "ts_ns", "rmap_item", "anon_vma", "strategy", "first_pgoff", "last_pgoff"],
    ).filter(pl.col("strategy") != OBSERVED, pl.col("first_pgoff").is_not_null())
    loop = loop.unique(["walk_id", "rmap_item", "strategy"], keep="first", maintain_order=True)
    key = ["walk_id", "rmap_item", "strategy"]
    miss = _read(tables["miss"]).drop("first_pgoff", "last_pgoff").join(loop, on=key, maintain_order="left")
    lives = _lives(tables, last_ns)
    tree = _busiest(loop, miss, lives)
    if tree is None:
        return None
    loop, miss = loop.filter(anon_vma=tree), miss.filter(anon_vma=tree)
    lives = _with_causes(lives.filter(anon_vma=tree), tables["vma"])
    items = _read(tables["rmap_item"]).filter(anon_vma=tree).drop_nulls(["linear_page_index", "born_ts_ns"])
    low, high = _window(lives, items)
    lives = lives.filter(pl.col("last") >= low, pl.col("first") <= high)
    ordered = pl.concat([lives["born"], lives["died"], items["born_ts_ns"], loop["ts_ns"]]).sort()
    start, end = int(ordered[0]), int(ordered[-1])
    axes = _Axes(start, end, low, high, detail)
    merges = items.select(ts="born_ts_ns", page="linear_page_index", first="linear_page_index")
    merges = merges.filter(pl.col("page").is_between(low, high))
    missed = _missed(miss, items)
    strategies = loop["strategy"].unique(maintain_order=True).to_list()
    lookups = loop.select("strategy", ts="ts_ns", page="first_pgoff", first="first_pgoff", last="last_pgoff")
    return Scene(
        anon_vma=tree,
        start_ns=start,
        end_ns=end,
        low=low,
        high=high,
        boxes=axes.boxes(lives),
        merges=axes.marks(merges),
        lookups={name: axes.marks(lookups.filter(strategy=name), 3 * _FEW_PAGES) for name in strategies},
        misses={name: axes.marks(missed.filter(strategy=name), _FEW_PAGES) for name in strategies},
        missed={name: len(miss.filter(strategy=name)) for name in strategies},
        causes=_first_causes(miss),
        vmas=len(lives),
        loops=len(loop),
    )


@dataclass(frozen=True)
class _Axes:
    start: int
    end: int
    low: int
    high: int
    detail: float

    def boxes(self, lives: pl.DataFrame) -> list[dict[str, Any]]:
        """VMAs that begin, end and lie at about the same place as one."""
        for times, pages in _STEPS:
            grouped = (
                lives.group_by(
                    self._time("born", times).alias("b"),
                    self._time("died", times).alias("d"),
                    self._page("first", pages).alias("p"),
                )
                .agg(
                    pl.col("first").min(),
                    pl.col("last").max(),
                    pl.col("born").min(),
                    pl.col("died").max(),
                    pl.len().alias("n"),
                    pl.col("cause").first(),
                    pages=(pl.col("last") - pl.col("first") + 1).sum(),
                )
                # lives that come one after the other share their pages, those side by side do not
                .with_columns(
                    many=(pl.col("n") > 1) & (pl.col("pages") < 1.5 * (pl.col("last") - pl.col("first") + 1))
                )
                .sort("born", "died", "first")
            )
            if len(grouped) <= MAX_BOXES * self.detail:
                break
        return grouped.drop("b", "d", "p", "pages").to_dicts()

    def marks(self, rows: pl.DataFrame, most_pages: int = 100) -> list[dict[str, Any]]:
        """Rows at about the same time, page and lookup as one: the first of them, and their number ``n``."""
        for times, finest in _STEPS:
            pages = min(finest, most_pages)
            grouped = (
                rows.group_by(
                    self._time("ts", times).alias("t"),
                    self._page("page", pages).alias("p"),
                    self._page("first", pages).alias("f"),
                    maintain_order=True,
                )
                .agg(pl.all().first(), pl.len().alias("n"))
                .drop("t", "p", "f")
            )
            if len(grouped) <= MAX_MARKS * self.detail:
                break
        return grouped.to_dicts()

    def _time(self, column: str, bins: int) -> pl.Expr:
        return (pl.col(column) - self.start) * bins // max(1, self.end - self.start)

    def _page(self, column: str, bins: int) -> pl.Expr:
        inside = pl.col(column).clip(self.low, self.high).cast(pl.Int64)
        return (inside - self.low) * bins // max(1, self.high - self.low)


def _read(table: pa.Table, columns: Sequence[str] | None = None) -> pl.DataFrame:
    return pl.DataFrame(table if columns is None else table.select(list(columns)))


def _lives(tables: Mapping[str, pa.Table], last_ns: int) -> pl.DataFrame:
    """VMAs on the trees: those with known pages, from their birth (or the first one drawn) to their end.

    Page offsets of 64 bits, which no kernel has, are left out: the drawing counts from the first one.
    """
    columns = ["anon_vma", "vma_id", "first_pgoff", "last_pgoff", "born_ts_ns", "died_ts_ns"]
    avc = _read(tables["avc"], columns).drop_nulls(["anon_vma", "first_pgoff", "last_pgoff"])
    avc = avc.filter(pl.max_horizontal("first_pgoff", "last_pgoff") < 1 << 63)
    first = avc.select(pl.min_horizontal(pl.col("born_ts_ns").min(), pl.col("died_ts_ns").min())).item()
    return avc.select(
        "anon_vma",
        "vma_id",
        first="first_pgoff",
        last="last_pgoff",
        born=pl.col("born_ts_ns").fill_null(last_ns if first is None else first),
        died=pl.col("died_ts_ns").fill_null(last_ns),
    )


def _with_causes(lives: pl.DataFrame, vma: pa.Table) -> pl.DataFrame:
    """``lives`` and ``cause``: the call that made the VMA."""
    made = _read(vma, ["vma_id", "cause_event"]).join(lives, on="vma_id", how="semi").unique("vma_id")
    caused = made.rename({"cause_event": "cause"})
    return lives.join(caused, on="vma_id", how="left", maintain_order="left")


def _busiest(loop: pl.DataFrame, miss: pl.DataFrame, lives: pl.DataFrame) -> int | None:
    loops = loop.drop_nulls("anon_vma").group_by("anon_vma").len("loops")
    ranked = (
        loops.join(miss.group_by("anon_vma").len("missed"), on="anon_vma", how="left")
        .join(lives.group_by("anon_vma").len("vmas"), on="anon_vma")
        .with_columns(pl.col("missed").fill_null(0))
        .sort(["missed", "loops", "vmas", "anon_vma"], descending=[True, True, True, False])
    )
    return None if ranked.is_empty() else int(ranked["anon_vma"][0])


def _window(lives: pl.DataFrame, items: pl.DataFrame) -> tuple[int, int]:
    """Page offsets drawn: of the VMAs that lie together and hold most merged pages.

    Where the address of an anon_vma was used twice, its VMAs lie at places that have nothing in common.
    """
    spans = lives.select(pl.col("first", "last").cast(pl.Int64)).sort("first")
    size = (spans["last"] - spans["first"] + 1).max()
    gap = GAP * max(int(size) if isinstance(size, int) else 1, 64)
    spans = spans.with_columns(
        place=(pl.col("first") - pl.col("last").cum_max().shift(1) > gap).fill_null(False).cum_sum()
    )
    places = (
        spans.group_by("place")
        .agg(pl.col("first").min(), pl.col("last").max(), pl.len().alias("vmas"))
        .sort("place")
        .to_dicts()
    )
    pages = items["linear_page_index"]

    def held(place: Mapping[str, Any]) -> tuple[int, int]:
        return int(pages.is_between(place["first"], place["last"]).sum()), place["vmas"]

    best = max(places, key=held)
    return best["first"], best["last"]


def _first_causes(miss: pl.DataFrame) -> dict[str, dict[str, Any]]:
    columns = ["strategy", "cause_event", "cause_ts_ns", "cause_pid"]
    known = miss.select(columns).drop_nulls("cause_ts_ns").sort("cause_ts_ns", maintain_order=True)
    return {row["strategy"]: row for row in known.unique("strategy", keep="first").to_dicts()}


def _missed(miss: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """Missed mappings with the page's own offset: that of its rmap_item."""
    pages = items.select("rmap_item", "address", ts="born_ts_ns", page="linear_page_index").sort("ts")
    found = miss.with_columns(ts="ts_ns").sort("ts")
    found = found.join_asof(pages, on="ts", by=["rmap_item", "address"], check_sortedness=False)
    columns = ["walk_id", "address", "vm_start", "vm_end", "cause_event", "cause_ts_ns", "cause_pid"]
    found = found.drop_nulls("page").rename({"first_pgoff": "first"})
    return found.select("strategy", "ts", "page", "first", *columns)
