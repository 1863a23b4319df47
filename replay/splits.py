"""Split audit: the largest anon_vma trees, and which call sites made the VMAs on them.

Every change of a tree is an insertion or a removal within some call; what a call site added up to the instant
at which the tree was largest is its share of the peak. Why the VMAs did not merge is in ``merges``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from replay.call_sites import SITE, sites
from replay.families import one_by_one, roots
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

TREES: Final = 16
"""Trees that are audited."""

SITES: Final = 100
"""Call sites of a tree that have a row of their own."""

INSTANTS: Final = 200
"""Instants of a tree in table ``population``, at most; and its peak and last change."""


@dataclass(frozen=True)
class Audit:
    """Result of ``audit``.

    Attributes:
        tree, split, population: The tables of these names.
        changes: Changes of these trees with their call sites: ``tree_id``, ``seq``, ``ts_ns``, ``added``
            (1 or -1), ``to_peak`` (not after the peak), the columns of a site and ``call``.
        at_peak: Lives of intervals on these trees at their peaks, and ``tree_id``.
    """

    tree: pl.DataFrame
    split: pl.DataFrame
    population: pl.DataFrame
    changes: pl.DataFrame
    at_peak: pl.DataFrame


def audit(avc: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]) -> Audit:
    """Audit the largest trees.

    Args:
        avc: Table ``avc``.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.
    """
    lives = one_by_one(avc)
    largest, chosen = _largest(lives)
    ids = largest.select("number", "tree_id", "peak_seq")
    chosen = chosen.join(ids, on="number")
    at_peak = lives.join(ids, on="number").filter(
        (pl.col("born") <= pl.col("peak_seq")) & (pl.col("died") > pl.col("peak_seq"))
    )
    families = roots(lives).select("number", "root")
    mms = at_peak.group_by("number").agg(mms=pl.col("mm").drop_nulls().n_unique())
    tree = (
        largest.join(families, on="number", how="left")
        .join(mms, on="number", how="left")
        .with_columns(mms=pl.col("mms").fill_null(0))
        .sort("tree_id")
    )
    changes = _attributed(chosen, events, comms)
    return Audit(
        tree=tree.select(TABLES["tree"].arrow.names),
        split=_by_site(changes, tree),
        population=_population(changes, tree),
        changes=changes,
        at_peak=at_peak.drop("peak_seq"),
    )


def _largest(lives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The trees with the most intervals at once, and their changes."""
    sides = [
        lives.select("number", seq=f"{end}_seq", ts_ns=f"{end}_ts_ns", added=pl.lit(change, pl.Int64))
        for end, change in (("born", 1), ("died", -1))
    ]
    changes = pl.concat(sides).drop_nulls("seq").sort("number", "seq")
    before = lives.group_by("number").agg(
        pl.col("anon_vma", "evidence").first(),
        before=pl.col("born_seq").null_count().cast(pl.Int64),
        born_ts_ns=pl.when(pl.col("born_seq").null_count() == 0).then(pl.col("born_ts_ns").min()),
    )
    # All that one operation of the model does has one place: only what it leaves counts.
    alive = (
        changes.group_by("number", "seq", maintain_order=True)
        .agg(pl.col("ts_ns").first(), pl.col("added").sum())
        .with_columns(alive=pl.col("added").cum_sum().over("number"))
    )
    tops = alive.group_by("number").agg(
        top=pl.col("alive").max(),
        # The last such instant: at the first a split is half done, and two VMAs overlap.
        peak_seq=pl.col("seq").filter(pl.col("alive") == pl.col("alive").max()).last(),
        peak_ts_ns=pl.col("ts_ns").get(pl.col("alive").arg_max()),
    )
    grew = pl.col("top").fill_null(0) > 0
    trees = (
        before.join(tops, on="number", how="left")
        .with_columns(
            peak=pl.col("before") + pl.max_horizontal(pl.col("top").fill_null(0), pl.lit(0)),
            peak_seq=pl.when(grew).then("peak_seq").otherwise(-1),
            peak_ts_ns=pl.when(grew).then("peak_ts_ns"),
        )
        .filter(pl.col("peak") > 1)
        .sort(["peak", "number"], descending=[True, False])
        .head(TREES)
        .with_row_index("tree_id")
        .with_columns(pl.col("tree_id").cast(pl.Int64))
    )
    of_these = changes.join(trees.select("number"), on="number", how="semi")
    totals = of_these.group_by("number").agg(
        inserted=(pl.col("added") > 0).sum().cast(pl.Int64),
        removed=(pl.col("added") < 0).sum().cast(pl.Int64),
    )
    trees = (
        trees.join(totals, on="number", how="left")
        .with_columns(pl.col("inserted", "removed").fill_null(0))
        .with_columns(at_end=pl.col("before") + pl.col("inserted") - pl.col("removed"))
    )
    return trees, of_these


def _attributed(
    chosen: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """Changes with their call sites."""
    seqs = chosen.select(pl.col("seq").unique())
    tasks = pl.concat(
        events[name].select("seq", "pid").join(seqs, on="seq", how="semi")
        for name in ("ev_avc", "ev_syscall", "ev_task", "ev_fault")
    )
    happened = chosen.join(tasks, on="seq", how="left").select(
        "tree_id", "seq", "ts_ns", "pid", "added", to_peak=pl.col("seq") <= pl.col("peak_seq")
    )
    return sites(happened, events, comms)


def _by_site(changes: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """Table ``split``."""
    by_call = changes.group_by("tree_id", *SITE, "call").agg(
        inserted=(pl.col("added") > 0).sum().cast(pl.Int64),
        removed=(pl.col("added") < 0).sum().cast(pl.Int64),
        vmas=pl.col("added").sum(),
        vmas_to_peak=pl.col("added").filter("to_peak").sum(),
        first_ts_ns=pl.col("ts_ns").min(),
        last_ts_ns=pl.col("ts_ns").max(),
    )
    sums = [pl.col("inserted", "removed", "vmas", "vmas_to_peak").sum()]
    times = [pl.col("first_ts_ns").min(), pl.col("last_ts_ns").max()]
    by_site = (
        by_call.group_by("tree_id", *SITE)
        .agg(*sums, *times, calls=pl.len().cast(pl.Int64), most_by_call=pl.col("vmas").max())
        .sort(
            ["tree_id", "vmas_to_peak", "inserted", "first_ts_ns", *SITE],
            descending=[False, True, True, *[False] * (1 + len(SITE))],
        )
        .with_columns(place=pl.int_range(pl.len()).over("tree_id"), sites=pl.lit(1, pl.Int64))
    )
    small = by_site.filter(pl.col("place") >= SITES)
    together = small.group_by("tree_id").agg(
        *sums,
        *times,
        pl.col("calls").sum(),
        pl.col("most_by_call").max(),
        place=pl.lit(SITES, pl.Int64),
        sites=pl.len().cast(pl.Int64),
        **{name: pl.lit(None, dtype) for name, dtype in by_site.select(SITE).schema.items()},
    )
    shown = by_site.filter(pl.col("place") < SITES)
    return (
        pl.concat([shown, together.select(shown.columns)])
        .join(tree.select("tree_id", "evidence"), on="tree_id", how="left")
        .sort("tree_id", "place")
        .select(TABLES["split"].arrow.names)
    )


def _population(changes: pl.DataFrame, tree: pl.DataFrame) -> pl.DataFrame:
    """Table ``population``."""
    parts = []
    for (tree_id,), own in changes.partition_by("tree_id", as_dict=True, maintain_order=True).items():
        ends = (
            own.with_row_index("row").group_by("seq").agg(pl.col("row").last()).sort("row")["row"].to_numpy()
        )
        peak = int(own["to_peak"].sum()) - 1
        picked = ends[np.unique(np.linspace(0, len(ends) - 1, INSTANTS).astype(np.int64))]
        picked = np.unique(np.append(picked, peak) if peak >= 0 else picked)
        for (cause,), rows in own.with_row_index("row").group_by(["cause_event"], maintain_order=True):
            added = np.zeros(len(own), np.int64)
            added[rows["row"].to_numpy()] = rows["added"].to_numpy()
            parts.append(
                pl.DataFrame(
                    {
                        "tree_id": pl.repeat(tree_id, len(picked), dtype=pl.Int64, eager=True),
                        "cause_event": pl.repeat(cause, len(picked), dtype=pl.String, eager=True),
                        "ts_ns": own["ts_ns"].gather(picked),
                        "vmas": np.cumsum(added)[picked],
                    }
                )
            )
    if not parts:
        return pl.DataFrame(pl.from_arrow(TABLES["population"].empty()))
    return pl.concat(parts).sort("tree_id", "ts_ns", "cause_event", maintain_order=True)
