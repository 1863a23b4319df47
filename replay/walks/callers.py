"""Who asked for a walk, where the capture does not name the callback.

On kernels up to 7.2 a perf.data holds no symbols. A walk during which its task sets migration entries is
one of try_to_migrate(), one that restores them one of remove_migration_ptes() (mm/rmap.c, mm/migrate.c).
"""

from __future__ import annotations

import polars as pl

from replay.state.lifetimes import walk_lives
from replay.walks.steps import RESTORES, SETS


def named(ev_walk: pl.DataFrame, ev_migration_pte: pl.DataFrame) -> pl.DataFrame:
    """``ev_walk`` with ``rmap_one`` filled in where the walk's page-table events tell it.

    Args:
        ev_walk: Table ``ev_walk``.
        ev_migration_pte: Table ``ev_migration_pte``.
    """
    if ev_walk.filter(~pl.col("is_return"))["rmap_one"].null_count() == 0:
        return ev_walk
    walks, _ = walk_lives(ev_walk)
    told = (
        walks.select("pid", "enter", "exit")
        .join_asof(
            ev_migration_pte.select("pid", "seq", "is_set").sort("seq"),
            left_on="enter",
            right_on="seq",
            by="pid",
            strategy="forward",
            check_sortedness=False,
            coalesce=False,
        )
        .filter(pl.col("seq") < pl.col("exit"))
        .select(seq="enter", told=pl.when("is_set").then(pl.lit(SETS)).otherwise(pl.lit(RESTORES)))
    )
    return (
        ev_walk.join(told, on="seq", how="left", maintain_order="left")
        .with_columns(rmap_one=pl.coalesce("rmap_one", "told"))
        .drop("told")
    )
