"""``replay testbench SCENARIO --record``: record a scenario, analyze it, tell what walks took."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from replay import pipeline
from replay.record.options import Profile, RecordOptions
from replay.record.run import record
from schemas.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pyarrow as pa

    from replay.testbench.bench import BenchOptions


def record_and_analyze(
    options: BenchOptions, path: Path, events: Profile, *, force: bool
) -> tuple[str, dict[str, pa.Table]]:
    """Record the scenario in a process of its own, and analyze the capture.

    Args:
        options: The scenario.
        path: The capture.
        events: What to record.
        force: Whether an existing capture is replaced.

    Returns:
        The durations as text, and the result tables of ``analyze``.

    Raises:
        UsageError: The scenario failed, and has said why.
        KeyboardInterrupt: It was interrupted; the capture is there.
    """
    command = (
        *("/bin/sh", "-c", 'exec "$@" >&2', "sh"),  # stdout is for the result
        *(sys.executable, "-m", "replay", "testbench", options.scenario),
        *("--pages", str(options.pages), "--contents", str(options.contents), "--walks", str(options.walks)),
        *("--seed", str(options.seed), "--timeout", str(options.timeout_s)),
    )
    done = record(RecordOptions(path, profile=events, force=force, command=command))
    if done.interrupted:
        raise KeyboardInterrupt
    if done.status:
        raise UsageError(
            f"the scenario ended with status {done.status}", where=str(path), hint="it says above why"
        )
    tables = pipeline.analyze(path).tables
    return durations(tables), tables


def durations(tables: Mapping[str, pa.Table]) -> str:
    """Count, maximum and average of the durations of the walks, one line a caller.

    Args:
        tables: Result tables of ``analyze``.
    """
    walk = tables["walk"]
    walk = walk.filter(pc.and_(pc.equal(walk["strategy"], "observed"), pc.is_valid(walk["observed_ns"])))
    grouped = walk.group_by("caller").aggregate(
        [("observed_ns", "count"), ("observed_ns", "max"), ("observed_ns", "mean")]
    )
    lines = [f"{'walks of rmap_walk_ksm() by':<28}{'count':>8}{'max_ms':>12}{'average_ms':>12}"]
    for row in grouped.sort_by([("observed_ns_max", "descending"), ("caller", "ascending")]).to_pylist():
        lines.append(
            f"{row['caller'] or 'not known':<28}{row['observed_ns_count']:>8,}"
            f"{row['observed_ns_max'] / 1e6:>12,.3f}{row['observed_ns_mean'] / 1e6:>12,.3f}"
        )
    return "\n".join(lines) + "\n"
