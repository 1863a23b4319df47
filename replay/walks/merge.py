"""What the kernel knew of a page when it merged it: the VMA's page offset and the page's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from replay.walks.mappings import PAGE

if TYPE_CHECKING:
    from replay.state.trees import Trees


def merge_places(appends: pl.DataFrame, ev_merge: pl.DataFrame) -> pl.Series:
    """When each page was merged: the last ksm_merge_with_ksm_page event of its rmap_item before it.

    Both that and stable_tree_append() tell of one try_to_merge_with_ksm_page(); without such an event, the
    append itself.

    Args:
        appends: ``rmap_item``, ``born`` (place of the append).
        ev_merge: Table ``ev_merge``.

    Returns:
        One place a row of ``appends``.
    """
    merges = ev_merge.filter(pl.col("err") == 0).select("rmap_item", merged="seq").sort("merged")
    previous = pl.col("born").shift(1).over("rmap_item", order_by="born").fill_null(-1)
    return (
        appends.select("rmap_item", "born", previous=previous)
        .with_row_index("row")
        .sort("born")
        .join_asof(
            merges,
            left_on="born",
            right_on="merged",
            by="rmap_item",
            check_sortedness=False,
            coalesce=False,
        )
        .select("row", at=pl.when(pl.col("merged") > pl.col("previous")).then("merged").otherwise("born"))
        .sort("row")["at"]
    )


def at_merge(items: pl.DataFrame, ev_merge: pl.DataFrame, trees: Trees) -> pl.DataFrame:
    """``items`` with what was known of the page at the merge, and ``merged``: when that was.

    Added: ``vm_pgoff``, ``vm_start_page``, ``vm_end_page`` (exclusive) of its VMA, ``linear_page_index``
    and ``address_page``, all in pages.

    The VMA is the one of the item's mm on the item's tree that holds its address then. A
    linear_page_index that the kernel itself stored (7.3) is kept.

    Kernel: mm/ksm.c try_to_merge_with_ksm_page(), include/linux/pagemap.h linear_page_index(),
    7.3 linear_anon_page_index().
    """
    timed = (
        items.with_columns(at=merge_places(items, ev_merge))
        .join(trees.codes, on="anon_vma", how="left", maintain_order="left")
        .join(trees.spaces, on=["tree", "mm"], how="left", maintain_order="left")
    )
    asked = timed.filter(pl.col("space").is_not_null() & pl.col("born_ts_ns").is_not_null())
    question, life = trees.covering(
        asked["space"].to_numpy(), asked["at"].to_numpy(), asked["address"].to_numpy()
    )
    vma = trees.lives[life].select("vm_pgoff", "first_pgoff", "vm_start", "vm_end", "born", "died")
    found = (
        pl.concat([asked[question].select("item", "address"), vma], how="horizontal")
        .sort("item", "born", "died")
        .unique("item", keep="last", maintain_order=True)
        .select(
            "item",
            "vm_pgoff",
            vm_start_page=pl.col("vm_start") // PAGE,
            vm_end_page=pl.col("vm_end") // PAGE,
            computed=pl.col("first_pgoff") + (pl.col("address") - pl.col("vm_start")) // PAGE,
        )
    )
    return (
        items.join(found, on="item", how="left", maintain_order="left")
        .join(timed.select("item", merged="at"), on="item", how="left", maintain_order="left")
        .with_columns(
            linear_page_index=pl.coalesce("linear_page_index", "computed"),
            address_page=pl.col("address") // PAGE,
        )
        .drop("computed")
    )
