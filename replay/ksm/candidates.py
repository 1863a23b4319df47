"""Where an rmap_item's page can be, if no event gives its address: what ksmd looks at, and in which order.

ksmd merges pages of VMAs that are MERGEABLE and have an anon_vma. In one pass it goes over each address space
once, by ascending address. So of pages merged where the scan had come to, each lies above those that were
merged before in the same pass, and below those after. The second page of a pair that makes a node was passed
before in that pass.

Whether the model has every VMA that was MERGEABLE is known of what ``ksm.spaces.followed`` names.
Simplified: VMAs are those at the place of the merge's event; where an operation was under way, those before
and those after it.

Kernel: mm/ksm.c scan_get_next_rmap_item(), cmp_and_merge_page().
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from replay.state.alive import AliveIndex
from replay.state.kernel import VM_MERGEABLE
from replay.state.trees import Trees
from replay.walks.mappings import PAGE

ROWS_AT_ONCE: Final = 1 << 21
"""VMAs that are looked at together."""

_RUN: Final = ("anon_vma", "delta", "vm_delta")


def between(items: pl.DataFrame, ev_scan: pl.DataFrame) -> pl.DataFrame:
    """``items`` with ``low``, ``high``: pages, inclusive, between which ksmd's order puts each; or null.

    Args:
        items: ``ksm.nodes.nodes``, with ``number`` (modelled address space), ``address`` (null: not known).
        ev_scan: Table ``ev_scan``; without a begin of a pass in it the order tells nothing.
    """
    starts = ev_scan.filter(~pl.col("is_stop")).select(begun="seq").sort("begun")
    starts = starts.with_columns(turn=pl.int_range(pl.len()))
    turn = ["number", "turn"]
    page = pl.col("address") // PAGE
    rows = items.sort("merged").join_asof(starts, left_on="merged", right_on="begun", check_sortedness=False)
    scanned = (
        rows.filter(pl.col("scanned") & pl.all_horizontal(pl.col(turn).is_not_null()))
        .with_columns(page=page)
        .with_columns(
            low=pl.col("page").shift(1).forward_fill().over(turn) + 1,
            high=pl.col("page").shift(-1).backward_fill().over(turn) - 1,
        )
    )
    # The page passed before is below the one at which the scan has come to, which is told right before it.
    pair = scanned.select(
        "number", "turn", "node", "merged", below=pl.coalesce(pl.col("page") - 1, "high")
    ).sort("merged")
    passed = rows.filter(~pl.col("scanned")).join_asof(
        pair, on="merged", by=["number", "turn", "node"], check_sortedness=False
    )
    none = pl.lit(None, pl.UInt64)
    told = pl.concat(
        [scanned.select("item", "low", "high"), passed.select("item", low=none, high=pl.col("below"))]
    )
    return items.join(told, on="item", how="left", maintain_order="left")


def candidates(items: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """The ranges of pages at which each rmap_item's page may have been when it was merged.

    Args:
        items: ``between``, those in address spaces that are known and followed.
        versions: Versions of VMAs with the windows of their ends (``ksm.windows.in_windows``).

    Returns:
        ``item``, ``anon_vma``, ``first_page``, ``last_page`` (of addresses, inclusive), ``first_pgoff`` (of
        first_page in the tree; those of the pages after it follow), ``vm_pgoff``, ``vm_last`` (between which,
        inclusive, vm_pgoff of the page's VMA lies). Null: not known. VMAs side by side are one range where
        their page offsets follow each other. Sorted by item and page.
    """
    codes = versions.select(number=pl.col("mm").unique().sort()).with_row_index("code")
    code = versions.select(number="mm").join(codes, on="number", how="left", maintain_order="left")["code"]
    life = ((versions["born_since"] + 1).to_numpy(), versions["died"].to_numpy())
    index = AliveIndex(code.cast(pl.Int64).to_numpy(), versions["vm_start"].to_numpy(), *life, len(codes))
    asked = items.join(codes, on="number", maintain_order="left").with_columns(pl.col("code").cast(pl.Int64))
    place = (asked["code"].to_numpy(), asked["merged"].to_numpy())
    asked = asked.with_columns(version=index.version(*place), vmas=index.alive(*place))
    same = ["code", "version"]
    layouts = asked.unique(same, maintain_order=True).with_row_index("layout")
    parts = layouts.with_columns(part=pl.col("vmas").cum_sum() // ROWS_AT_ONCE).partition_by("part")
    runs = pl.concat([_runs(part, index, versions) for part in parts or [layouts]])
    first, last = (pl.col(f"{end}_page") for end in ("first", "last"))
    return (
        asked.select("item", "low", "high", *same)
        .join(layouts.select("layout", *same), on=same)
        .join(runs, on="layout")
        .with_columns(
            clipped=pl.max_horizontal(first, pl.col("low")), last_page=pl.min_horizontal(last, pl.col("high"))
        )
        .filter(pl.col("clipped") <= last)
        .with_columns(
            first_pgoff=pl.col("first_pgoff") + (pl.col("clipped") - first),
            # Of several VMAs, which one holds the page is not told: the first may.
            vm_last=pl.when(pl.col("vmas") > 1)
            .then(pl.col("vm_pgoff") + (last - first))
            .otherwise("vm_pgoff"),
        )
        .select(
            "item", "anon_vma", "first_pgoff", "vm_pgoff", "vm_last", first_page="clipped", last_page=last
        )
        .sort("item", "first_page")
    )


def vmas_at(items: pl.DataFrame, versions: pl.DataFrame) -> pl.DataFrame:
    """What the kernel may have known of each page when it was merged, where its address is known.

    Args:
        items: ``ksm.nodes.nodes``, with ``number`` and ``address``.
        versions: As for ``candidates``.

    Returns:
        As ``candidates``, the VMAs that may have held the page; several where an operation was under way.
    """
    faulted = versions.filter(
        pl.col("anon_vma").is_not_null() & pl.col("mm").is_in(items["number"].implode())
    )
    pgoff = pl.col("anon_pgoff" if versions["anon_pgoff"].count() else "vm_pgoff")
    trees = Trees(
        faulted.with_columns(
            own="anon_vma",
            anon_vma=pl.lit(0, pl.UInt64),
            born=pl.col("born_since") + 1,
            first_pgoff=pgoff,
            last_pgoff=pgoff,
        )
    )
    rows = items.join(trees.spaces.select("space", number="mm"), on="number", maintain_order="left")
    question, life = trees.covering(
        rows["space"].to_numpy(), rows["merged"].to_numpy(), rows["address"].to_numpy()
    )
    vma = trees.lives[life].select("own", "vm_start", "vm_pgoff", pgoff="first_pgoff")
    page = pl.col("address") // PAGE
    return (
        pl.concat([rows[question].select("item", "address"), vma], how="horizontal")
        .select(
            *("item", "vm_pgoff"),
            anon_vma="own",
            vm_last="vm_pgoff",
            first_pgoff=pl.col("pgoff") + (page - pl.col("vm_start") // PAGE),
            first_page=page,
            last_page=page,
        )
        .unique(maintain_order=True)
    )


def _runs(layouts: pl.DataFrame, index: AliveIndex, versions: pl.DataFrame) -> pl.DataFrame:
    """The ranges of pages in each layout that ksmd looks at, as ``candidates``, by ``layout``."""
    code, at, count = (layouts[name].to_numpy() for name in ("code", "merged", "vmas"))
    row = np.repeat(np.arange(len(layouts)), count)
    nth = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    life = index.nth_alive(code[row], at[row], nth)
    page = pl.col("vm_start") // PAGE
    vmas = (
        pl.concat([layouts.select("layout")[row], versions[life]], how="horizontal")
        .filter((pl.col("vm_flags") & VM_MERGEABLE != 0).fill_null(True), pl.col("anon_vma").is_not_null())
        .with_columns(pgoff=pl.col("anon_pgoff" if versions["anon_pgoff"].count() else "vm_pgoff"), page=page)
        .with_columns(
            delta=pl.col("pgoff").cast(pl.Int64) - page.cast(pl.Int64),
            vm_delta=pl.col("vm_pgoff").cast(pl.Int64) - page.cast(pl.Int64),
        )
    )
    follows = pl.all_horizontal(
        pl.col("vm_start") == pl.col("vm_end").shift(1),
        *(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in ("layout", *_RUN)),
    )
    return (
        vmas.with_columns(run=(~follows.fill_null(False)).cum_sum())
        .group_by("run", maintain_order=True)
        .agg(
            pl.col("layout", "anon_vma", "vm_pgoff").first(),
            first_page=pl.col("page").first(),
            last_page=pl.col("vm_end").last() // PAGE - 1,
            first_pgoff=pl.col("pgoff").first(),
            vmas=pl.len(),
        )
        .drop("run")
    )
