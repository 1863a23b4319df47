"""The fit of durations: what it recovers, what it refuses, and how it does on walks that it has not seen."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.pipeline import analyze
from replay.walks.timing import fit, fit_tables, fitted, predict_walks

SAMPLES = Path(__file__).parent.parent / "captures" / "samples"
TRUTH = Path(__file__).parent / "data" / "truth"
UNTIMED = ("held_up_ns", "predicted_ns", "predicted_low_ns", "predicted_high_ns")
COLUMNS = ["loops", "iterations_total", "rmap_one_calls"]


@settings(max_examples=40)
@given(
    cost=st.tuples(*(st.integers(0, 10_000) for _ in range(4))).filter(lambda cost: cost[2] > 10),
    seed=st.integers(0, 1000),
)
def test_it_recovers_the_costs_although_one_walk_in_ten_was_held_up(cost: tuple[int, ...], seed: int) -> None:
    random = np.random.default_rng(seed)
    loops = random.integers(2, 200, 300)
    terms = np.column_stack((loops, loops * random.integers(1, 5000, 300), random.integers(1, 200, 300)))
    duration = np.array(cost, float) @ np.column_stack((np.ones(300), terms)).T
    late = duration * np.where(random.random(300) < 0.1, 20.0, 1.0)
    found = fit(terms.astype(float), late)
    assert found is not None
    assert found.predict(terms.astype(float)) == pytest.approx(duration, rel=0.05, abs=5000)


def never(own: pl.DataFrame, native: str) -> pl.DataFrame:
    """For walks that need not be cut."""
    raise AssertionError(f"{len(own)} walks of {native} are cut")


def test_it_says_nothing_of_few_walks_or_of_walks_that_are_all_alike() -> None:
    terms = np.tile([4.0, 8.0, 2.0], (50, 1))
    assert fit(terms, np.full(50, 1e6)) is None
    assert fit(np.arange(33.0).reshape(11, 3), np.arange(11.0)) is None


def test_half_of_a_capture_foretells_the_other_half() -> None:
    walk = pl.DataFrame(analyze(TRUTH / "custom-7.3-switch_S4_switch.dat").tables["walk"])
    full = walk.filter(pl.col("strategy") == "full", pl.col("iterations_total").is_not_null())
    # this kernel switches its own strategy: only the walks that really visited what full visits
    seen = walk.filter(pl.col("strategy") == "observed").select(
        "walk_id", pl.col("iterations_total").alias("seen")
    )
    full = full.join(seen, on="walk_id").filter(pl.col("iterations_total") == pl.col("seen"))
    full = full.sample(fraction=1.0, shuffle=True, seed=1)  # walks come in pairs, unmap and restore
    train, unseen = full.gather_every(2), full.gather_every(2, 1)
    found = fit(
        train.select(pl.col(COLUMNS).cast(pl.Float64)).to_numpy(),
        train["observed_ns"].cast(pl.Float64).to_numpy(),
    )
    assert found is not None
    ratio = unseen["observed_ns"].to_numpy() / found.predict(
        unseen.select(pl.col(COLUMNS).cast(pl.Float64)).to_numpy()
    )
    inside = ((ratio >= found.low) & (ratio <= found.high)).mean()
    assert inside > 0.8


def test_walks_of_one_shape_do_not_tell_what_an_iteration_costs() -> None:
    # linear visits one VMA a loop: iterations, loops and calls go together
    walk = pl.DataFrame(analyze(TRUTH / "7.3_s1-small_truth-tiny.dat").tables["walk"])
    assert walk["predicted_ns"].null_count() == len(walk)


def test_walks_through_much_bigger_trees_than_the_fitted_ones_are_not_predicted() -> None:
    random = np.random.default_rng(0)
    loops, size = random.integers(2, 60, 100), random.integers(1, 500, 100)
    calls = random.integers(1, 60, 100)
    own = pl.DataFrame(
        {
            "strategy": ["full"] * 100,
            "loops": loops,
            "iterations_total": loops * size,
            "rmap_one_calls": calls,
            "observed_ns": 5000 + 100 * loops * size + 3000 * calls,
            **{name: pl.Series([None] * 100, dtype=pl.Int64) for name in UNTIMED},
        }
    )
    near = own.with_columns(strategy=pl.lit("near"))
    far = own.with_columns(strategy=pl.lit("far"), iterations_total=pl.col("loops") * 3000)
    model, _ = fitted(own, "full", never)
    predicted = predict_walks(pl.concat([own, near, far]), model)
    assert predicted.filter(pl.col("strategy") == "near")["predicted_ns"].null_count() == 0
    assert predicted.filter(pl.col("strategy") == "far")["predicted_ns"].null_count() == 100


def test_why_nothing_is_predicted_is_said() -> None:
    walk = pl.DataFrame(analyze(SAMPLES / "split-6.12.dat").tables["walk"])
    assert fitted(walk, None, never) == (None, "which strategy the kernel runs is not known")
    assert fitted(walk.head(8), "full", never)[1].endswith(
        "walks have a duration and all counts; a fit takes 12"
    )
    untimed = walk.with_columns(observed_ns=pl.lit(None, pl.Int64))
    assert fitted(untimed, "full", never) == (None, "the capture holds no duration of a walk")
    assert predict_walks(walk, None).equals(walk)


@settings(max_examples=30)
@given(
    per_iteration=st.integers(100, 5000),
    spread=st.floats(0.01, 0.2),
    held=st.integers(0, 10**8),
    seed=st.integers(0, 1000),
)
def test_nine_walks_in_ten_lie_in_their_interval_and_an_iteration_costs_what_it_costs(
    per_iteration: int, spread: float, held: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    loops, size = random.integers(2, 60, 400), 2 ** random.integers(0, 12, 400)
    calls = random.integers(1, 60, 400)
    exact = 3000 + 100 * loops + per_iteration * loops * size + 2000 * calls
    took = np.rint(exact * random.lognormal(0, spread, 400)).astype(np.int64)
    held_up = np.where(random.random(400) < 0.3, held, 0)
    walk = pl.DataFrame(
        {
            "strategy": ["full"] * 400,
            "loops": loops,
            "iterations_total": loops * size,
            "rmap_one_calls": calls,
            "observed_ns": took + held_up,
            **{name: pl.Series([None] * 400, dtype=pl.Int64) for name in UNTIMED},
        }
    ).with_columns(held_up_ns=held_up)
    train, unseen = walk.head(200), walk.tail(200)
    model, why = fitted(train, "full", never)
    assert model is not None, why
    assert model.held_up_ns == train["held_up_ns"].sum()
    told = predict_walks(unseen, model).with_columns(took=pl.col("observed_ns") - pl.col("held_up_ns"))
    inside = told.select(pl.col("took").is_between("predicted_low_ns", "predicted_high_ns")).mean().item()
    assert 0.78 <= inside <= 0.99
    costs = fit_tables(train, "full", model)["iteration_cost"].filter(pl.col("size_least") >= 256)
    assert len(costs) >= 3
    assert costs["iteration_us"].to_numpy() * 1000 == pytest.approx(per_iteration, rel=max(0.2, 2.5 * spread))


def test_a_walk_takes_what_its_loops_take_and_what_is_once_a_walk() -> None:
    tables = analyze(SAMPLES / "split-6.12.dat").tables
    loop, walk = (pl.DataFrame(tables[name]).drop_nulls("predicted_ns") for name in ("loop", "walk"))
    loops = loop.group_by("walk_id", "strategy").agg(pl.col("predicted_ns").sum().alias("loops_ns"))
    once = walk.join(loops, on=["walk_id", "strategy"]).select(pl.col("predicted_ns") - pl.col("loops_ns"))
    assert len(once) == 26 * 4
    # each loop is rounded to a whole ns
    assert once.max().item() - once.min().item() <= 16
    assert loop["predicted_ns"].min() >= 0


def test_lock_holds_are_those_that_the_kernel_measured() -> None:
    name = "custom-7.3-addr_S3_ksmw"
    loop = pl.DataFrame(analyze(TRUTH / f"{name}.dat").tables["loop"])
    held = loop.filter(pl.col("strategy") == "observed")["observed_ns"].to_list()
    truth = json.loads(gzip.decompress((TRUTH / f"{name}.truth.json.gz").read_bytes()))
    assert held == [one["hold_ns"] for walk in truth["walks"] for one in walk["loops"]]
    assert loop.filter(pl.col("strategy") != "observed")["observed_ns"].null_count() == len(loop) - len(held)
