"""One row a strategy, and what is known of the capture as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from replay.observed import NAME as OBSERVED
from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from replay.exact import Exact


def summarise(exact: Exact, observed_loop: pl.DataFrame, observed_walk: pl.DataFrame) -> pl.DataFrame:
    """Table ``summary``: ``observed`` first, then the strategies in the order they were asked for.

    Maxima are over the loops whose counts are known; totals are null when one is not. ``missed`` is
    null, not 0, where the strategy's lookups are not known for all mappings.
    """
    longest = None if observed_walk.is_empty() else observed_walk["observed_ns"].max()
    rows = []
    if not observed_walk.is_empty():
        rows.append(_row(OBSERVED, "observed", observed_loop, observed_walk["walk_id"].n_unique(), longest))
    found = exact.replayed.walk.group_by("strategy").agg(pl.col("found").sum())
    counts = dict(found.iter_rows())
    mappings = exact.replayed.pages["listed"].sum()
    for strategy in exact.walk["strategy"].unique(maintain_order=True):
        walks = exact.walk.filter(pl.col("strategy") == strategy)
        row = _row(strategy, "replayed", exact.loop.filter(pl.col("strategy") == strategy), len(walks), None)
        missed = len(exact.miss.filter(pl.col("strategy") == strategy))
        answered = counts[strategy] + missed == mappings
        rows.append({**row, "found": counts[strategy], "missed": missed if missed or answered else None})
    schema = {name: pl.Null for name in TABLES["summary"].arrow.names}
    if not rows:
        return pl.DataFrame(schema=schema)
    return pl.DataFrame([{**dict.fromkeys(schema), **row} for row in rows], infer_schema_length=None)


def _row(
    strategy: str, evidence: str, loop: pl.DataFrame, walks: int, longest_ns: object
) -> dict[str, object]:
    iterations = loop["iterations"]
    known = len(iterations) > 0 and iterations.null_count() == 0
    return {
        "strategy": strategy,
        "evidence": evidence,
        "walks": walks,
        "loops": len(loop),
        "time_ms_max": longest_ns / 1e6 if isinstance(longest_ns, int) else None,
        "iterations_max": iterations.max(),
        "skip_addr_out_of_range_max": loop["skip_addr_out_of_range"].max(),
        "skip_mm_mismatch_max": loop["skip_mm_mismatch"].max(),
        "iterations_total": iterations.sum() if known else None,
    }


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
