"""What one capture contributes to a fleet: its rows of tables fleet, fleet_miss and fleet_bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from schemas import TABLES

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa
    from numpy.typing import NDArray

NAMES: Final = ("fleet", "fleet_miss", "fleet_bins")

MAX_RELEASE: Final = 64
"""Most characters of a kernel release (__NEW_UTS_LEN in include/uapi/linux/utsname.h)."""

_EXACT_BITS: Final = 4
"""Values below 1 << 4 have a bin each; above, an octave has 1 << 3 bins."""


def fleet_rows(tables: Mapping[str, pa.Table]) -> dict[str, pa.Table]:
    """The rows of one capture.

    Args:
        tables: Result tables of the capture; ``capture``, ``summary``, ``miss``, ``walk`` and ``loop`` are
            read.

    Returns:
        The three tables by name, in the order of ``summary``'s strategies where they have one.
    """
    (capture,) = tables["capture"].to_pylist()
    own = {name: capture[name] for name in ("path", "sha256", "kernel_release", "arch", "events_lost")}
    own["kernel_release"] = release(capture["kernel_release"])
    frames = {"fleet": _frame(tables["summary"]), "fleet_miss": _misses(tables), "fleet_bins": _bins(tables)}
    results = {}
    for name, frame in frames.items():
        table = TABLES[name]
        owned = frame.with_columns(
            pl.lit(own[column], dtype=pl.Int64 if column == "events_lost" else pl.String).alias(column)
            for column in own
            if column in table.arrow.names
        )
        results[name] = table.cast(owned.select(table.arrow.names).to_arrow())
    return results


def release(name: str | None) -> str | None:
    """A kernel release that can name a folder: printable ASCII, no longer than the kernel's own limit."""
    if name is None:
        return None
    return "".join(char if " " <= char <= "~" else "?" for char in name[:MAX_RELEASE])


def bin_ranges(values: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Smallest and largest value, inclusive, of the bin that each value lies in.

    Args:
        values: Not negative.
    """
    bits = np.frexp(values.astype(np.float64))[1].astype(np.int64)
    low_bits = np.maximum(bits - _EXACT_BITS, 0)
    low = (values >> low_bits) << low_bits
    return low, low + (np.int64(1) << low_bits) - 1


def _frame(table: pa.Table) -> pl.DataFrame:
    return pl.DataFrame(pl.from_arrow(table))


def _misses(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    return (
        _frame(tables["miss"].select(["strategy", "cause_event", "walk_id"]))
        .group_by("strategy", "cause_event")
        .agg(mappings=pl.len(), walks=pl.col("walk_id").n_unique())
        .sort("strategy", "cause_event")
    )


def _bins(tables: Mapping[str, pa.Table]) -> pl.DataFrame:
    walk = _frame(tables["walk"].select(["strategy", "observed_ns", "predicted_ns"]))
    measured = walk.filter(pl.col("strategy") == "observed")
    measures = {
        "iterations": _frame(tables["loop"].select(["strategy", "iterations"])),
        "observed_ns": measured.select("strategy", "observed_ns"),
        "predicted_ns": walk.select("strategy", "predicted_ns"),
    }
    return pl.concat([_binned(frame, measure) for measure, frame in measures.items()])


def _binned(frame: pl.DataFrame, measure: str) -> pl.DataFrame:
    """Counts of the bins that hold a value; what is not known is in no bin."""
    known = frame.drop_nulls(measure)
    low, high = bin_ranges(known[measure].cast(pl.Int64).to_numpy())
    return (
        known.select("strategy", pl.lit(measure).alias("measure"))
        .with_columns(pl.Series("low", low, pl.Int64), pl.Series("high", high, pl.Int64))
        .group_by("strategy", "measure", "low", "high")
        .len("values")
        .sort("strategy", "low")
        .cast({"values": pl.Int64})
    )
