"""Who asked for a walk, told by its page-table events: against the names that the captures hold."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay.walks.callers import named

TRUTH = Path(__file__).parent / "data" / "truth"


@pytest.mark.parametrize(
    "name", ["6.12_s12-mapcount_s2-fork-reclaim.dat", "7.3_s1-small_truth-tiny.dat", "7.3_s2-fork_truth.dat"]
)
def test_the_events_of_a_walk_tell_the_callback(name: str) -> None:
    with open_capture(TRUTH / name) as capture:
        events = {table: pl.DataFrame(rows) for table, rows in canonical_events(capture).items()}
    walks = events["ev_walk"]
    told = named(walks.with_columns(rmap_one=pl.lit(None, pl.String)), events["ev_migration_pte"])
    both = walks.with_columns(told=told["rmap_one"]).filter(~pl.col("is_return"))
    known = both.filter(pl.col("told").is_not_null())
    assert len(known) > 20
    assert (known["told"] == known["rmap_one"]).all()
    # reclaim and aging leave no migration entries: nothing is said of them
    assert set(both.filter(pl.col("told").is_null())["rmap_one"]) <= {
        "folio_referenced_one",
        "try_to_unmap_one",
    }
    assert named(walks, events["ev_migration_pte"]).equals(walks)
