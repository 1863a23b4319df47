"""Split audit: the largest anon_vma trees, and which call sites made the VMAs on them.

Every change of a tree is an insertion or a removal within some call; what a call site added up to the instant
at which the tree was largest is its share of the peak. Why the VMAs did not merge is in ``merges``.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from replay.state.call_sites import SITE, sites
from replay.state.order import in_order
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

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


def audit(
    lives: pl.DataFrame, families: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> Audit:
    """Audit the largest trees.

    Args:
        lives: ``families.one_by_one``: the lives of all intervals.
        families: ``families.roots`` of them.
        events: The ``ev_*`` tables.
        comms: Names of tasks by thread id.
    """
    largest, chosen = _largest(lives)
    ids = largest.select("number", "tree_id", "peak_seq")
    at_peak = lives.join(ids, on="number").filter(
        (pl.col("born") <= pl.col("peak_seq")) & (pl.col("died") > pl.col("peak_seq"))
    )
    mms = at_peak.group_by("number").agg(mms=pl.col("mm").drop_nulls().n_unique().cast(pl.Int64))
    tree = (
        largest.join(families.select("number", "root"), on="number", how="left")
        .join(mms, on="number", how="left")
        .with_columns(mms=pl.col("mms").fill_null(0))
        .sort("tree_id")
    )
    changes = _attributed(chosen, events, comms)
    return Audit(
        tree=tree.select(TABLES["tree"].arrow.names),
        split=_by_site(changes, tree),
        population=_population(changes),
        changes=changes,
        at_peak=at_peak.drop("peak_seq"),
    )


def _largest(lives: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The trees with the most intervals at once, and their changes with ``tree_id`` and ``peak_seq``."""
    sides = [
        lives.select("number", seq=f"{end}_seq", ts_ns=f"{end}_ts_ns", added=pl.lit(change, pl.Int64))
        for end, change in (("born", 1), ("died", -1))
    ]
    changes = in_order(pl.concat(sides).drop_nulls("seq"), "number", "seq")
    of, seq, ts_ns, added = (changes[name].to_numpy() for name in ("number", "seq", "ts_ns", "added"))
    # All that one operation of the model does has one place: only what it leaves counts.
    begins = np.append(True, (of[1:] != of[:-1]) | (seq[1:] != seq[:-1]))[: len(of)]
    place = np.flatnonzero(begins)
    total = np.append(0, np.cumsum(added))
    tree = of[place].astype(np.int64)
    alive = total[np.append(place, len(of))[1:]] - total[np.searchsorted(of, of[place])]
    number = lives["number"].to_numpy().astype(np.int64)
    before = np.bincount(number, lives["born_seq"].is_null().to_numpy()).astype(np.int64)
    top = np.zeros(len(before), np.int64)
    np.maximum.at(top, tree, alive)
    peak = before + top
    largest = np.flatnonzero(peak > 1)
    largest = largest[np.argsort(-peak[largest], kind="stable")][:TREES]
    at_top = np.flatnonzero(alive == top[tree])
    # The last such instant: at the first a split is half done, and two VMAs overlap.
    first, last = (np.full(len(before), len(place)) for _ in range(2))
    first[tree[at_top[::-1]]], last[tree[at_top]] = at_top[::-1], at_top
    grew = top[largest] > 0
    tree_id = np.full(len(before), -1)
    tree_id[largest] = np.arange(len(largest))
    own = lives.filter(pl.Series(tree_id[number] >= 0))
    facts = own.group_by("number").agg(
        pl.col("anon_vma", "evidence").first(),
        born_ts_ns=pl.when(pl.col("born_seq").null_count() == 0).then(pl.col("born_ts_ns").min()),
    )
    of_these = changes.with_columns(tree_id=pl.Series(tree_id[of])).filter(pl.col("tree_id") >= 0)
    inserted, removed = (
        np.bincount(of_these.filter(pl.col("added") == change)["tree_id"], minlength=len(largest))
        for change in (1, -1)
    )
    trees = (
        pl.DataFrame(
            {
                "number": pl.Series(largest, dtype=lives.schema["number"]),
                "tree_id": tree_id[largest],
                "before": before[largest],
                "peak": peak[largest],
                "peak_seq": np.where(grew, np.append(seq[place], -1)[last[largest]], -1),
                "top_ts_ns": np.append(ts_ns[place], 0)[first[largest]],
                "grew": grew,
                "inserted": inserted,
                "removed": removed,
            }
        )
        .join(facts, on="number", how="left", maintain_order="left")
        .with_columns(
            peak_ts_ns=pl.when("grew").then("top_ts_ns"),
            at_end=pl.col("before") + pl.col("inserted") - pl.col("removed"),
        )
        .drop("top_ts_ns", "grew")
    )
    return trees, of_these.with_columns(peak_seq=trees["peak_seq"].gather(of_these["tree_id"]))


def _attributed(
    chosen: pl.DataFrame, events: Mapping[str, pl.DataFrame], comms: Mapping[int, str]
) -> pl.DataFrame:
    """Changes with their call sites."""
    seq = chosen["seq"].to_numpy()
    pid, is_known = np.zeros(len(seq), np.int32), np.zeros(len(seq), np.bool_)
    for name in ("ev_avc", "ev_syscall", "ev_task", "ev_fault"):
        places = events[name]["seq"].to_numpy()
        if len(places):
            at = np.minimum(np.searchsorted(places, seq), len(places) - 1)
            found = places[at] == seq
            pid[found] = events[name]["pid"].to_numpy()[at[found]]
            is_known |= found
    happened = chosen.select(
        "tree_id",
        "seq",
        "ts_ns",
        "added",
        pid=pl.when(pl.Series(is_known)).then(pl.Series(pid)),
        to_peak=pl.col("seq") <= pl.col("peak_seq"),
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


def _population(changes: pl.DataFrame) -> pl.DataFrame:
    """Table ``population``."""
    changes = in_order(changes, "tree_id")
    code = changes["cause_event"].rank("dense").fill_null(0).cast(pl.Int64).to_numpy()
    of, seq, ts_ns, added, to_peak = (
        changes[name].to_numpy() for name in ("tree_id", "seq", "ts_ns", "added", "to_peak")
    )
    names = changes.select(code=pl.Series(code), cause_event="cause_event").unique("code")
    parts: list[tuple[NDArray[Any], ...]] = []
    begins = np.flatnonzero(np.append(True, of[1:] != of[:-1]))[: len(of)]
    for begin, end in pairwise([*begins, len(of)]):
        own = slice(begin, end)
        ends = np.flatnonzero(np.append(seq[own][1:] != seq[own][:-1], True))
        peak = int(to_peak[own].sum()) - 1
        picked = ends[np.unique(np.linspace(0, len(ends) - 1, INSTANTS).astype(np.int64))]
        picked = np.unique(np.append(picked, peak) if peak >= 0 else picked)
        for cause in np.unique(code[own]):
            vmas = np.cumsum(np.where(code[own] == cause, added[own], 0))[picked]
            number, which = (np.full(len(picked), value) for value in (of[begin], cause))
            parts.append((number, which, ts_ns[own][picked], vmas))
    if not parts:
        return pl.DataFrame(pl.from_arrow(TABLES["population"].empty()))
    columns = (np.concatenate(column) for column in zip(*parts, strict=True))
    rows = pl.DataFrame(dict(zip(("tree_id", "code", "ts_ns", "vmas"), columns, strict=True)))
    return (
        rows.join(names, on="code", how="left", maintain_order="left")
        .select("tree_id", "cause_event", "ts_ns", "vmas")
        .sort("tree_id", "ts_ns", "cause_event", maintain_order=True)
    )
