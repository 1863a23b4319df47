"""What the documents of a fleet say, summed up lazily from its datasets: text and HTML cannot differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from schemas.fleet import FAILED, STATUS
from schemas.walks import OBSERVED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

QUANTILES: Final = (50, 90, 99)
MAX_WORST: Final = 10
FIRST: Final = (OBSERVED, "full", "addr", "vm_pgoff", "linear")
"""Strategies in the order of the documents; those of the user come after them by name."""

Row = dict[str, Any]


@dataclass(frozen=True)
class FleetFacts:
    """Everything that is said of a fleet. Rows are dictionaries; null is not known.

    Attributes:
        statuses: Captures by status, in the order of ``schemas.fleet.STATUS``; only those that occur.
        kernels: Captures by kernel release (None: not known), most first.
        strategies: ``strategy, captures, walks, loops, iterations_max, time_ms_max, answered, missing, found,
            missed``: answered are captures whose misses are known, missing those of them with any; the last
            three are null where none is answered.
        causes: ``strategy, cause_event, captures, mappings``, most captures first.
        releases: ``kernel_release, strategy, captures, measure, values, p50, p90, p99``, the quantiles as
            upper ends of bins; measure: ``iterations`` of a loop, ``observed_ns``, ``predicted_ns`` of walks.
        curves: Release and strategy to iterations and the share of loops with at most so many.
        longest: Captures with the most iterations in one loop: ``path, result, kernel_release, strategy,
            iterations_max, time_ms_max``; strategy is full, or observed where full is not known.
        missing: Captures with the most missed mappings: ``path, result, kernel_release, strategy, missed,
            found``.
        failures: ``status, error, what, captures, path`` (of the first), most captures first.
    """

    statuses: Sequence[tuple[str, int]]
    kernels: Sequence[tuple[str | None, int]]
    strategies: Sequence[Row]
    causes: Sequence[Row]
    releases: Sequence[Row]
    curves: Mapping[tuple[str | None, str], Sequence[tuple[int, float]]]
    longest: Sequence[Row]
    missing: Sequence[Row]
    failures: Sequence[Row]

    @property
    def captures(self) -> int:
        """Inputs of the batch."""
        return sum(number for _, number in self.statuses)

    @property
    def failed(self) -> int:
        """Captures that make the batch incomplete."""
        return sum(number for status, number in self.statuses if status in FAILED)


def gather(frames: Mapping[str, pl.LazyFrame]) -> FleetFacts:
    """Sum up the datasets.

    Args:
        frames: ``captures``, ``fleet``, ``fleet_miss`` and ``fleet_bins`` by name.
    """
    fleet, misses, captures = frames["fleet"], frames["fleet_miss"], frames["captures"]
    results = captures.filter(pl.col("status").is_in(["ok", "partial"])).select("sha256", "result")
    bins = (
        frames["fleet_bins"]
        .group_by("kernel_release", "strategy", "measure", "low", "high")
        .agg(_sum("values"))
    )
    statuses, kernels, strategies, causes, longest, missing, failures, binned = pl.collect_all(
        [
            captures.group_by("status").len("captures"),
            fleet.group_by("kernel_release").agg(captures=pl.col("sha256").n_unique()),
            _strategies(fleet),
            _causes(misses),
            _longest(fleet).join(results, on="sha256", how="left"),
            _missing(fleet).join(results, on="sha256", how="left"),
            _failures(captures),
            bins.sort("kernel_release", "strategy", "measure", "low"),
        ],
        engine="streaming",
    )
    counted = dict(statuses.iter_rows())
    known = fleet.group_by("kernel_release", "strategy").agg(captures=pl.col("sha256").n_unique())
    return FleetFacts(
        statuses=[(status, counted[status]) for status in STATUS if status in counted],
        kernels=list(kernels.sort("captures", "kernel_release", descending=[True, False]).iter_rows()),
        strategies=_in_order(strategies),
        causes=causes.sort(
            "captures", "mappings", "strategy", "cause_event", descending=[True, True, False, False]
        ).to_dicts(),
        releases=_in_order(
            _releases(binned).join(
                known.collect(engine="streaming"),
                on=["kernel_release", "strategy"],
                nulls_equal=True,
                how="left",
            )
        ),
        curves=_curves(binned),
        longest=_ranked(longest, "iterations_max"),
        missing=_ranked(missing, "missed"),
        failures=failures.sort("captures", "what", descending=[True, False]).to_dicts(),
    )


def _strategies(fleet: pl.LazyFrame) -> pl.LazyFrame:
    answered = pl.col("missed").is_not_null()
    return fleet.group_by("strategy").agg(
        pl.len().alias("captures"),
        _sum("walks"),
        _sum("loops"),
        pl.col("iterations_max", "time_ms_max").max(),
        answered.sum().alias("answered"),
        pl.when(answered.any()).then((pl.col("missed") > 0).sum()).alias("missing"),
        *(
            pl.when(answered.any()).then(pl.col(name).filter(answered).sum()).alias(name)
            for name in ("found", "missed")
        ),
    )


def _causes(misses: pl.LazyFrame) -> pl.LazyFrame:
    return misses.group_by("strategy", "cause_event").agg(
        captures=pl.col("sha256").n_unique(), mappings=pl.col("mappings").sum()
    )


def _longest(fleet: pl.LazyFrame) -> pl.LazyFrame:
    """The row of full where it is known, else of observed, of the captures with most iterations."""
    return (
        fleet.filter(pl.col("strategy").is_in(["full", OBSERVED]) & pl.col("iterations_max").is_not_null())
        .sort("strategy")
        .group_by("sha256")
        .agg(
            pl.col("path", "kernel_release", "strategy", "iterations_max").first(),
            pl.col("time_ms_max").max(),
        )
        .sort("iterations_max", "path", descending=[True, False])
        .head(MAX_WORST)
    )


def _missing(fleet: pl.LazyFrame) -> pl.LazyFrame:
    return (
        fleet.filter(pl.col("missed") > 0)
        .sort("missed", "path", "strategy", descending=[True, False, False])
        .head(MAX_WORST)
        .select("sha256", "path", "kernel_release", "strategy", "missed", "found")
    )


def _failures(captures: pl.LazyFrame) -> pl.LazyFrame:
    """Failures that say the same but for their numbers count together."""
    return (
        captures.filter(pl.col("status").is_in(FAILED))
        .group_by(
            "status", "error", pl.col("what").str.replace_all(r"\d+", "#").alias("alike"), maintain_order=True
        )
        .agg(pl.len().alias("captures"), pl.col("what", "path").first())
        .drop("alike")
    )


def _releases(binned: pl.DataFrame) -> pl.DataFrame:
    """Quantiles of each measure, by kernel release and strategy, from bins in ascending order."""
    group = ("kernel_release", "strategy", "measure")
    running = pl.col("values").cum_sum()
    return binned.group_by(group, maintain_order=True).agg(
        pl.col("values").sum(),
        *(
            pl.col("high").filter(running * 100 >= pl.col("values").sum() * q).first().alias(f"p{q}")
            for q in QUANTILES
        ),
    )


def _curves(binned: pl.DataFrame) -> dict[tuple[str | None, str], list[tuple[int, float]]]:
    iterations = binned.filter(pl.col("measure") == "iterations")
    curves = {}
    for (release, strategy), group in iterations.group_by("kernel_release", "strategy", maintain_order=True):
        share = group["values"].cum_sum() / group["values"].sum()
        curves[(release, strategy)] = list(zip(group["high"].to_list(), share.to_list(), strict=True))
    return curves


def _ranked(frame: pl.DataFrame, by: str) -> list[Row]:
    return frame.sort(by, "path", descending=[True, False]).to_dicts()


def _in_order(frame: pl.DataFrame) -> list[Row]:
    """Rows by kernel release, where there is one, and strategy."""
    place = {name: number for number, name in enumerate(FIRST)}
    rows = frame.to_dicts()
    return sorted(
        rows,
        key=lambda row: (
            row.get("kernel_release") or "",
            place.get(row["strategy"], len(place)),
            row["strategy"],
            row.get("measure", ""),
        ),
    )


def _sum(name: str) -> pl.Expr:
    return pl.col(name).sum()
