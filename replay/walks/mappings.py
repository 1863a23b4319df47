"""Which pages are still mapped: merges, forks, and what unmapped or copied a page since.

A walk's cost does not depend on page tables, its early end does (``done()`` is true when nothing maps
the folio), and so does what a strategy can miss: a stale rmap_item maps nothing. A merge maps a page
for sure; a fork copies its parent's mappings; a write fault, munmap, mremap and the madvise calls
that drop or copy pages end it (kernel.org: mm/memory.c do_wp_page(), mm/madvise.c).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.state.alive import WaveletMatrix
from replay.state.event_pairs import finished_calls
from replay.state.kernel import PF_WRITE
from replay.state.lifetimes import AFTER, BEFORE
from replay.state.spaces import CLONE_VM, mm_lives, mm_of, parents, task_spaces

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Int = NDArray[np.int64]
    UInt = NDArray[np.uint64]
    Bool = NDArray[np.bool_]

PAGE: Final = 4096
_DROPPING_ADVICE: Final = (4, 9, 13, 23, 24, 25)
"""MADV_ DONTNEED, REMOVE, UNMERGEABLE, POPULATE_WRITE, DONTNEED_LOCKED, COLLAPSE (uapi mman-common.h)."""
_MAP_FIXED: Final = 0x10
_CLONE_THREAD: Final = 0x10000
_EINVAL: Final = -22
_PR_SET_MEMORY_MERGE: Final = 67
_EVERYTHING: Final = (1 << 64) - 1


def unmappings(events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame) -> pl.DataFrame:
    """What ended mappings: ``seq`` (end of the call), ``mm``, ``start``, ``end`` (bytes, end exclusive).

    And ``by``: the name of the call, or ``page_fault``.

    Faults are only those at addresses where some page was merged.
    A call that failed is left out; madvise is not, unless it refused its arguments: it goes on over holes
    and only then returns an error, and how far MADV_POPULATE_WRITE came nobody tells.
    """
    page = pl.col("address") // PAGE * PAGE
    faults = (
        events["ev_fault"]
        .filter(pl.col("error_code") & PF_WRITE != 0)
        .select("seq", "pid", start=page)
        .join(events["ev_append"].select(start=page), on="start", how="semi")
    )
    written = mm_of(faults, spaces).select(
        "seq", "mm", "start", end=pl.col("start") + PAGE, by=pl.lit("page_fault")
    )
    name, flags, worked = pl.col("name"), pl.col("arg3"), pl.col("ret") >= 0
    advice = (name == "madvise") & pl.col("arg2").is_in(_DROPPING_ADVICE)
    done = (
        mm_of(finished_calls(events["ev_syscall"]), spaces)
        .filter(worked | (advice & (pl.col("ret") != _EINVAL)))
        .with_columns(address=pl.when(worked).then("ret").cast(pl.UInt64))
    )
    old = done.filter((name.is_in(["munmap", "mremap"])) | advice)
    moved = done.filter((name == "mremap") & (pl.col("address") != pl.col("arg0")))
    fixed = done.filter((name == "mmap") & (flags & _MAP_FIXED != 0))
    unmerged = done.filter(
        (name == "prctl") & (pl.col("arg0") == _PR_SET_MEMORY_MERGE) & (pl.col("arg1") == 0)
    )
    return (
        pl.concat(
            [
                written,
                old.select("seq", "mm", start="arg0", end=pl.col("arg0") + pl.col("arg1"), by=name),
                moved.select("seq", "mm", start="address", end=pl.col("address") + pl.col("arg2"), by=name),
                fixed.select("seq", "mm", start="address", end=pl.col("address") + pl.col("arg1"), by=name),
                unmerged.select(
                    "seq", "mm", start=pl.lit(0, pl.UInt64), end=pl.lit(_EVERYTHING, pl.UInt64), by=name
                ),
            ]
        )
        .drop_nulls()
        .sort("mm", "seq")
    )


def exits(events: Mapping[str, pl.DataFrame], spaces: pl.DataFrame) -> pl.DataFrame:
    """Address spaces whose process has begun to exit: ``mm``, ``leaving`` (place). Sorted by place.

    A child of vfork leaves its parent's address space alone until it has one of its own by execve.
    """
    tasks = events["ev_task"].sort("seq")
    flags = pl.col("clone_flags")
    vforked = (flags & CLONE_VM != 0) & (flags & _CLONE_THREAD == 0)
    births = tasks.filter(pl.col("kind") == "newtask").select(
        "seq", pid="child_pid", lent=pl.when(vforked).then("seq")
    )
    execs = tasks.filter(pl.col("kind") == "exec").select("seq", "pid", executed="seq")
    own = (
        events["ev_syscall"]
        .filter(~pl.col("is_exit") & (pl.col("name") == "exit_group"))
        .sort("seq")
        .join_asof(births, on="seq", by="pid", check_sortedness=False)
        .join_asof(execs, on="seq", by="pid", check_sortedness=False)
        .filter(pl.col("lent").is_null() | (pl.col("executed") > pl.col("lent")))
    )
    return mm_of(own, spaces).select("mm", leaving="seq").drop_nulls().sort("leaving")


class Mappings:
    """Answers, for a column of (mm, address, stable node, instant): does mm map the node's page there?

    Args:
        events: The ``ev_*`` tables by name.
        lives: Lives of intervals (``lifetimes.avc_lives``).
        items: Lives of rmap_items with the place of their merges (``merge.at_merge``).
    """

    def __init__(self, events: Mapping[str, pl.DataFrame], lives: pl.DataFrame, items: pl.DataFrame) -> None:
        heads = mm_lives(lives)
        self.spaces = task_spaces(heads, events["ev_avc"], events["ev_task"])
        self.forks = parents(heads, self.spaces)
        self.merges = (
            items.filter(pl.col("born_ts_ns").is_not_null())
            .select("mm", "address", seq="merged", merged_into="stable_node", merged="merged")
            .sort("seq")
        )
        self.emptied = (
            events["ev_node_remove"].select("stable_node", pl.col("seq").alias("emptied")).sort("emptied")
        )
        self.births = heads.select("mm", created="born").sort("created")
        begun = exits(events, self.spaces)
        removals = lives.select("mm", torn="died").filter(pl.col("torn") < AFTER)
        self.exits = begun.join_asof(
            removals.join(begun, on="mm", how="semi").sort("torn"),
            left_on="leaving",
            right_on="torn",
            by="mm",
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
        self.kills = kills = unmappings(events, self.spaces)
        self.mms = kills.select(pl.col("mm").unique().sort()).with_row_index("code")
        code = kills.join(self.mms, on="mm", how="left", maintain_order="left")["code"].to_numpy()
        seq = kills["seq"].to_numpy()
        self.span = np.int64(seq.max(initial=0) + 2)
        self.keys = code.astype(np.int64) * self.span + seq
        bits = max(len(seq).bit_length(), 1)
        self.edges: list[tuple[UInt, WaveletMatrix]] = []
        for name in ("start", "end"):
            edge = kills[name].to_numpy()
            order = np.argsort(edge, kind="stable")
            rank = np.empty(len(edge), np.int64)
            rank[order] = np.arange(len(edge))
            self.edges.append((edge[order], WaveletMatrix(rank, bits)))

    def ended(self, mm: pl.Series, address: UInt, after: Int, until: Int) -> Bool:
        """Whether something ended a mapping of ``address`` in ``mm`` in ``(after, until]``."""
        code = pl.DataFrame({"mm": mm}).join(self.mms, on="mm", how="left", maintain_order="left")["code"]
        known = code.is_not_null().to_numpy()
        base = code.fill_null(0).cast(pl.Int64).to_numpy() * self.span
        last = self.span - 1
        left = np.searchsorted(self.keys, base + np.clip(after, -1, last - 1), side="right")
        right = np.searchsorted(self.keys, base + np.clip(until, -1, last - 1), side="right")
        right = np.maximum(left, right)
        (starts, by_start), (ends, by_end) = self.edges
        begun = by_start.count_below(left, right, np.searchsorted(starts, address, side="right"))
        over = by_end.count_below(left, right, np.searchsorted(ends, address, side="right"))
        return known & (begun > over)

    def mapped(self, questions: pl.DataFrame) -> pl.Series:
        """Whether the page of ``stable_node`` is mapped at ``address`` in ``mm`` at place ``at``.

        Args:
            questions: ``mm``, ``address``, ``stable_node``, ``at``, one row a question.

        Returns:
            True: by the last merge there, or by a fork of an mm where it was mapped; False: merged
            into another node, ended since, or never seen merged. What was before the mm or the node is of
            others that had the same pointer: a node is freed after its page.
        """
        answer = np.zeros(len(questions), np.bool_)
        open_questions = (
            questions.with_row_index("number")
            .select("number", "mm", "address", "stable_node", "at")
            .sort("at")
            .join_asof(
                self.emptied, left_on="at", right_on="emptied", by="stable_node", check_sortedness=False
            )
        )
        while not open_questions.is_empty():
            rows = (
                open_questions.sort("at")
                .join_asof(
                    self.merges, left_on="at", right_on="seq", by=["mm", "address"], check_sortedness=False
                )
                .join_asof(
                    self.forks.rename({"born": "forked"}),
                    left_on="at",
                    right_on="forked",
                    by="mm",
                    check_sortedness=False,
                )
                .join_asof(self.births, left_on="at", right_on="created", by="mm", check_sortedness=False)
            )
            merged = pl.col("merged").fill_null(-2)
            rows = rows.with_columns(
                since=pl.max_horizontal(merged, pl.col("forked").fill_null(-2)),
                by_merge=merged > pl.col("forked").fill_null(-2),
            )
            rows = rows.filter(
                (pl.col("since") >= 0) & (pl.col("since") >= pl.col("created").fill_null(BEFORE))
            )
            ended = self.ended(
                rows["mm"], rows["address"].to_numpy(), rows["since"].to_numpy(), rows["at"].to_numpy()
            )
            rows = rows.filter(~pl.Series(ended))
            here = rows.filter(
                pl.col("by_merge")
                & (pl.col("merged_into") == pl.col("stable_node"))
                & (pl.col("merged") > pl.col("emptied").fill_null(BEFORE))
            )
            answer[here["number"].to_numpy()] = True
            open_questions = rows.filter(~pl.col("by_merge")).select(
                "number", "address", "stable_node", "emptied", mm="parent", at=pl.col("forked") - 1
            )
        return pl.Series("mapped", answer)

    def exiting(self, questions: pl.DataFrame) -> pl.Series:
        """Whether the process of ``mm`` had begun to exit at place ``at``: it may map nothing any more.

        exit_mmap() drops the page tables some time between the call and the first VMA's removal.
        """
        return self._exits_at(questions).select((pl.col("leaving") > pl.col("created")).fill_null(False))[
            "leaving"
        ]

    def torn_down(self, questions: pl.DataFrame) -> pl.Series:
        """Whether exit_mmap() of ``mm`` had taken VMAs off their trees at place ``at``: it maps nothing."""
        return self._exits_at(questions).select(
            ((pl.col("leaving") > pl.col("created")) & (pl.col("torn") <= pl.col("at"))).fill_null(False)
        )["leaving"]

    def _exits_at(self, questions: pl.DataFrame) -> pl.DataFrame:
        return (
            questions.with_row_index("number")
            .select("number", "mm", "at")
            .sort("at")
            .join_asof(self.births, left_on="at", right_on="created", by="mm", check_sortedness=False)
            .join_asof(self.exits, left_on="at", right_on="leaving", by="mm", check_sortedness=False)
            .sort("number")
        )
