"""What made a mapping be missed: the change of the tree after which the lookup passed the VMA by.

A strategy misses a mapping when no VMA that holds the page's address overlaps the range looked up.
Looked at over time, that was not so once: at the merge, or before the VMA came to that address. The
event in between is found for all missed mappings at once, by halving the time between.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.lifetimes import BEFORE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from replay.exact import Exact
    from replay.trees import Trees

    Int = NDArray[np.int64]
    UInt = NDArray[np.uint64]

FAULT: Final = "page_fault"
"""cause_event of a change outside any system call: a VMA gets its anon_vma at its first write fault."""


def missed_because(misses: pl.DataFrame, exact: Exact, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """``misses`` with ``cause_event``, ``cause_ts_ns``, ``cause_pid``.

    Args:
        misses: ``Replayed.miss``, of walks captured or asked for.
        exact: State.
        events: The ``ev_*`` tables.

    Returns:
        The rows of ``misses``, ``vma_mm`` as ``mm``. Cause null: the VMA was passed by since before the
        capture began, or what its task was doing is not in the capture.
    """
    trees = exact.trees
    space = trees.lives["space"].to_numpy()[misses["life"].to_numpy()]
    address = misses["address"].to_numpy()
    first, last = misses["first_pgoff"].to_numpy(), misses["last_pgoff"].to_numpy()
    merged = misses.select("item").join(exact.items, on="item", how="left", maintain_order="left")["merged"]
    merge = merged.fill_null(BEFORE).to_numpy()
    missing = misses["instant"].to_numpy().copy()
    found = np.where(_passed_by(trees, space, address, first, last, merge), np.int64(BEFORE), merge)
    since_before = _passed_by(trees, space, address, first, last, found)
    while (open_rows := np.flatnonzero((missing - found > 1) & ~since_before)).size:
        middle = (missing[open_rows] + found[open_rows]) // 2
        wrong = _passed_by(
            trees, space[open_rows], address[open_rows], first[open_rows], last[open_rows], middle
        )
        missing[open_rows] = np.where(wrong, middle, missing[open_rows])
        found[open_rows] = np.where(wrong, found[open_rows], middle)
    cause = pl.DataFrame({"seq": missing, "row": np.arange(len(misses))}).filter(~pl.Series(since_before))
    return (
        misses.rename({"vma_mm": "mm"})
        .with_row_index("row")
        .join(_call_at(cause, events), on="row", how="left", maintain_order="left")
        .drop("row")
    )


def _passed_by(
    trees: Trees, space: Int, address: UInt, first: UInt, last: UInt, instant: Int
) -> NDArray[np.bool_]:
    """Whether some VMA held the address at that instant, and none that overlaps the range."""
    question, life = trees.covering(space, instant, address)
    held, met = np.zeros(len(space), np.bool_), np.zeros(len(space), np.bool_)
    held[question] = True
    overlaps = (trees.first[life] <= last[question]) & (trees.last[life] >= first[question])
    met[question[overlaps]] = True
    return held & ~met


def _call_at(cause: pl.DataFrame, events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The task that changed a tree at ``seq``, and the system call that it was in."""
    changes = events["ev_avc"].select("seq", cause_ts_ns="ts_ns", cause_pid="pid")
    calls = events["ev_syscall"].select("seq", "name", "is_exit", cause_pid="pid").sort("seq")
    return (
        cause.with_columns(pl.col("seq").cast(pl.Int64))
        .join(changes, on="seq")
        .sort("seq")
        .join_asof(calls, on="seq", by="cause_pid", check_sortedness=False)
        .select(
            pl.col("row").cast(pl.UInt32),
            "cause_ts_ns",
            "cause_pid",
            cause_event=pl.when(pl.col("is_exit"))
            .then(pl.lit(FAULT))
            .when(pl.col("name").is_not_null())
            .then("name"),
        )
    )
