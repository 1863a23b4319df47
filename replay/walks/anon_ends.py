"""Where walks that unmap an ordinary anonymous page end: at the last relative that maps it.

A relative that wrote the page since it was forked has a copy, on an anon_vma of its own: it does not map the
folio of the anon_vma that is walked. If as many relatives are left as map the folio, they are those that do.

Kernel: mm/memory.c do_wp_page(), wp_page_copy(); mm/rmap.c try_to_migrate(), folio_move_anon_rmap().
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import polars as pl

from replay.state.kernel import PF_WRITE
from replay.state.spaces import mm_of
from replay.walks.mappings import PAGE
from replay.walks.steps import SETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.state.trees import Trees

RELATIVES_AT_MOST: Final = 20_000_000
"""Of all walks together; what comes after them keeps wider bounds."""


def last_mapping(
    walks: pl.DataFrame,
    trees: Trees,
    lives: pl.DataFrame,
    events: Mapping[str, pl.DataFrame],
    spaces: pl.DataFrame,
) -> pl.DataFrame:
    """Where in the order of the tree the last relative is that maps the folio.

    Args:
        walks: ``walks.anon``: with ``tree``, ``instant``, ``relatives``, ``mapping`` and ``sets``.
        trees: The trees that they walk.
        lives: ``families.one_by_one``.
        events: The ``ev_*`` tables.
        spaces: ``spaces.task_spaces``.

    Returns:
        ``walk_id``, ``place_least``, ``place_most`` (from 1, among the relatives), of the walks that unmapped
        all and where more is known than the number of relatives.
    """
    met = (pl.col("sets") == pl.col("mapping")) & (pl.col("mapping") < pl.col("relatives"))
    asked = walks.filter((pl.col("caller") == SETS) & met & (pl.col("mapping") > 0)).filter(
        pl.col("relatives").cum_sum() <= RELATIVES_AT_MOST
    )
    columns = (asked[name].to_numpy() for name in ("tree", "instant", "first_pgoff", "last_pgoff"))
    found = [pl.DataFrame({"question": row, "life": life}) for row, life in trees.within(*columns)]
    if not found:
        return pl.DataFrame(schema={"walk_id": pl.Int64, "place_least": pl.Int64, "place_most": pl.Int64})
    pairs = pl.concat(found)
    question, life = pairs["question"].to_numpy(), pairs["life"].to_numpy()
    pages = pl.col("first_pgoff") - pl.col("first")
    met_rows = pl.concat(
        [
            asked[question].select("walk_id", "enter", "anon_vma", "first_pgoff", "mapping"),
            trees.lives[life].select("vma_id", "mm", "vm_start", "born", first="first_pgoff"),
            pl.DataFrame({"rank": trees.by_first.rank[life]}),
        ],
        how="horizontal",
    ).with_columns(address=pl.col("vm_start") + pages * PAGE)
    faults = events["ev_fault"].filter(pl.col("error_code") & PF_WRITE != 0)
    written = mm_of(faults.select("pid", "seq", address=pl.col("address") // PAGE * PAGE), spaces)
    copied = (pl.col("written") > pl.col("born")) & (pl.col("own") != pl.col("anon_vma"))
    placed = (
        met_rows.join(_own(lives), on="vma_id", how="left")
        .sort("enter")
        .join_asof(
            written.drop_nulls("mm").select("mm", "address", written="seq").sort("written"),
            left_on="enter",
            right_on="written",
            by=["mm", "address"],
            check_sortedness=False,
            coalesce=False,
        )
        .sort("walk_id", "rank")
        .with_columns(place=pl.int_range(1, pl.len() + 1).over("walk_id"))
        .filter(~copied.fill_null(False))
    )
    return (
        placed.group_by("walk_id", maintain_order=True)
        .agg(
            left=pl.len(),
            mapping=pl.col("mapping").first(),
            place_least=pl.col("place").get(pl.col("mapping").first() - 1, null_on_oob=True),
            place_most=pl.col("place").last(),
        )
        .filter(pl.col("left") >= pl.col("mapping"))
        .select("walk_id", pl.col("place_least", "place_most").cast(pl.Int64))
    )


def _own(lives: pl.DataFrame) -> pl.DataFrame:
    """``vma_id`` and ``own``, its anon_vma, of VMAs that are the first on its tree: it was made for them."""
    first = lives.filter(pl.col("number") != pl.col("number").shift(1).fill_null(0))
    youngest = (
        lives.drop_nulls("vma_id")
        .sort("vma_id", "tree_age", "number")
        .group_by("vma_id", maintain_order=True)
        .agg(pl.col("number").last(), own=pl.col("anon_vma").last())
    )
    return youngest.join(first.select("vma_id", "number"), on=["vma_id", "number"], how="semi").select(
        "vma_id", "own"
    )
