"""What made a mapping be missed: the change of the tree after which the lookup passed the VMA by.

A strategy misses a mapping when no VMA that holds the page's address overlaps the range looked up. So either
a VMA that did both left the tree after the merge (a *split*: it came back without the page offset looked up),
or there was none, and the VMA that holds the page came there with another page offset: *moved* by mremap(),
a *stack* that exec moved, a mapping of a *file*, whose page offsets are the file's; or the *lookup* never
looks where pages are. A VMA that a fork copied has its cause in the parent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.findings.origins import origins
from replay.state.call_sites import sites
from replay.state.call_text import call_text
from replay.state.covers import NONE, Covers
from replay.state.lifetimes import AFTER, PAGE_SHIFT, of_versions
from replay.state.order import numbered
from replay.state.spaces import mm_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from replay.state.trees import Trees
    from replay.walks.exact import Exact

    Int = NDArray[np.int64]

SPLIT, MOVED, STACK, FILE, LOOKUP = "split", "moved", "stack", "file", "lookup"
VM_GROWSDOWN: Final = 0x100
_BEFORE_ALL: Final = -3
_GENERATIONS: Final = 16
"""Forks of forks that are followed to the parent in which it began."""


def missed_because(
    misses: pl.DataFrame, exact: Exact, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """``misses`` with the columns of table ``miss`` that say where the page was, and why it was missed.

    Args:
        misses: ``Replayed.miss``, of walks captured or asked for.
        exact: State.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.

    Returns:
        The rows of ``misses``, ``vma_mm`` as ``mm``, and ``page_pgoff``, ``cause_kind``, ``cause_event``,
        ``cause_arguments``, ``cause_ts_ns``, ``cause_pid``, ``cause_comm``. Cause null: the VMA was passed
        by since before the capture began, or what its task was doing is not in the capture.
    """
    named = misses.rename({"vma_mm": "mm"}).with_row_index("row")
    turns = turning_points(named, exact)
    turns = turns.hstack(of_versions(exact.vma, turns["vma_id"], "vm_flags"))
    seen = turns.filter(pl.col("seq").is_not_null() & pl.col("pid").is_not_null())
    told = sites(seen.select("row", "pid", "seq", "ts_ns"), events, comms).select(
        "row", "cause_event", "call", "comm"
    )
    turns = turns.join(told, on="row", how="left", maintain_order="left")
    turns = _begun(turns, exact, events, comms).with_columns(kind=_kind())
    turns = origins(turns, events, exact.mappings.spaces, comms)
    return named.join(
        turns.select(
            "row",
            "page_pgoff",
            "cause_event",
            cause_kind="kind",
            cause_arguments=call_text(turns, events["ev_syscall"]),
            cause_ts_ns="ts_ns",
            cause_pid="pid",
            cause_comm="comm",
        ),
        on="row",
        how="left",
        maintain_order="left",
    ).drop("row")


def _begun(
    turns: pl.DataFrame, exact: Exact, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """A VMA that grew over the page later: what gave it its page offset is how it began there.

    That is told where it is a move, and of stacks.
    """
    stack = (pl.col("vm_flags") & VM_GROWSDOWN != 0).fill_null(False)
    grown = turns.filter(~pl.col("is_end") & ((pl.col("cause_event") != "mremap").fill_null(True) | stack))
    lives = exact.trees.lives.select(
        "space",
        "born",
        shift=(pl.col("vm_start") // (1 << PAGE_SHIFT)).cast(pl.Int64)
        - pl.col("first_pgoff").cast(pl.Int64, wrap_numerical=True),
        seq="born_seq",
        ts_ns="born_ts_ns",
        pid="pid",
    )
    own = grown.select("row", "life", "shift", stack=stack).with_columns(
        space=exact.trees.lives["space"].gather(grown["life"])
    )
    first = (
        lives.join(own.select("space", "shift").unique(), on=["space", "shift"], how="semi")
        .sort("born")
        .unique(["space", "shift"], keep="first", maintain_order=True)
    )
    begun = own.join(first, on=["space", "shift"])
    known = begun.drop_nulls(["seq", "pid"])
    told = sites(known.select("row", "pid", "seq", "ts_ns"), events, comms)
    told = begun.select("row", "stack").join(told.drop("stack"), on="row", how="left")
    told = told.filter(pl.col("stack") | (pl.col("cause_event") == "mremap"))
    changed = ("seq", "ts_ns", "pid", "cause_event", "call", "comm")
    rows = turns.join(
        told.select("row", *changed), on="row", how="left", maintain_order="left", suffix="_begun"
    )
    there = pl.col("row").is_in(told["row"].implode())
    return rows.with_columns(
        pl.when(there).then(f"{name}_begun").otherwise(name).alias(name) for name in changed
    ).select(turns.columns)


def _kind() -> pl.Expr:
    """What kind of change it was, where the change itself tells; ``FILE`` stands for any unlike offset."""
    unlike = (pl.col("shift") != 0) | (pl.col("vm_pgoff") != pl.col("first_pgoff"))
    return (
        pl.when("is_end")
        .then(pl.lit(SPLIT))
        .when(pl.col("vm_flags") & VM_GROWSDOWN != 0)
        .then(pl.lit(STACK))
        .when(pl.col("cause_event") == "mremap")
        .then(pl.lit(MOVED))
        .when(pl.col("seq").is_not_null())
        .then(pl.when(unlike).then(pl.lit(FILE)).otherwise(pl.lit(LOOKUP)))
    )


def turning_points(misses: pl.DataFrame, exact: Exact) -> pl.DataFrame:
    """The change after which each mapping was missed.

    Args:
        misses: ``Replayed.miss``, ``vma_mm`` as ``mm``, and ``row``.
        exact: State.

    Returns:
        One row a miss: ``row``, ``mm``, ``address``; ``life`` (of ``trees.lives``) that the change ended or
        began, ``is_end``; ``seq``, ``ts_ns``, ``pid`` of the change, null: before the capture began;
        ``page_pgoff`` (page offset of the page), ``shift`` (start page of the VMA less its first page
        offset), and of the VMA ``vma_id``, ``vm_pgoff``, ``first_pgoff``.
    """
    trees = exact.trees
    lineages = _Lineages(trees, misses["life"].to_numpy())
    life = misses["life"].to_numpy().astype(np.int64)
    page = (misses["address"].to_numpy() >> np.uint64(PAGE_SHIFT)).astype(np.int64)
    low, high = (
        np.minimum(misses[name].to_numpy(), np.uint64(1 << 62)).astype(np.int64)
        for name in ("first_pgoff", "last_pgoff")
    )
    merged = misses.select("item").join(exact.items, on="item", how="left", maintain_order="left")["merged"]
    merge = merged.fill_null(_BEFORE_ALL).to_numpy()
    instant = misses["instant"].to_numpy()
    turned, is_end = lineages.turned(life, instant, page, low, high, merge)
    for _ in range(_GENERATIONS):
        copied = np.flatnonzero(~is_end & (turned != NONE))
        parent, before = _parents(exact, turned[copied], page[copied])
        copied, before = copied[parent != NONE], before[parent != NONE]
        parent = parent[parent != NONE]
        if not len(copied):
            break
        turned[copied], is_end[copied] = lineages.turned(
            parent, before, page[copied], low[copied], high[copied], merge[copied]
        )
    ends = pl.Series("is_end", is_end)
    own = trees.lives[life].select(
        page_pgoff=pl.col("first_pgoff")
        + (pl.Series(misses["address"]) - pl.col("vm_start")) // (1 << PAGE_SHIFT)
    )
    change = trees.lives[np.where(turned == NONE, life, turned)].select(
        "vma_id",
        "vm_pgoff",
        "first_pgoff",
        seq=pl.when(ends).then("died_seq").otherwise("born_seq"),
        ts_ns=pl.when(ends).then("died_ts_ns").otherwise("born_ts_ns"),
        pid=pl.when(ends).then("removed_by").otherwise("pid"),
    )
    known = pl.Series(turned != NONE)
    return (
        pl.concat([misses.select("row", "mm", "address"), own, change], how="horizontal")
        .with_columns(pl.when(known).then(pl.col(name)).alias(name) for name in ("seq", "ts_ns", "pid"))
        .with_columns(
            is_end=ends,
            life=pl.Series(np.where(turned == NONE, life, turned)),
            shift=pl.Series(lineages.shift[np.where(turned == NONE, life, turned)]),
        )
    )


class _Lineages:
    """Lives of one address space on one tree whose page offsets and addresses go together.

    Args:
        trees: The trees.
        lives: Of the trees of these, all lives are looked at.
    """

    def __init__(self, trees: Trees, lives: Int) -> None:
        self.trees = trees
        own = trees.lives.select("tree", "space", "born", "died")
        self.space = own["space"].to_numpy()
        start, end = ((edge >> np.uint64(PAGE_SHIFT)).astype(np.int64) for edge in (trees.start, trees.end))
        self.shift: Int = start - trees.first.astype(np.int64)
        tree = own["tree"].to_numpy()
        some = np.flatnonzero(np.isin(tree, tree[lives]))
        first, code = numbered(self.space[some], self.shift[some])
        self.group = np.full(len(tree), NONE)
        self.group[some] = code
        self.shifts = self.shift[some][first]
        self.of_space = np.searchsorted(self.space[some][first], np.arange(len(trees.spaces) + 1))
        self.lowest, self.highest = np.full(len(first), 1 << 62), np.zeros(len(first), np.int64)
        np.minimum.at(self.lowest, self.group[some], start[some])
        np.maximum.at(self.highest, self.group[some], end[some])
        born, died = own["born"].to_numpy(), own["died"].to_numpy()
        self.died = died
        self.over = some[died[some] != AFTER]
        self.ends = Covers(self.group[self.over], died[self.over], start[self.over], end[self.over])
        self.some = some
        self.births = Covers(self.group[some], born[some], start[some], end[some])

    def turned(
        self, life: Int, instant: Int, page: Int, low: Int, high: Int, merge: Int
    ) -> tuple[Int, NDArray[np.bool_]]:
        """The life whose end, or whose birth, made each lookup pass by.

        Args:
            life: Holds the page at the instant, and is passed by.
            instant: When.
            page: ``address >> PAGE_SHIFT``.
            low: First page offset looked up.
            high: Last one, inclusive.
            merge: Place of the merge.

        Returns:
            Life (``NONE``: not found), whether it is its end.
        """
        met = self._last_met(self.space[life], instant, page, low, high)
        when = np.where(met == NONE, _BEFORE_ALL, self.died[np.maximum(met, 0)])
        group = self.group[life]
        held = np.zeros(len(life), np.bool_)
        asked = np.flatnonzero(met != NONE)
        question, holder = self.trees.covering(
            self.space[life[asked]], when[asked], page[asked].astype(np.uint64) << np.uint64(PAGE_SHIFT)
        )
        held[asked[question[self.group[holder] == group[asked[question]]]]] = True
        born = self.births.first(group, when, page, page)
        birth = np.where(born == NONE, NONE, self.some[np.maximum(born, 0)])
        is_end = (met != NONE) & (held | ((merge >= 0) & (when > merge)))
        return np.where(is_end, met, birth), is_end

    def _last_met(self, space: Int, instant: Int, page: Int, low: Int, high: Int) -> Int:
        """The last life that held the page and overlapped the range, and was over by the instant."""
        count = self.of_space[space + 1] - self.of_space[space]
        row = np.repeat(np.arange(len(space)), count)
        nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
        group = self.of_space[space][row] + nth
        start = np.minimum(page[row], high[row] + self.shifts[group])
        end = np.maximum(page[row], low[row] + self.shifts[group])
        near = (self.lowest[group] <= start) & (self.highest[group] > end)
        row, group = row[near], group[near]
        found = self.ends.last(group, instant[row], start[near], end[near])
        row, found = row[found != NONE], self.over[found[found != NONE]]
        order = np.argsort(self.died[found], kind="stable")
        met = np.full(len(space), NONE)
        met[row[order]] = found[order]
        return met


def _parents(exact: Exact, life: Int, page: Int) -> tuple[Int, Int]:
    """Where a life began with a fork: the parent's life that holds the page, and the instant before."""
    lives = exact.trees.lives[life].select("tree", "mm", "pid", "born_seq").with_row_index("row")
    told = lives.filter(pl.col("born_seq").is_not_null()).rename({"mm": "own", "born_seq": "seq"})
    forked = (
        mm_of(told, exact.mappings.spaces)
        .filter(pl.col("mm") != pl.col("own"))
        .join(exact.trees.spaces, on=["tree", "mm"])
        .sort("row")
    )
    row, before = forked["row"].to_numpy(), forked["seq"].to_numpy() - 1
    address = page[row].astype(np.uint64) << np.uint64(PAGE_SHIFT)
    question, holder = exact.trees.covering(forked["space"].to_numpy(), before, address)
    parent, instant = np.full(len(life), NONE), np.zeros(len(life), np.int64)
    parent[row[question]] = holder
    instant[row] = before
    return parent, instant
