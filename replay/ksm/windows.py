"""When a modelled operation may have changed the trees, and what can be said of a count meanwhile.

A model does all that an operation does at one place. The kernel does it at some time between the entry of a
system call and its return, or after the fault that made it; tree probes narrow that to the time from the
first change that they saw of the operation to the last. Such a time is a *window*. An interval that comes
or goes within a window was there or not, nothing tells; so over any span of time an interval is there *for
sure*, *possibly*, or not, and a count has bounds. Where nothing of the tree is in a window, both bounds are
the count.

Simplified: operations of different tasks that overlap are modelled in the order of their returns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from replay.model.agreement import boundaries, operation_end
from replay.state.lifetimes import AFTER
from replay.state.trees import Trees

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    Int = NDArray[np.int64]

_CALLED = ("newtask", "fork", "exec")


def windows(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    """The window of each operation.

    Args:
        events: The ``ev_*`` tables; ``ev_avc``, where it has rows, narrows the windows.

    Returns:
        ``place`` (where the model has the operation), ``since``: the last instant at which all is as before,
        ``until``: the first at which all is changed; ``until_ts``: its time, ns.
    """
    bounds = boundaries(events).join(_times(events), on="seq", how="left", maintain_order="left")
    calls = bounds.filter(pl.col("boundary") == "enter").select("pid", entered="seq").sort("entered")
    mine = pl.col("pid") == pl.col("pid").shift(1)
    theirs = pl.col("pid") == pl.col("pid").shift(-1)
    ordered = (
        bounds.join_asof(calls, left_on="seq", right_on="entered", by="pid", check_sortedness=False)
        .sort("pid", "seq")
        .with_columns(
            before=pl.when(mine).then(pl.col("seq").shift(1)),
            after=pl.when(theirs).then(pl.col("seq").shift(-1)),
            after_ts=pl.when(theirs).then(pl.col("ts_ns").shift(-1)),
        )
    )
    fault = pl.col("boundary") == "fault"
    called = pl.col("boundary").is_in(("leave", *_CALLED))
    told = ordered.filter(pl.col("boundary") != "enter").select(
        place="seq",
        since=pl.when(fault)
        .then("seq")
        .when(called)
        .then(pl.coalesce("entered", "before", "seq"))
        .otherwise(pl.coalesce("before", "seq")),
        until=pl.when(fault).then(pl.col("after").fill_null(AFTER - 1)).otherwise("seq"),
        until_ts=pl.when(fault).then(pl.coalesce("after_ts", "ts_ns")).otherwise("ts_ns"),
    )
    seen = (
        operation_end(events["ev_avc"], bounds.drop("ts_ns"))
        .group_by("place")
        .agg(
            since_seen=pl.col("seq").min() - 1, until_seen=pl.col("seq").max(), seen_ts=pl.col("ts_ns").max()
        )
    )
    return told.join(seen, on="place", how="left").select(
        "place",
        since=pl.coalesce("since_seen", "since"),
        until=pl.coalesce("until_seen", "until"),
        until_ts=pl.coalesce("seen_ts", "until_ts"),
    )


def _times(events: Mapping[str, pl.DataFrame]) -> pl.DataFrame:
    return pl.concat(events[name].select("seq", "ts_ns") for name in ("ev_syscall", "ev_task", "ev_fault"))


def in_windows(lives: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """Lives as they are when all of an operation is done, with the windows of their ends.

    Args:
        lives: Lives of modelled intervals.
        told: ``windows``.

    Returns:
        ``lives``, where born and died are ``until`` of their windows, and ``born_since``, ``died_since``.
    """
    for end in ("born", "died"):
        named = told.rename({name: f"{end}_{name}" for name in ("since", "until", "until_ts")})
        lives = lives.join(
            named, left_on=f"{end}_seq", right_on="place", how="left", maintain_order="left"
        ).with_columns(
            pl.coalesce(f"{end}_until", end).alias(end),
            pl.coalesce(f"{end}_since", pl.col(end) - 1).alias(f"{end}_since"),
            pl.coalesce(f"{end}_until", f"{end}_seq").alias(f"{end}_seq"),
            pl.coalesce(f"{end}_until_ts", f"{end}_ts_ns").alias(f"{end}_ts_ns"),
        )
    return lives.drop("born_until", "born_until_ts", "died_until", "died_until_ts")


class Doubt:
    """Bounds of counts over spans of time.

    Args:
        lives: ``in_windows``.
    """

    def __init__(self, lives: pl.DataFrame) -> None:
        self._lives = lives

    def touched(self, asked: pl.DataFrame) -> pl.Series:
        """Whether a window of the tree meets ``[after, until]``; else both bounds are the count.

        Args:
            asked: ``anon_vma``, ``after``, ``until``.
        """
        trees = self._lives.select(pl.col("anon_vma").unique()).with_row_index("tree")
        ends = pl.concat(self._lives[name] for name in ("born", "born_since", "died", "died_since"))
        latest = ends.filter(ends < AFTER // 2).max()
        # What never ends has the last place; no question reaches it.
        span = (latest if isinstance(latest, int) else 0) + 4
        place = pl.col("tree").cast(pl.Int64) * span
        own = self._lives.join(trees, on="anon_vma")

        def edges(edge: Callable[..., pl.Expr]) -> Int:
            each = (edge(end, pl.col(f"{end}_since") + 1).clip(0, span - 1) for end in ("born", "died"))
            return np.sort(pl.concat(own.select(place=place + at) for at in each)["place"].to_numpy())

        rows = asked.join(trees, on="anon_vma", how="left", maintain_order="left").select(
            (place + pl.col(name).clip(0, span - 2)).fill_null(-1).alias(name) for name in ("after", "until")
        )
        begun = np.searchsorted(edges(pl.min_horizontal), rows["until"].to_numpy(), side="right")
        return pl.Series(
            "touched", begun > np.searchsorted(edges(pl.max_horizontal), rows["after"].to_numpy())
        )

    def bounds(self, asked: pl.DataFrame) -> tuple[Int, Int]:
        """Least and most intervals on a tree that overlap a range, at any instant of ``[after, until]``.

        Args:
            asked: ``anon_vma``, ``after``, ``until``, ``first_pgoff``, ``last_pgoff`` (all inclusive); none
                null.
        """
        key = ["anon_vma", "after", "until", "first_pgoff", "last_pgoff"]
        distinct = asked.select(key).unique(maintain_order=True).with_row_index("question")
        lives = self._lives.join(
            distinct.select("anon_vma"), on="anon_vma", how="semi", maintain_order="left"
        )
        lives = lives.with_columns(born_ts_ns=pl.lit(None, pl.Int64), died_ts_ns=pl.lit(None, pl.Int64))
        there = pl.col("born") < pl.col("died")
        surely = lives.with_columns(died=pl.col("died_since") + 1).filter(there)
        possibly = lives.with_columns(born=pl.col("born_since") + 1).filter(there)
        least = self._count(Trees(surely), distinct, -1)
        most = self._count(Trees(possibly), distinct, 1)
        number = asked.join(distinct, on=key, how="left", maintain_order="left")["question"].to_numpy()
        return np.maximum(least, 0)[number], most[number]

    @staticmethod
    def _count(trees: Trees, asked: pl.DataFrame, sign: int) -> Int:
        """How many there are at ``after``, and as many more or less as come or go until ``until``."""
        known = asked.join(trees.codes, on="anon_vma", how="left", maintain_order="left")
        counts = np.zeros(len(asked), np.int64)
        rows = np.flatnonzero(known["tree"].is_not_null().to_numpy())
        tree, after, until, first, last = (
            known[name].gather(rows).to_numpy()
            for name in ("tree", "after", "until", "first_pgoff", "last_pgoff")
        )
        if len(rows):
            counts[rows] = trees.overlapping(tree, after, first, last)
            counts[rows] += sign * trees.disturbed(tree, after, until, first, last)
        return counts
