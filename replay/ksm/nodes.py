"""Stable nodes by page frame: which node a merge, and a migration, is of (see ``ksm.stock``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.walks.observed import within

if TYPE_CHECKING:
    from collections.abc import Mapping

NEVER: Final = (1 << 63) - 1
_FRAME_BITS: Final = 34
"""Bits of a page frame number in a migration entry; above them are the young and dirty bits."""


def stable_node() -> pl.Expr:
    """What stands for the pointer of the stable node."""
    return (pl.col("node") + 1).cast(pl.UInt64)


def migration_entries(ev_migration_pte: pl.DataFrame) -> pl.DataFrame:
    """Rows with ``pfn``, ``type`` and ``group``: entries of one folio, one after another of one task.

    The swap entries that a walk sets for a KSM page are of one type; another type in the same frame is of the
    next folio there. In entries that are restored, the bits of the type are NX and the protection key.
    """
    inverted = pl.col("pte") ^ pl.lit((1 << 64) - 1, pl.UInt64)
    entry = inverted * 32 // (1 << 14) % (1 << _FRAME_BITS)
    # __pte_needs_invert(): what is not present, as PROT_NONE, has its frame inverted.
    page = pl.when(pl.col("pte") % 2 == 1).then("pte").otherwise(inverted) // 4096 % (1 << 40)
    frame = pl.when("is_set").then(entry).otherwise(page)
    rows = (
        ev_migration_pte.drop_nulls("pte")
        .sort("pid", "seq")
        .with_columns(pfn=frame.cast(pl.UInt64), type=pl.col("is_set") * (pl.col("pte") // (1 << 59)))
    )
    same = ("pid", "is_set", "pfn", "type")
    apart = pl.any_horizontal(pl.col(name) != pl.col(name).shift(1) for name in same)
    return rows.with_columns(group=apart.fill_null(True).cum_sum())


def migrations(entries: pl.DataFrame) -> pl.DataFrame:
    """Migrations of one folio: the entries set by one walk, and those restored by the next.

    Several folios are unmapped before the first is restored, and a task may unmap an entry meanwhile: a walk
    restores what another set if it is the next at all addresses that are restored, and of no other one.

    Args:
        entries: ``migration_entries``.

    Returns:
        ``move`` (number), ``pid``, ``cpu``, ``pfn`` and ``restored`` (frames before and after), ``type`` (of
        the swap entries), ``first``, ``last``, ``begin``, ``end`` (places of the first and last entry set and
        restored), each with its ``_ts``, ``hits``, ``addresses`` (distinct), ``complete`` (as many restored).
        Null: not restored, or nothing tells by which walk.
    """
    groups = entries.group_by("group", maintain_order=True).agg(
        pl.col("pid", "cpu", "is_set", "pfn", "type").first(),
        first=pl.col("seq").first(),
        last=pl.col("seq").last(),
        first_ts=pl.col("ts_ns").first(),
        last_ts=pl.col("ts_ns").last(),
        hits=pl.len(),
        addresses=pl.col("address").n_unique(),
    )
    pages = (
        entries.select("group", "pid", "address", "is_set")
        .unique()
        .join(groups.select("group", "first", "last"), on="group")
    )
    claims = (
        pages.filter("is_set")
        .sort("last")
        .join_asof(
            pages.filter(~pl.col("is_set")).select("pid", "address", "first", restores="group").sort("first"),
            left_on="last",
            right_on="first",
            by=["pid", "address"],
            strategy="forward",
            check_sortedness=False,
        )
        .select("group", "restores")
        .drop_nulls()
        .unique()
    )
    sole = claims.filter(pl.all_horizontal(pl.len().over(name) == 1 for name in ("group", "restores")))
    restores = groups.filter(~pl.col("is_set")).select(
        restores="group",
        begin="first",
        end="last",
        begin_ts="first_ts",
        end_ts="last_ts",
        restored="pfn",
        again="hits",
    )
    return (
        groups.filter("is_set")
        .join(sole, on="group", how="left")
        .join(restores, on="restores", how="left")
        .sort("first")
        .with_columns(complete=(pl.col("hits") == pl.col("again")).fill_null(False))
        .drop("group", "is_set", "restores", "again")
        .with_row_index("move")
    )


def nodes(
    events: Mapping[str, pl.DataFrame], entries: pl.DataFrame, moves: pl.DataFrame
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The rmap_items merged into nodes whose beginning the capture saw, and the node of each migration.

    Args:
        events: Tables ``ev_merge``, ``ev_ksm_removed``, ``ev_exit_mmap`` and ``ev_scan``.
        entries: ``migration_entries``.
        moves: ``migrations`` of these.

    Returns:
        Items: ``item`` (number), ``rmap_item``, ``mm`` (pointer), ``node``, ``kpfn``, ``born`` (order in the
        hlist), ``merged`` (place of its own event), ``scanned`` (ksmd was at its page then; else it had
        passed it before), ``ts_ns``, ``died`` (merged elsewhere, the node was freed, or ksmd has passed what
        is left of its address space), ``died_ts_ns``, ``pid``. And ``moves`` with ``node``; null: not known
        as a KSM folio.
    """
    tried = events["ev_merge"].sort("seq").with_columns(makes=pl.col("ksm_page").fill_null(0) == 0)
    follows = [
        pl.col(name).shift(-1).alias(f"next_{name}") for name in ("seq", "pfn", "err", "makes", "rmap_item")
    ]
    tried = tried.with_columns(follows)
    paired = (
        (pl.col("next_pfn") == pl.col("pfn")) & (pl.col("next_err") == 0) & ~pl.col("next_makes")
    ).fill_null(False)
    # try_to_merge_two_pages(): the page merged second is listed first.
    merges = (
        tried.with_columns(whole=pl.col("makes") & (pl.col("err") == 0) & paired)
        .with_columns(second=pl.col("whole").shift(1).fill_null(False), first_seq=pl.col("seq").shift(1))
        .filter((pl.col("err") == 0) & (pl.col("whole") | ~pl.col("makes")))
        .with_columns(
            born=pl.when("whole").then("next_seq").when("second").then("first_seq").otherwise("seq")
        )
    )
    freed = events["ev_ksm_removed"].filter(pl.col("rmap_item").is_null()).sort("seq")
    moved = moves.filter(pl.col("restored") != pl.col("pfn"))
    # Where a folio went, or came from, that nothing tells: what was in these frames is not there any more.
    lost = moves.filter(pl.col("restored").is_null()).select("pfn", since=pl.col("last") + 1)
    came_from = (
        entries.filter(~pl.col("is_set"))
        .group_by("group")
        .agg(pl.col("pfn").first(), since=pl.col("seq").first())
        .filter(~pl.col("since").is_in(moves["begin"].drop_nulls().implode()))
    )
    starts = pl.concat(
        [
            merges.filter("whole").select("pfn", since="seq", kind=pl.lit(1), move=pl.lit(None, pl.UInt32)),
            moved.select(pl.col("restored").alias("pfn"), since="begin", kind=pl.lit(2), move="move"),
            moved.select("pfn", since="begin", kind=pl.lit(0), move=pl.lit(None, pl.UInt32)),
            *(
                frame.select("pfn", "since", kind=pl.lit(0), move=pl.lit(None, pl.UInt32))
                for frame in (lost, came_from)
            ),
            freed.select("pfn", since="seq", kind=pl.lit(0), move=pl.lit(None, pl.UInt32)),
        ]
    ).sort("since", "kind")
    starts = starts.with_row_index("start").with_columns(pl.col("start").cast(pl.Int64))
    held = starts.select("pfn", "since", "start").sort("since")

    def holder(frame: pl.DataFrame, at: str) -> pl.Series:
        return (
            frame.select("pfn", at=at)
            .with_row_index("row")
            .sort("at")
            .join_asof(held, left_on="at", right_on="since", by="pfn", check_sortedness=False)
            .sort("row")["start"]
        )

    before = moves.with_columns(before=holder(moves, "first"))
    came = starts.join(before.select("move", "before"), on="move", how="left", maintain_order="left")
    kind = starts["kind"].to_numpy()
    root = np.where(kind == 2, came["before"].fill_null(-1).to_numpy(), np.arange(len(starts)))
    root = np.append(root, -1)  # the last stands for "not known"
    for _ in range(64):
        following = root[root]
        if (following == root).all():
            break
        root = following
    node = np.where((root >= 0) & (np.append(kind, 0)[root] == 1), root, -1)

    def node_of(start: pl.Series) -> pl.Series:
        at = start.fill_null(len(starts)).to_numpy()
        return pl.Series("node", node[at], dtype=pl.Int64)

    merges = merges.with_columns(node=node_of(holder(merges, "seq")))
    freed = freed.with_columns(before=pl.col("seq") - 1)
    ends = (
        freed.with_columns(node=node_of(holder(freed, "before")))
        .filter(pl.col("node") >= 0)
        .select("node", freed="seq", freed_ts="ts_ns")
        .unique("node", keep="first")
    )
    again = [
        pl.col(name).shift(-1).over("rmap_item", order_by="seq").alias(f"again_{name}")
        for name in ("seq", "ts_ns")
    ]
    items = (
        _passed(merges.with_columns(again).filter(pl.col("node") >= 0), events)
        .join(ends, on="node", how="left")
        .with_columns(
            died=pl.min_horizontal("again_seq", "freed", "passed").fill_null(NEVER),
            died_ts_ns=pl.min_horizontal("again_ts_ns", "freed_ts", "passed_ts"),
            kpfn="pfn",
            merged="seq",
            scanned=~pl.col("second"),
        )
        .sort("born")
        .with_row_index("item")
        .select(
            *("item", "rmap_item", "mm", "node", "kpfn", "born", "merged", "scanned"),
            *("ts_ns", "died", "died_ts_ns", "pid"),
        )
    )
    of = node_of(before["before"])
    return items, moves.with_columns(node=of).with_columns(node=pl.when(pl.col("node") >= 0).then("node"))


def _passed(merges: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``merges`` with ``passed``, ``passed_ts``: end of the first whole pass after its mm's exit; or null.

    A pass takes away all rmap_items of an address space that is gone. Kernel: mm/ksm.c
    scan_get_next_rmap_item(), remove_trailing_rmap_items().
    """
    exits = events["ev_exit_mmap"].select("mm", exited="seq").sort("exited")
    scans = events["ev_scan"].select("is_stop", "seq", "ts_ns").sort("seq")
    starts = scans.filter(~pl.col("is_stop")).select(started="seq")
    stops = scans.filter("is_stop").select(passed="seq", passed_ts="ts_ns")
    rows = merges
    for known, left, right, by in (
        (exits, "seq", "exited", "mm"),
        (starts, "exited", "started", None),
        (stops, "started", "passed", None),
    ):
        rows = rows.sort(left).join_asof(
            known,
            left_on=left,
            right_on=right,
            by=by,
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
    return rows


def of_one(moves: pl.DataFrame, items: pl.DataFrame, forks: pl.DataFrame) -> pl.DataFrame:
    """The migrations of pages that one process merged: ``move``, ``forked``.

    All that was merged into the node before was of one known address space. If none was ``forked`` from it
    since the first merge, each mapping is in that address space, and hit in the first pass.

    Args:
        moves: ``migrations`` with the node.
        items: ``nodes``, and ``number``, their modelled address space.
        forks: ``spaces.parents``.
    """
    merged = (
        moves.select("move", "node", "first")
        .join(items.select("node", "number", "merged"), on="node")
        .filter(pl.col("merged") < pl.col("first"))
        .group_by("move", "first")
        .agg(
            pl.col("merged").min(),
            pl.col("number").first(),
            one=(pl.col("number").n_unique() == 1) & pl.col("number").is_not_null().all(),
        )
        .filter("one")
    )
    forked = merged.join(forks.select(number="parent", fork="born"), on="number").filter(
        (pl.col("fork") > pl.col("merged")) & (pl.col("fork") < pl.col("first"))
    )
    return merged.select("move", forked=pl.col("move").is_in(forked["move"].implode()))


def listed_in(moves: pl.DataFrame, items: pl.DataFrame) -> pl.DataFrame:
    """``move`` and the rows of ``items`` that its node listed then, or had dropped: no event tells."""
    return (
        moves.select("move", "node", "first", "last")
        .join(items, on="node")
        .filter((pl.col("born") < pl.col("first")) & (pl.col("died") > pl.col("last")))
    )


def hits_of(moves: pl.DataFrame, ev_migration_pte: pl.DataFrame) -> pl.DataFrame:
    """The entries that each migration's first walk changed: ``move``, ``place`` (from 0), ``address``."""
    entries = ev_migration_pte.filter("is_set", pl.col("pte").is_not_null()).select("pid", "seq", "address")
    walks = moves.select("pid", walk_id="move", enter="first", exit=pl.col("last") + 1)
    return within(entries, walks).select(
        "address", move="walk_id", place=pl.int_range(pl.len()).over("walk_id")
    )
