"""What the documents say of single walks and loops: worst walks, first causes, loops by iterations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from reports.facts.quantiles import distributions
from schemas.walks import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from reports.facts.quantiles import Distribution

MAX_WALKS: Final = 10

UNCERTAIN: Final = {
    "during": "that ran meanwhile",
    "list": "by their rmap_items",
    "tree": "by their trees",
    "after": "only because they came later",
}
"""Values of ``walk.uncertain``, the worst first, and what is said of such walks."""


@dataclass(frozen=True)
class FirstCause:
    """The first event that made a strategy miss mappings.

    Attributes:
        event: Name of the system call or of the event.
        after_ns: Time after the first event of the capture; None: the capture's begin is not known.
        pid: Thread id of the task that caused it; None: not known.
    """

    event: str
    after_ns: int | None
    pid: int | None

    @property
    def words(self) -> str:
        """``mprotect at 12.331 s by pid 812``."""
        when = "" if self.after_ns is None else f" at {self.after_ns / 1e9:.3f} s"
        who = "" if self.pid is None else f" by pid {self.pid}"
        return f"{self.event}{when}{who}"


@dataclass(frozen=True)
class Worst:
    """The walks with most iterations.

    Attributes:
        rows: Rows of table ``walk``, the worst first, at most `MAX_WALKS`.
        strategy: The row of the strategy table that they belong to; None: there is no walk.
        by_time: Nothing is known of iterations: they are the walks that took longest.
    """

    rows: Sequence[Mapping[str, Any]]
    strategy: str | None
    by_time: bool


def uncertain_walks(walk: pa.Table) -> dict[str, int]:
    """Walks that lost events make uncertain, by how: each once, by the first of ``UNCERTAIN`` of its rows."""
    rows = pl.DataFrame(walk.select(["walk_id", "uncertain"])).drop_nulls()
    order = pl.Enum(list(UNCERTAIN))
    worst = rows.group_by("walk_id").agg(pl.col("uncertain").cast(order).min())
    counts = dict(worst["uncertain"].value_counts().iter_rows())
    return {name: counts[name] for name in UNCERTAIN if name in counts}


def counted(walk: pa.Table) -> dict[str, int]:
    """Walks by what is known of their iterations under all strategies: ``counted``, ``bounded``, ``unknown``.

    And ``missed_known``: of how many it is known what each strategy misses.
    """
    known, most = pl.col("iterations_total").is_not_null(), pl.col("iterations_total_most").is_not_null()
    of_walks = (
        pl.DataFrame(walk)
        .filter(pl.col("strategy") != OBSERVED)
        .group_by("walk_id")
        .agg(
            counted=known.all(),
            bounded=(known | most).all(),
            missed_known=pl.col("mappings_missed").is_not_null().all(),
        )
    )
    exact, bounds, missed = (int(of_walks[name].sum()) for name in ("counted", "bounded", "missed_known"))
    unknown = len(of_walks) - bounds
    return {"counted": exact, "bounded": bounds - exact, "unknown": unknown, "missed_known": missed}


def first_causes(miss: pa.Table, first_ts_ns: int | None) -> dict[str, FirstCause]:
    """For each strategy, the earliest cause that is known."""
    columns = ["strategy", "cause_event", "cause_ts_ns", "cause_pid"]
    known = pl.DataFrame(miss.select(columns)).drop_nulls(["cause_event", "cause_ts_ns"])
    first = known.sort("cause_ts_ns", maintain_order=True).unique("strategy", keep="first")
    return {
        strategy: FirstCause(event, None if first_ts_ns is None else ts - first_ts_ns, pid)
        for strategy, event, ts, pid in first.sort("strategy").iter_rows()
    }


def worst_walks(walk: pa.Table, preferred: Sequence[str | None]) -> Worst:
    """The walks with most iterations, known or at most, in one row of the strategy table.

    Args:
        walk: Table ``walk``.
        preferred: Names of rows, the best first; the first of them with known iterations is taken. Where no
            iterations are known, the walks that took longest.
    """
    frame = pl.DataFrame(walk)
    most = pl.coalesce("iterations_total", "iterations_total_most")
    known = frame.filter(most.is_not_null())
    by_time = known.is_empty()
    present = (frame if by_time else known)["strategy"].unique()
    strategy = next((name for name in preferred if name in present), None)
    worst = (
        frame.filter(pl.col("strategy") == pl.lit(strategy, pl.String))
        .sort(
            [pl.col("observed_ns") if by_time else most, pl.col("walk_id")],
            descending=[True, False],
            nulls_last=True,
        )
        .head(MAX_WALKS)
    )
    return Worst(worst.to_dicts(), strategy, by_time)


def spread(loop: pa.Table) -> dict[str, list[int]]:
    """For each strategy, loops by iterations: none, 1, 2-3, 4-7, 8-15 and so on; nulls are left out."""
    counted = (
        pl.DataFrame(loop.select(["strategy", "iterations"]))
        .lazy()
        .drop_nulls("iterations")
        .group_by("strategy", "iterations")
        .len("loops")
        .collect()
    )
    spreads: dict[str, list[int]] = {}
    for strategy, iterations, loops in counted.iter_rows():
        bins = spreads.setdefault(strategy, [])
        number = int(iterations).bit_length()
        bins += [0] * (number + 1 - len(bins))
        bins[number] += loops
    return spreads


def times(walk: pa.Table) -> dict[str, Distribution]:
    """How long the walks took (``observed``), and would take under each strategy (ns)."""
    return _observed_and_predicted(walk)


def holds(loop: pa.Table) -> dict[str, Distribution]:
    """How long the loops held the lock (``observed``), and would hold it under each strategy (ns)."""
    return _observed_and_predicted(loop)


def _observed_and_predicted(table: pa.Table) -> dict[str, Distribution]:
    is_observed = pl.col("strategy") == OBSERVED
    found = distributions(table, "observed_ns", is_observed) if "observed_ns" in table.column_names else {}
    return found | distributions(table, "predicted_ns", ~is_observed)
