"""Exact evidence: the tree probes' events become lives, by sorting and shifting columns.

An insertion into a tree and the removal of the same anon_vma_chain are one life ``[born, died)``; so
are a stable_tree_append() and what ends the rmap_item. What was there before the capture began is
seen when it goes (left-censored, born null); what is there at its end has died null.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.losses import settle, settle_items
from replay.state.order import disjoint, in_order, last_to_die, ordering

if TYPE_CHECKING:
    from replay.state.gaps import Gaps
    from replay.state.order import Flags, Int

PAGE_SHIFT: Final = 12
STABLE_FLAG: Final = 0x200
"""Bit of rmap_item->address: the item is on a stable node (mm/ksm.c)."""
PAGE_MASK: Final = 0xFFFF_FFFF_FFFF_F000
BEFORE: Final = -1
AFTER: Final = (1 << 63) - 1
TOLD: Final = ("vma", "anon_vma", "mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff")
"""What insertion and removal of one avc tell of its VMA."""


def avc_lives(
    ev_avc: pl.DataFrame,
    ev_syscall: pl.DataFrame,
    gaps: Gaps | None = None,
    ev_exit_mmap: pl.DataFrame | None = None,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lives of intervals on anon_vma trees, and the versions of the VMAs that they belong to.

    Args:
        ev_avc: Table ``ev_avc``.
        ev_syscall: Table ``ev_syscall``; names the call in which a version was made.
        gaps: When events were lost; None: none were.
        ev_exit_mmap: Table of this name, for what was lost.

    Returns:
        Two frames. Lives: the columns of table ``avc``, and ``born``, ``died`` (places in the total
        order; ``BEFORE`` and ``AFTER`` where not seen), ``vm_pgoff``, ``removed_by`` (the task), and after
        losses ``doubt_from`` and ``doubt_until`` of ``losses.settle``. Versions: the columns of table
        ``vma``.

    Kernel: mm/interval_tree.c anon_vma_interval_tree_insert()/_remove(), 7.3 anon_rmap_tree_*().
    """
    # Neighbours within one avc; sorted by it, a comparison is cheaper than a window. What an event tells of
    # the VMA is fetched by its row at the end: by then half of the events are left.
    of_vma = ev_avc.drop("seq", "ts_ns", "cpu", "pid", "is_insert", "avc")
    narrow = ev_avc.select("avc", "seq", "ts_ns", "pid", "is_insert", *(() if gaps is None else TOLD))
    ordered = in_order(narrow.with_row_index("row"), "avc", "seq")
    after, before = (pl.col("avc") == pl.col("avc").shift(n) for n in (1, -1))
    events = ordered.with_columns(
        after_insert=pl.when(after).then(pl.col("is_insert").shift(1)),
        previous=pl.when(after).then(pl.col("seq").shift(1)),
        next_seq=pl.when(before).then(pl.col("seq").shift(-1)),
        next_ts=pl.when(before).then(pl.col("ts_ns").shift(-1)),
        next_pid=pl.when(before).then(pl.col("pid").shift(-1)),
    )
    if gaps is not None:
        events = _pairs(events, gaps).drop(TOLD)
    censored = ~pl.col("is_insert")
    lives = events.filter(pl.col("is_insert") | ~pl.col("after_insert").fill_null(False)).select(
        *("row", "avc", "pid"),
        *(() if gaps is None else ("is_insert", "paired")),
        born_seq=pl.when(~censored).then("seq"),
        born_ts_ns=pl.when(~censored).then("ts_ns"),
        died_seq=pl.when(censored).then("seq").otherwise("next_seq"),
        died_ts_ns=pl.when(censored).then("ts_ns").otherwise("next_ts"),
        removed_by=pl.when(censored).then("pid").otherwise("next_pid"),
        born=pl.when(~censored).then("seq").otherwise(pl.col("previous").fill_null(BEFORE)),
        died=pl.when(censored).then("seq").otherwise("next_seq").fill_null(AFTER),
    )
    del ordered, events
    if gaps is not None and ev_exit_mmap is not None:
        seen = _of_vmas(lives, of_vma).with_columns(
            begin_seen=pl.col("is_insert"), end_seen=~pl.col("is_insert") | pl.col("paired")
        )
        settled = settle(seen.drop("uncertain"), gaps, ev_exit_mmap)
        lives = in_order(settled.drop("begin_seen", "end_seen"), "born", "died", "avc")
    else:
        lives = _of_vmas(in_order(lives, "born", "died", "avc"), of_vma)
    vma, born, died = (lives[name].to_numpy() for name in ("vma", "born", "died"))
    by_vma = ordering(vma)
    version = np.empty(len(vma), np.int64)
    version[by_vma] = np.cumsum(disjoint(vma[by_vma], born[by_vma], died[by_vma]))
    lives = lives.with_columns(version=pl.Series(version))
    versions = _versions(lives, ev_syscall)
    vma_id = np.empty(len(versions) + 1, np.int64)
    vma_id[versions["version"].to_numpy()] = versions["vma_id"].to_numpy()
    return lives.with_columns(vma_id=pl.Series(vma_id[version])), versions


def _of_vmas(lives: pl.DataFrame, of_vma: pl.DataFrame) -> pl.DataFrame:
    """``lives`` with the columns that tell of the VMA, those of the event ``row``."""
    first = pl.coalesce("anon_pgoff", "vm_pgoff")
    pages = (pl.col("vm_end") - pl.col("vm_start")) // (1 << PAGE_SHIFT)
    return pl.concat([lives.drop("row"), of_vma[lives["row"]]], how="horizontal").with_columns(
        first_pgoff=first,
        last_pgoff=first + pages - 1,
        evidence=pl.lit("exact"),
        uncertain=pl.lit(None, pl.String),
    )


def _pairs(events: pl.DataFrame, gaps: Gaps) -> pl.DataFrame:
    """Insertions and removals of one avc that do not tell the same are not one life where events were lost.

    Args:
        events: In order of avc, then place; ``after_insert``, ``previous``.
        gaps: The losses.

    Returns:
        ``events`` with ``after_insert`` false where the removal is of another life than the insertion before
        it, and ``paired``: the next event of the avc is the removal of this insertion.
    """
    same = pl.all_horizontal((pl.col(name) == pl.col(name).shift(1)).fill_null(True) for name in TOLD)
    lost = gaps.within(events["previous"].fill_null(BEFORE).to_numpy(), events["seq"].to_numpy())
    one_life = pl.col("after_insert").fill_null(False) & ~pl.col("is_insert") & (same | ~pl.Series(lost))
    return events.with_columns(after_insert=one_life, paired=one_life.shift(-1).fill_null(False))


def tree_ages(lives: pl.DataFrame) -> pl.DataFrame:
    """Lives of intervals with the anon_vma that they are on told from others at the same address.

    A struct anon_vma is freed with its last interval, and its memory used again. Where its only interval
    leaves for a moment, to come back with another start or another end, it is the same one
    (mm/vma.c vma_prepare(), vma_complete()).

    Args:
        lives: ``anon_vma``, ``born``, ``died``, ``avc``, ``mm``, ``vm_start``, ``vm_end``, and other columns.

    Returns:
        ``lives`` in order of anon_vma, birth and death, with ``number``: of the anon_vma, from 1; and
        ``tree_age``: place of its first interval.
    """
    order, fresh, born = _trees(lives)
    number = np.cumsum(fresh)
    return lives[order].with_columns(number=pl.Series(number), tree_age=pl.Series(born[fresh][number - 1]))


def _trees(lives: pl.DataFrame) -> tuple[Int, Flags, Int]:
    """The lives in order of anon_vma, birth and death; where another anon_vma begins; their births.

    Args:
        lives: As for ``tree_ages``.
    """
    keys = [lives[name].to_numpy() for name in ("anon_vma", "born", "died")]
    order = ordering(*keys)
    anon_vma, born, died = (key[order] for key in keys)
    latest = last_to_die(anon_vma, died)
    fresh = disjoint(anon_vma, born, died, latest)
    again = np.flatnonzero(fresh[1:] & (anon_vma[1:] == anon_vma[:-1])) + 1
    told = lives.select("avc", "mm", "vm_start", "vm_end")
    back, left = told[order[again]], told[order[latest[again - 1]]]
    same = {name: (back[name] == left[name]).fill_null(False).to_numpy() for name in told.columns}
    fresh[again[same["avc"] & same["mm"] & (same["vm_start"] | same["vm_end"])]] = False
    return order, fresh, born


def _versions(lives: pl.DataFrame, ev_syscall: pl.DataFrame) -> pl.DataFrame:
    """One row a maximal time in which a VMA is on some tree: its range cannot change meanwhile."""
    # What a version is, its first life tells, but when it ends and which tree is its own: most VMAs are on
    # one tree, of the others the lives are put together.
    version, born = lives["version"].to_numpy(), lives["born"].to_numpy()
    place = np.empty(version.max(initial=0) + 1, np.int64)
    place[version[::-1]] = np.arange(len(version))[::-1]
    first = np.flatnonzero(place[version] == np.arange(len(version)))
    first = first[ordering(born[first], version[first])]
    alone = np.bincount(version)[version] == 1
    linked = lives.filter(pl.Series(~alone))
    narrow = lives.select(
        "anon_vma", "born", "died", "avc", "mm", "vm_start", "vm_end", alone=pl.Series(alone)
    )
    narrow = narrow.join(linked, on="anon_vma", how="semi", maintain_order="left")
    order, fresh, begun = _trees(narrow)
    tree_age = np.empty(len(order), np.int64)
    tree_age[order] = begun[fresh][np.cumsum(fresh) - 1]
    several = (
        linked.with_columns(tree_age=pl.Series(tree_age[~narrow["alone"].to_numpy()]))
        .group_by("version")
        .agg(
            pl.col("died_ts_ns").sort_by("died").last(),
            pl.col("anon_vma").sort_by("tree_age", "anon_vma").last(),
        )
    )
    same = ["vma", "mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags", "pid"]
    own = ["version", *same, "born_seq", "born_ts_ns", "died_ts_ns", "born", "anon_vma"]
    versions = lives.select(own)[first]
    place[version[first]] = np.arange(len(first))
    at = place[several["version"].to_numpy()]
    versions = versions.with_columns(
        versions[name].scatter(at, several[name]) for name in ("died_ts_ns", "anon_vma")
    ).with_columns(vma_id=pl.int_range(pl.len(), dtype=pl.Int64), evidence=pl.lit("exact"))
    calls = ev_syscall.select("pid", "seq", inside=~pl.col("is_exit"), cause_event="name").sort("seq")
    return (
        versions.join_asof(calls, left_on="born", right_on="seq", by="pid", check_sortedness=False)
        .with_columns(
            cause_event=pl.when(pl.col("inside") & pl.col("born_seq").is_not_null()).then("cause_event")
        )
        .sort("vma_id")
    )


def of_versions(vma: pl.DataFrame, vma_id: pl.Series, *columns: str) -> pl.DataFrame:
    """Columns of table ``vma`` for each ``vma_id``, the place of its row; null where that is null."""
    return vma.select(pl.col(*columns).gather(vma_id))


def rmap_item_lives(
    ev_append: pl.DataFrame,
    ev_item_remove: pl.DataFrame,
    ev_node_remove: pl.DataFrame,
    last_of_task: pl.DataFrame,
    gaps: Gaps | None = None,
) -> pl.DataFrame:
    """Lives of rmap_items on stable nodes.

    remove_rmap_item_from_tree() takes the item off the hlist under the folio lock, somewhere between
    its entry and its return; a walk holds that lock. So the death is an interval of places: a walk
    misses the item only if ``gone`` lies before the walk's end. Where the return was lost, the next event
    of the same rmap_item tells that it had gone.

    Args:
        ev_append: Table ``ev_append``.
        ev_item_remove: Table ``ev_item_remove``.
        ev_node_remove: Table ``ev_node_remove``.
        last_of_task: ``pid``, ``seq`` of every decoded event: where the capture has no returns, a
            removal is over when its task does the next thing.
        gaps: When events were lost; None: none were.

    Returns:
        Columns of table ``rmap_item`` but vm_pgoff; ``born``, ``died`` (entry of the removal),
        ``gone`` (its return), ``item``: number of the life; after losses ``doubt_from`` and ``doubt_until``
        of ``losses.settle_items``.
    """
    returns = ev_item_remove.filter("is_return").select("pid", "seq", returned="seq").sort("seq")
    if returns.is_empty():
        returns = last_of_task.select("pid", "seq", returned="seq").sort("seq")
    removals = (
        ev_item_remove.filter(~pl.col("is_return"))
        .filter((pl.col("address").is_null()) | (pl.col("address") & STABLE_FLAG != 0))
        .sort("seq")
        .with_columns(after=pl.col("seq") + 1)
        .join_asof(
            returns, left_on="after", right_on="seq", by="pid", strategy="forward", check_sortedness=False
        )
        .with_columns(pl.col("returned").fill_null(AFTER))
    )
    appends = ev_append.sort("seq")
    again = pl.concat(each.select("rmap_item", again="seq") for each in (appends, removals)).sort("again")
    nodes = ev_node_remove.select("stable_node", emptied="seq", emptied_ts="ts_ns").sort("emptied")
    removals = removals.join_asof(
        again,
        left_on="after",
        right_on="again",
        by="rmap_item",
        strategy="forward",
        coalesce=False,
        check_sortedness=False,
    ).with_columns(returned=pl.min_horizontal("returned", "again"))
    ends = pl.concat(
        [
            removals.select("rmap_item", removed=True, end="seq", end_ts="ts_ns", gone="returned"),
            appends.select("rmap_item", removed=False, end="seq", end_ts="ts_ns", gone="seq"),
        ]
    ).sort("end")
    seen = (
        appends.with_columns(after=pl.col("seq") + 1)
        .join_asof(
            ends,
            left_on="after",
            right_on="end",
            by="rmap_item",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        .join_asof(
            nodes,
            left_on="after",
            right_on="emptied",
            by="stable_node",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        .with_columns(
            died=pl.min_horizontal("end", "emptied"),
            gone=pl.min_horizontal("gone", "emptied"),
            died_ts_ns=pl.min_horizontal("end_ts", "emptied_ts"),
            born="seq",
            born_ts_ns="ts_ns",
            begin_seen=True,
            end_seen=pl.col("removed").fill_null(False)
            | (pl.col("emptied") <= pl.col("end")).fill_null(pl.col("emptied").is_not_null()),
        )
    )
    known = seen.select("rmap_item", "born", until="died").sort("born")
    censored = (
        removals.join_asof(
            known, left_on="seq", right_on="born", by="rmap_item", coalesce=False, check_sortedness=False
        )
        .filter(pl.col("until").is_null() | (pl.col("until") < pl.col("seq")))
        .with_columns(stable_node="head", previous=pl.col("seq").shift(1).over("rmap_item", order_by="seq"))
        .join_asof(
            nodes,
            left_on="after",
            right_on="emptied",
            by="stable_node",
            strategy="forward",
            coalesce=False,
            check_sortedness=False,
        )
        .select(
            "rmap_item",
            "mm",
            "address",
            "anon_vma",
            "stable_node",
            born=pl.max_horizontal("until", "previous").fill_null(BEFORE),
            born_ts_ns=pl.lit(None, pl.Int64),
            died="seq",
            died_ts_ns="ts_ns",
            gone=pl.min_horizontal("returned", "emptied"),
            kpfn=pl.lit(None, pl.UInt64),
            linear_page_index=pl.lit(None, pl.UInt64),
            begin_seen=False,
            end_seen=True,
        )
    )
    columns = [
        "rmap_item",
        "stable_node",
        "mm",
        "address",
        "anon_vma",
        "kpfn",
        "linear_page_index",
        "born",
        "born_ts_ns",
        "died",
        "died_ts_ns",
        "gone",
        "begin_seen",
        "end_seen",
    ]
    # What is removed without the flag was on the unstable tree, or on none.
    unlisted = ev_item_remove.filter(~pl.col("is_return") & (pl.col("address") & STABLE_FLAG == 0))
    items = pl.concat([seen.select(columns), censored.select(columns)]).with_columns(
        pl.col("address") & PAGE_MASK,
        pl.col("died", "gone").fill_null(AFTER),
        evidence=pl.lit("exact"),
    )
    unsettled = (
        items.with_columns(uncertain=pl.lit(None, pl.String))
        if gaps is None
        else settle_items(items, gaps, unlisted)
    )
    return (
        unsettled.drop("begin_seen", "end_seen")
        .sort("born", "died", "rmap_item")
        .with_row_index("item")
        .with_columns(pl.col("item").cast(pl.Int64))
    )


def walk_lives(ev_walk: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Walks: an entry of rmap_walk_ksm() and the next event of the same task there, its return.

    Returns:
        ``walk_id`` (order of entry), the entry's columns, ``enter``, ``exit`` (places), ``end_ns``;
        and the number of entries whose return the capture does not have.
    """
    events = ev_walk.sort("pid", "seq").with_columns(
        returns=pl.col("is_return").shift(-1).over("pid"),
        exit=pl.col("seq").shift(-1).over("pid"),
        end_ns=pl.col("ts_ns").shift(-1).over("pid"),
    )
    entries = events.filter(~pl.col("is_return"))
    whole = entries.filter(pl.col("returns").fill_null(False))
    return (
        whole.sort("seq")
        .rename({"seq": "enter"})
        .with_row_index("walk_id")
        .with_columns(pl.col("walk_id").cast(pl.Int64)),
        len(entries) - len(whole),
    )
