"""What the replay had to leave out or to assume, as rows of table ``quality``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.model.agreement_causes import CAUSES
from replay.state.gaps import KINDS
from replay.state.losses import BEGIN, END
from replay.walks.doubts import AFTER_LOSS, DURING, LIST, TREE
from replay.walks.ends import AGES, ENDING
from replay.walks.stale import WORDS, stale_items
from replay.walks.steps import SETS
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from replay.evidence import Rebuilt
    from replay.ksm.other_kernel import OtherKernel
    from replay.ksm.stock import Stock
    from replay.model.agreement import Agreement
    from replay.walks.exact import Exact

_4_GIB: Final = 1 << 32

UNCERTAIN_WALKS: Final = {
    DURING: "walks ran while events were lost: any of their counts may be off",
    LIST: "walks are over stable nodes whose rmap_items came or went unseen: loops may be missing",
    TREE: "walks looked up intervals that came or went unseen: their iterations may be off",
    AFTER_LOSS: "walks ran after events were lost; nothing shows that this changed their trees or rmap_items",
}
"""What each value of column ``uncertain`` of table ``walk`` means, the worst first."""

_UNCERTAIN_LIVES: Final = {
    BEGIN: "begin unseen, before the capture or in a loss; where others had their place, after those",
    END: "end unseen if they end; where others took their place, in the loss before that",
}


DOUBTS: Final = {
    "clone_flags": "the model did not know whether a new task shares the address space of its parent",
    "brk_before": "the break moved before the capture told the model where it was",
    "mremap_of_unknown": "a VMA was moved or grown of whose creation the model does not know",
    "target_not_free": "the kernel put something where the model still had a VMA",
    "too_many_vmas": "a call failed as there were too many VMAs; at which one is not sure",
    "failed_at_unknown": "mprotect or madvise failed at one of several VMAs; the model says at the first",
    "fixed_mmap_failed": "a call failed to map or move to a place in use; what it had undone is not known",
    "mbind_nodes": "mbind named nodes in the memory of the caller, which keep VMAs apart; the model compares "
    "their addresses",
    "fault_of_unknown": "writes where the model has no VMA, such as what exec mapped and nothing told",
    "stack_unknown": "an exec of which nothing in the capture tells where its stack is",
    "stack_limit_unknown": "a fault more than 8 MiB below a stack's end; the model did not let it grow",
    "huge_page_read_fault": "a read gave a VMA its anon_vma if huge pages were enabled; the model says not",
    "process_madvise": "process_madvise changed VMAs of the caller, and the capture does not tell which",
    "shmat_size": "shmat mapped a segment that the capture did not see made; the model leaves it out",
    "userfaultfd": "a userfaultfd was made; what was registered with it, and so split, is not in the capture",
    "named_vmas": "prctl named memory, which keeps VMAs apart; the model does not know the names",
    "mlock_failed": "mlock failed before it changed VMAs or after; which is not known, the model says before",
    "moves_cut": "mremap of several VMAs failed; how many it had moved is not known, the model says none",
    "calls_cut": "a call had no return, or a return no call, in the capture: what it did is not known",
    "maps_differ": "a snapshot of the maps showed something else than the model had, and was believed",
    "maps_torn": "a snapshot of the maps was left out, as the process made system calls meanwhile",
    "told_merges": "the model asked whether a VMA merges of which it knows no more than a snapshot told",
}
"""Names in ``model.Modelled.doubts`` in words."""


def limits(
    rebuilt: Rebuilt,
    events: Mapping[str, pl.DataFrame],
    no_fit: str,
    capture: pl.DataFrame,
) -> pl.DataFrame:
    """Table ``quality`` of the replay.

    Args:
        rebuilt: State and walks, and what they rest on.
        events: The ``ev_*`` tables.
        no_fit: Why there is no fit of the times; empty: there is one.
        capture: Table ``quality`` of the capture; its rows are not in the result.
    """
    exact = rebuilt.exact
    everything = (
        *_after_losses(exact, lost=capture["kind"].is_in(KINDS).any()),
        *_censored(exact),
        *_stale(exact),
        *_assumed(exact, events),
        *_timed(no_fit, exact, events),
        *_agreed(rebuilt.agrees),
        *_otherwise(rebuilt.other),
        *_modelled(exact, rebuilt.stock),
        *(
            ("model_doubt", "info", count, f"times {DOUBTS[name]}")
            for name, count in (rebuilt.doubts or {}).items()
        ),
    )
    rows = [
        {"kind": kind, "count": count, "effect": effect, "severity": severity}
        for kind, severity, count, effect in everything
        if count
    ]
    empty = dict.fromkeys(TABLES["quality"].arrow.names)
    frame = pl.DataFrame([{**empty, **row} for row in rows], infer_schema_length=None)
    return frame if rows else pl.DataFrame(schema=dict.fromkeys(empty, pl.Null))


def _after_losses(exact: Exact, lost: bool) -> Iterator[tuple[str, str, int, str]]:
    """What lost events make uncertain; the rows themselves say it in their column ``uncertain``."""
    order = pl.Enum(list(UNCERTAIN_WALKS))
    worst = exact.walk.group_by("walk_id").agg(pl.col("uncertain").cast(order).min())
    for grade, effect in UNCERTAIN_WALKS.items():
        yield "uncertain_walk", "warning", len(worst.filter(pl.col("uncertain") == grade)), effect
    for side, effect in _UNCERTAIN_LIVES.items():
        for name, what in (("avc", "intervals"), ("rmap_item", "rmap_items")):
            frame = getattr(exact, name)
            count = len(frame.filter(pl.col("uncertain") == side))
            yield f"uncertain_{name}", "warning", count, f"{what} {effect}"
    yield (
        "uncertain_avc",
        "warning",
        len(exact.avc.filter(pl.col("evidence") == "modelled")) if lost else 0,
        "intervals follow from system calls, some of which may be among the lost events",
    )


def _stale(exact: Exact) -> Iterator[tuple[str, str, int, str]]:
    """rmap_items that map nothing any more, and what tells so."""
    counts = stale_items(exact)["by"].value_counts(sort=True)
    told = ", ".join(f"{count} by {WORDS.get(by, by)}" for by, count in counts.iter_rows())
    yield (
        "stale_rmap_item",
        "info",
        int(counts["count"].sum()),
        f"rmap_items in walks whose page is not mapped there: walked, and no strategy misses them ({told})",
    )


def _censored(exact: Exact) -> Iterator[tuple[str, str, int, str]]:
    yield (
        "censored_avc",
        "info",
        exact.avc["born_seq"].null_count(),
        "intervals were on their trees before the capture began; they are counted from its begin",
    )
    yield (
        "unplaceable_avc",
        "warning",
        exact.unplaceable,
        "intervals of unknown range were on their trees; they are not counted",
    )
    yield (
        "censored_rmap_item",
        "warning",
        exact.rmap_item["born_ts_ns"].null_count(),
        "rmap_items were merged before the capture began; their place in the hlist and what vm_pgoff "
        "and linear look up are not known",
    )
    merged = exact.rmap_item.drop_nulls(["born_ts_ns", "address"])
    yield (
        "unknown_vma",
        "warning",
        merged["vm_pgoff"].null_count(),
        "pages were merged in VMAs that were there before the capture began; their trees hold more "
        "intervals than are counted",
    )
    yield (
        "unknown_tree",
        "warning",
        exact.loop.select(pl.coalesce("iterations", "iterations_most").null_count()).item(),
        "loops have no count: their tree, or what the strategy looks up, is not in the capture",
    )
    yield (
        "unlisted_walk",
        "warning",
        exact.walk.filter(pl.col("loops").is_null())
        .join(exact.loop, on="walk_id", how="anti")["walk_id"]
        .n_unique(),
        "walks are over stable nodes of which no rmap_item was seen: merged earlier, or where the capture "
        "does not look; their loops are not known",
    )
    yield (
        "open_walk",
        "info",
        exact.open_walks,
        "walks have no return in the capture and are left out",
    )


def _assumed(exact: Exact, events: Mapping[str, pl.DataFrame]) -> Iterator[tuple[str, str, int, str]]:
    callers = exact.walks["rmap_one"]
    ending = callers.is_in(ENDING).fill_null(False)
    yield (
        "assumed_instant",
        "warning",
        int(exact.replayed.loop["assumed"].sum()),
        "loop counts may be off: the tree changed while the walk ran, and no page-table event tells "
        "before which loop; such loops are spread evenly between the neighbouring page-table events",
    )
    yield (
        "stray_hit",
        "warning",
        len(exact.replayed.strays),
        "page-table entries were changed by walks for which no rmap_item of the node accounts",
    )
    modelled = (
        callers != SETS if not events["ev_migration_pte"].is_empty() else pl.Series([True] * len(callers))
    )
    yield (
        "assumed_end",
        "info",
        int((ending & modelled.fill_null(True)).sum()),
        "walks show no page-table events; where they end early follows from merges, forks and unmappings",
    )
    yield (
        "reclaim_unseen",
        "info",
        int((callers == AGES).fill_null(False).sum()),
        "walks of folio_referenced() count as ending at the last mapping; no event tells if a locked VMA "
        "or a busy lock ended them before, or a mapping of another memory cgroup kept them going to the end",
    )
    yield (
        "compat",
        "warning",
        len(_compat(exact, events)),
        "address spaces lie below 4 GiB and make no system call that is recorded: 32-bit processes, whose "
        "calls syscalls:* does not show; what they unmap counts as mapped, causes are not found",
    )
    blind = [name for name in ("ev_fault", "ev_syscall") if events[name].is_empty()]
    yield (
        "no_unmappings",
        "warning",
        len(exact.walks) if blind else 0,
        "walks were replayed without page faults or system calls in the capture; rmap_items whose page was "
        "copied or unmapped are not told from the others, and count as mapped",
    )
    yield (
        "trylock",
        "info",
        int((exact.walks["try_lock"].fill_null(False)).sum()),
        "walks only try the lock and may have been cut short by a writer; that is not replayed",
    )
    yield (
        "invalid_vma",
        "info",
        int((exact.walks["invalid_vma"].fill_null(0) != 0).sum()),
        "walks leave out VMAs of other memory cgroups; that is not replayed",
    )


def _compat(exact: Exact, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``mm`` of the 32-bit processes that have merged pages.

    Kernel: kernel/trace/trace_syscalls.c trace_get_syscall_nr() leaves out compat system calls.
    """
    calls = events["ev_syscall"]
    if calls.is_empty():
        return calls.select(mm="pid")
    low = exact.avc.group_by("mm").agg(top=pl.col("vm_end").max()).filter(pl.col("top") <= _4_GIB)
    tasks = events["ev_avc"].select("mm", "pid").join(low, on="mm", how="semi").unique()
    callers = tasks.join(calls.select("pid").unique(), on="pid", how="semi")
    merged = exact.rmap_item.select("mm").unique()
    return low.select("mm").join(merged, on="mm", how="semi").join(callers, on="mm", how="anti")


def _timed(
    no_fit: str, exact: Exact, events: Mapping[str, pl.DataFrame]
) -> Iterator[tuple[str, str, int, str]]:
    if no_fit:
        yield "no_time_fit", "info", len(exact.walks), f"walks have no predicted times: {no_fit}"
    yield (
        "probed_iterations",
        "info",
        len(events["ev_obs_next"]) + len(events["ev_obs_loop"]),
        "events were recorded inside the loops; measured and predicted times include what that cost",
    )


def _agreed(agrees: Agreement | None) -> Iterator[tuple[str, str, int, str]]:
    for cause, count in (agrees.causes if agrees is not None else {}).items():
        yield (
            "disagreement",
            "info",
            count,
            f"probed tree changes after which the modelled tree differs: {cause}: {CAUSES[cause]}",
        )


def _otherwise(other: OtherKernel | None) -> Iterator[tuple[str, str, int, str]]:
    if other is None:
        return
    yield (
        "other_kernel_unplaced",
        "warning",
        other.unplaced,
        f"rmap_items are of VMAs whose birth is not in the capture, so not in the model by the rules of "
        f"{other.rules}; their loops have no count there",
    )
    yield (
        "other_kernel_bounds",
        "info",
        other.state.loop["iterations_most"].count(),
        f"loop counts by the rules of {other.rules} are bounds: an operation on their tree was half done",
    )
    for doubt, count in other.doubts.items():
        yield (
            "other_kernel_doubt",
            "warning",
            count,
            f"times the model by the rules of {other.rules} had to do without knowing: {doubt}",
        )


def _modelled(exact: Exact, stock: Stock | None) -> Iterator[tuple[str, str, int, str]]:
    why = "; no walk is replayed on them: that takes all of KSM's events, or probes (see replay inspect)"
    yield (
        "modelled",
        "warning",
        len(exact.avc.filter(pl.col("evidence") == "modelled")),
        f"intervals follow from system calls by the kernel's rules{why if stock is None else ''}",
    )
    if stock is None:
        return
    rest = stock.migrations - stock.replayed - stock.bounded
    yield (
        "bounded_migration",
        "info",
        stock.bounded,
        f"migrations of KSM folios, of {stock.migrations}, have bounds in place of counts: which rmap_items "
        "were listed, or where, is not determined; nor is what a strategy would miss",
    )
    yield (
        "undetermined_migration",
        "warning",
        rest,
        f"migrations of KSM folios, of {stock.migrations}, have neither counts nor bounds: the folio may not "
        "have been the node's any more, or an rmap_item's address space or its VMAs are not known",
    )
    yield (
        "unseen_walk",
        "info",
        stock.migrations,
        "migrations of KSM folios are all the walks there are here: stock events do not show walks that "
        "changed no entry, of reclaim and of aging",
    )
    yield (
        "undetermined_address",
        "info",
        stock.merged - stock.determined,
        f"rmap_items, of {stock.merged} merged, have no address, {stock.bounded_items} of them a range of "
        "addresses: no migration's hits determine it; walks over every node leave out their nodes",
    )
