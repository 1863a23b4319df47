"""Walks cut at their page-table events: against the slow twin, and what a fit to the parts recovers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from replay.findings.segments import COUNTS, segments
from replay.oracle import segments as oracle_segments
from replay.pipeline import analyze
from replay.state.lifetimes import avc_lives
from replay.walks import steps
from replay.walks.exact import replay_exact
from replay.walks.timing import DRAWN, fit, fit_parts
from tests.test_oracle import HISTORIES, history, table

VICTIMS = Path(__file__).parent / "data" / "truth" / "6.12_s11-victims_truth-tiny.dat"


def parts_of(numbers: bytes, *, linear: bool, away: int) -> int:
    """Both ways, equal in every row; how many parts of how many walks there are more than walks."""
    _, plain = history(numbers, anon_pgoff=linear, linear=linear)
    events = {name: frame.with_columns(pl.col("seq") * 2) for name, frame in plain.items()}
    times = dict(pl.concat(frame.select("seq", "ts_ns") for frame in events.values()).iter_rows())
    rows = []
    for seq, pid in events["ev_walk"].select("seq", "pid").iter_rows():
        place = seq + 2 * (seq % 5)  # off the CPU, or back, around the begins and ends of walks
        if place not in times:
            continue
        own = {"seq": place + 1, "ts_ns": times[place], "cpu": 0, "pid": pid}
        gone = (seq + away) % 3 > 0
        rows.append({**own, "prev_pid": pid if gone else 0, "next_pid": 0 if gone else pid})
    rows = list({row["seq"]: row for row in rows}.values())
    events["ev_switch"] = table("ev_switch", sorted(rows, key=lambda row: row["seq"]))
    native = "linear" if linear else "full"
    exact = replay_exact(events, (native,))
    own = exact.walk.drop_nulls(["loops", "iterations_total", "rmap_one_calls", "observed_ns"])
    found = segments(exact, events, own, native)
    walks = exact.walks.join(own, on="walk_id", how="semi", maintain_order="left")
    asked = steps.expand(walks, exact.items, exact.trees)
    hits = steps.hits(walks, asked, events["ev_migration_pte"], exact.trees, exact.mappings)
    lives, _ = avc_lives(events["ev_avc"], events["ev_syscall"])
    told = oracle_segments.segments(
        walks.to_dicts(),
        exact.loop.to_dicts(),
        hits.to_dicts(),
        lives.to_dicts(),
        rows,
        [],
    )
    assert_frame_equal(found, pl.DataFrame(told, schema=found.schema, orient="row"))
    sums = found.group_by("walk_id").agg(pl.col(COUNTS).sum()).sort("walk_id")
    wanted = own.sort("walk_id").select("walk_id", pl.col(COUNTS[1:]).cast(pl.Float64))
    assert_frame_equal(sums.drop("walk"), wanted)
    assert found.filter(pl.min_horizontal(*COUNTS, "took_ns") < 0).is_empty()
    return len(found) - len(own)


@settings(derandomize=True, max_examples=30, phases=[Phase.generate])
@given(numbers=HISTORIES, linear=st.booleans(), away=st.integers(0, 2))
def test_the_parts_are_those_of_the_twin(numbers: bytes, linear: bool, away: int) -> None:
    parts_of(numbers, linear=linear, away=away)


def test_histories_hold_walks_with_several_events() -> None:
    cuts = 0
    for seed in range(8):
        numbers = bytes(
            (seed * 7919 + place * place * 31 + place * 104729) >> 3 & 0xFF for place in range(900)
        )
        cuts += parts_of(numbers, linear=seed % 2 == 0, away=1)
    assert cuts > 15


@pytest.mark.parametrize(
    ("per_iteration", "per_call", "seed"), [(50, 1000, 0), (250, 40_000, 1), (5000, 9000, 2)]
)
def test_parts_tell_what_an_iteration_costs_where_whole_walks_cannot(
    per_iteration: int, per_call: int, seed: int
) -> None:
    """Walks over n items on a tree of 20,000 VMAs: counts rise together, but pages lie anywhere in it."""
    random = np.random.default_rng(seed)
    rows, terms, durations = [], [], []
    for walk in range(60):
        items, tree = int(random.integers(3, 10)), 20_000
        place = np.sort(random.integers(1, tree, items))[::-1]
        passed = np.arange(items) * tree + place
        iterations = np.diff(np.concatenate(([0], passed, [2 * items * tree])))
        loops = np.concatenate((np.ones(items), [items]))
        calls = np.concatenate(([0.5], np.ones(items - 1), [0.5]))
        took = (per_iteration * iterations + per_call * calls) * random.lognormal(0, 0.2, items + 1)
        shares = [0.5, *[0.0] * (items - 1), 0.5]
        rows += [
            {"walk_id": walk, **dict(zip((*COUNTS, "took_ns"), each, strict=True))}
            for each in zip(shares, loops, iterations.astype(float), calls, took, strict=True)
        ]
        terms.append((2.0 * items, 2.0 * items * tree, float(items)))
        durations.append(took.sum())
    whole, took = np.array(terms), np.array(durations)
    assert fit(whole, took) is None
    found = fit_parts(pl.DataFrame(rows), whole, took)
    assert found is not None
    assert (found.parts, len(found.drawn)) == (len(rows), DRAWN)
    assert found.coefficients[2] == pytest.approx(per_iteration, rel=0.05)
    short = np.array([[8.0, 8.0, 4.0]])  # what a point lookup would do: far from all that was seen
    low, high = found.interval(short)
    assert low[0] <= found.predict(short)[0] <= high[0]
    assert low[0] <= 8 * per_iteration + 4 * per_call <= high[0]
    inside = (took >= found.interval(whole)[0]) & (took <= found.interval(whole)[1])
    assert inside.mean() >= 0.88


def test_a_real_capture_whose_walks_are_alike_has_predictions() -> None:
    tables = {name: pl.DataFrame(each) for name, each in analyze(VICTIMS).tables.items()}
    (row,) = tables["time_fit"].to_dicts()
    assert (row["strategy"], row["walks"], row["parts"]) == ("full", 20, 138)
    assert row["median_error"] < 0.25
    walk = tables["walk"].filter(pl.col("strategy") != "observed")
    assert walk.select("predicted_ns", "predicted_low_ns", "predicted_high_ns").null_count().row(0) == (
        0,
        0,
        0,
    )
    lost = {row["strategy"]: row for row in tables["lost"].to_dicts()}
    seen, full, linear = (lost[name] for name in ("observed", "full", "linear"))
    assert full["lost_least_ns"] < seen["lost_ns"] < full["lost_most_ns"]
    assert linear["lost_most_ns"] < full["lost_least_ns"]
    ratio = pl.col("predicted_high_ns") / pl.col("predicted_low_ns")
    wide = walk.group_by("strategy").agg(ratio.median().alias("ratio"))
    width = dict(wide.iter_rows())
    assert width["linear"] > width["full"]  # what parts leave open of a call is in it
