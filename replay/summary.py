"""One row a strategy, and what is known of the capture as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from replay.walks.observed import NAME as OBSERVED
from schemas import TABLES
from schemas.walks import STOCK_STRATEGY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.walks.exact import Exact


def summarise(exact: Exact, loop: pl.DataFrame, walk: pl.DataFrame) -> pl.DataFrame:
    """Table ``summary``: ``observed`` first, then the strategies in the order they were asked for.

    Maxima are over the loops whose counts are known; totals are null when one is not. ``missed`` is
    null, not 0, where the strategy's lookups are not known for all mappings.

    Args:
        exact: State and walks.
        loop: Table ``loop``.
        walk: Table ``walk``, with its predictions.
    """
    known = exact.replayed.walk.drop_nulls("found")
    found = dict(known.group_by("strategy").agg(pl.col("found").sum()).iter_rows())
    mappings = exact.replayed.pages["listed"].sum()
    evidence = "modelled" if "modelled" in exact.avc["evidence"] else "replayed"
    rows = []
    for strategy in walk["strategy"].unique(maintain_order=True):
        own, walks = (frame.filter(pl.col("strategy") == strategy) for frame in (loop, walk))
        is_observed = strategy == OBSERVED
        times = walks["observed_ns" if is_observed else "predicted_ns"]
        longest = None if times.null_count() else times.max()
        ends = (
            {}
            if is_observed or longest is None
            else {
                f"time_ms_{end}": walks.select(pl.col(f"predicted_{end}_ns").max() / 1e6).item()
                for end in ("low", "high")
            }
        )
        row = {
            "strategy": strategy,
            "evidence": "observed" if is_observed else evidence,
            "walks": len(walks),
            "loops": len(own),
            "time_ms_max": longest / 1e6 if isinstance(longest, int) else None,
            "iterations_max": own["iterations"].max(),
            "skip_addr_out_of_range_max": own["skip_addr_out_of_range"].max(),
            "skip_mm_mismatch_max": own["skip_mm_mismatch"].max(),
            "iterations_total": total(walks["iterations_total"]),
            **_bounds(walks),
            **ends,
        }
        if not is_observed:
            missed = len(exact.miss.filter(pl.col("strategy") == strategy))
            answered = strategy in found and found[strategy] + missed == mappings
            row |= {"found": found.get(strategy), "missed": missed if missed or answered else None}
        rows.append(row)
    schema = {name: pl.Null for name in TABLES["summary"].arrow.names}
    if not rows:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], infer_schema_length=None)


def _bounds(walks: pl.DataFrame) -> dict[str, int | None]:
    """Bounds of the counts over all walks of a strategy; where no walk has any, nothing.

    The counts themselves are known where the bounds leave no choice.
    """
    if walks["iterations_total_least"].null_count() == len(walks):
        return {}
    row: dict[str, int | None] = {}
    for name, over in (("iterations_max", pl.Expr.max), ("iterations_total", pl.Expr.sum)):
        least, most = (pl.coalesce(name, f"{name}_{end}") for end in ("least", "most"))
        low, high, whole = walks.select(
            over(least).alias("low"), over(most).alias("high"), whole=most.is_not_null().all()
        ).row(0)
        known = whole and low == high
        row |= {name: high if known else None, f"{name}_least": None if known else low}
        row |= {f"{name}_most": high if whole and not known else None}
    return row


def total(counts: pl.Series) -> int | None:
    """Sum of the counts; None: there are none, or one is not known."""
    return None if counts.is_empty() or counts.null_count() else int(counts.sum())


def timed_strategy(native: str | None, rule: str | None) -> str | None:
    """The strategy whose counts the observed durations belong to.

    What the kernel was seen to pass; else what every kernel with that tree key passes: ``full`` up to
    7.2, ``linear`` from 7.3 on.
    """
    return native or STOCK_STRATEGY.get(rule or "")


def page_offset_rule(events: Mapping[str, pl.DataFrame]) -> str | None:
    """The key of the trees: ``anon_pgoff`` where the probes tell it (7.3), else ``vm_pgoff``."""
    trees = events["ev_avc"]
    if trees.is_empty():
        return None
    return "anon_pgoff" if trees["anon_pgoff"].null_count() < len(trees) else "vm_pgoff"


def native_strategy(exact: Exact, observed_loop: pl.DataFrame) -> str | None:
    """The strategy that the kernel itself ran: the one whose ranges are those that it was seen to pass.

    None: it was not seen, or no strategy (or more than one) passes just these ranges.
    """
    seen = _ranges(observed_loop)
    if seen.is_empty():
        return None
    same = []
    for strategy in exact.walk["strategy"].unique(maintain_order=True):
        own = _ranges(exact.loop.filter(pl.col("strategy") == strategy))
        if seen.join(own, on=seen.columns, how="anti").is_empty():
            same.append(strategy)
    return same[0] if len(same) == 1 else None


def _ranges(loop: pl.DataFrame) -> pl.DataFrame:
    return loop.select("walk_id", "first_pgoff", "last_pgoff").drop_nulls().unique()
