"""Lost events: what is marked as certain is what it was without the loss; proofs put lost instants right."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from captures import open_capture
from captures.canonical import canonical_events
from replay.options import AnalyzeOptions
from replay.oracle import losses as oracle_losses
from replay.pipeline import analyze
from replay.state.gaps import Gaps
from replay.state.losses import settle
from replay.state.order import NEVER
from replay.walks.exact import Exact, replay_exact
from reports.facts.all import gather
from reports.markdown import render_markdown
from reports.page import render_page
from reports.summary_json import json_summary
from reports.text import render_text
from schemas import TABLES
from tests.perf_tool import DATA as PERF
from tests.test_tracedat_report import DATA as TRACEDAT

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = ("full", "addr", "vm_pgoff", "linear")
COUNTS = ("loops", "iterations_total", "iterations_max", "rmap_one_calls", "mappings_missed")
Events = dict[str, pl.DataFrame]


@cache
def events_of(name: str) -> Events:
    with open_capture(TRUTH / name) as capture:
        return {each: pl.DataFrame(pl.from_arrow(table)) for each, table in canonical_events(capture).items()}


@cache
def without_loss(name: str) -> Exact:
    return replay_exact(events_of(name), STRATEGIES)


def quality(rows: list[tuple[int | None, int | None]]) -> pl.DataFrame:
    """Table ``quality`` with losses of CPU 0: (start_ns, end_ns) of each."""
    row = {"kind": "lost_events", "cpu": 0, "count": 1, "effect": "", "severity": "warning"}
    schema = pl.DataFrame(pl.from_arrow(TABLES["quality"].empty())).schema
    return pl.DataFrame([{**row, "start_ns": start, "end_ns": end} for start, end in rows], schema=schema)


def lose(events: Events, chance: random.Random) -> tuple[Events, pl.DataFrame]:
    """Take out what one CPU recorded between two of its events, once or several times."""
    order = pl.concat(frame.select("seq", "ts_ns", "cpu") for frame in events.values()).sort("seq")
    kept, rows = pl.lit(True), []
    for _ in range(chance.choice((1, 2, 4))):
        cpu = chance.choice(order["cpu"].unique().sort().to_list())
        mine = order.filter(pl.col("cpu") == cpu)
        first = chance.randrange(len(mine) - 2)
        last = min(len(mine) - 1, first + 2 + chance.randrange(len(mine) // 20))
        inside = pl.col("seq").is_between(mine["seq"][first], mine["seq"][last], closed="none")
        kept &= ~((pl.col("cpu") == cpu) & inside)
        rows.append((mine["ts_ns"][first], mine["ts_ns"][last]))
    return {name: frame.filter(kept) for name, frame in events.items()}, quality(rows)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "name", ["6.12_s3-mremap_truth.dat", "7.3_s12-mapcount_s2-fork.dat", "7.3_s6-fleet_f06-s2.dat"]
)
def test_walks_that_are_certain_are_as_without_the_loss(name: str, seed: int) -> None:
    """Without the loss they equal the kernel's own counts (test_truth)."""
    lossy, losses = lose(events_of(name), random.Random(seed))
    gaps = Gaps.of(losses, lossy)
    assert gaps is not None
    found = replay_exact(lossy, STRATEGIES, gaps).walk
    both = found.join(without_loss(name).walk, on=["ts_ns", "pid", "strategy"], how="left", suffix="_whole")
    same = both.select(pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_whole")) for c in COUNTS))
    certain = both["uncertain"].is_null()
    assert same.filter(certain).to_series().all()
    first = losses["start_ns"].min()
    assert isinstance(first, int)
    assert both.filter(pl.col("end_ns") > first)["uncertain"].null_count() == 0


def test_proofs_make_walks_right_that_lost_removals_made_wrong() -> None:
    """Of the walks after losses fewer differ from the kernel's counts than when nothing is inferred."""
    wrong = {True: 0, False: 0}
    for seed in range(4):
        name = "7.3_s4-holes_truth.dat"
        lossy, losses = lose(events_of(name), random.Random(seed))
        for inferred in wrong:
            gaps = Gaps.of(losses, lossy) if inferred else None
            found = replay_exact(lossy, STRATEGIES, gaps).walk
            both = found.join(
                without_loss(name).walk, on=["ts_ns", "pid", "strategy"], how="left", suffix="_whole"
            )
            differs = ~pl.all_horizontal(pl.col(c).eq_missing(pl.col(f"{c}_whole")) for c in COUNTS)
            wrong[inferred] += len(both.filter(differs))
    assert wrong[True] < wrong[False]


def lives(*rows: tuple[int, int, int, int, int | None, int | None]) -> pl.DataFrame:
    """Lives: vma, mm, first page, last page, place of the insertion, of the removal (None: not seen)."""
    schema: Any = {name: pl.UInt64 for name in ("vma", "mm", "vm_start", "vm_end")}
    schema |= {
        name: pl.Int64 for name in ("born", "died", "born_seq", "died_seq", "born_ts_ns", "died_ts_ns")
    }
    schema |= {"begin_seen": pl.Boolean, "end_seen": pl.Boolean}
    found = [
        (
            *(vma, mm, first * 4096, (last + 1) * 4096),
            *(-1 if born is None else born, NEVER if died is None else died, born, died),
            *(each if each is None else 10 * each for each in (born, died)),
            *(born is not None, died is not None),
        )
        for vma, mm, first, last, born, died in rows
    ]
    return pl.DataFrame(found, schema=schema, orient="row")


def gaps_at(*places: tuple[int, int]) -> Gaps:
    seq = np.arange(200)
    begin, end = (np.array([gap[n] for gap in places]) for n in (0, 1))
    return Gaps(begin, end, (begin, end), seq, 10 * seq)


EXITS = pl.DataFrame(schema={"mm": pl.UInt64, "seq": pl.Int64})
INSTANTS = ("born", "died", "died_ts_ns", "uncertain", "doubt_from", "doubt_until")


def test_a_later_vma_in_its_place_proves_one_gone() -> None:
    """VMA 1 (pages 0-9) loses its removal; VMA 2 (pages 5-7) comes at 60: 1 went in the loss before."""
    settled = settle(lives((1, 7, 0, 9, 10, None), (2, 7, 5, 7, 60, 90)), gaps_at((30, 40)), EXITS)
    assert settled.select(INSTANTS).rows() == [
        (10, 40, 400, "end", 30, 60),
        (60, 90, 900, None, None, None),
    ]


def test_nothing_in_its_place_proves_nothing() -> None:
    """Another address space, other pages, or the same VMA on another tree; and no loss at all."""
    others = ((2, 8, 0, 9, 60, 90), (3, 7, 10, 12, 60, 90), (1, 7, 0, 9, 60, 90))
    settled = settle(lives((1, 7, 0, 9, 10, None), *others), gaps_at((30, 40)), EXITS)
    assert settled.select(INSTANTS).row(0) == (10, NEVER, None, "end", None, None)
    before = settle(lives((1, 7, 0, 9, 50, None), (2, 7, 5, 7, 60, 90)), gaps_at((30, 40)), EXITS)
    assert before.select(INSTANTS).row(0) == (50, NEVER, None, None, None, None)


def test_the_end_of_an_address_space_proves_its_vmas_gone() -> None:
    exits = pl.DataFrame({"mm": [7], "seq": [80]}, schema=EXITS.schema)
    settled = settle(lives((1, 7, 0, 9, 10, None)), gaps_at((30, 40), (50, 55)), exits)
    assert settled.select(INSTANTS).rows() == [(10, 55, 550, "end", 30, 80)]


def test_an_earlier_vma_in_its_place_proves_that_one_came_later() -> None:
    """Only the removal of VMA 2 is seen, at 90; until 20 VMA 1 had its pages."""
    settled = settle(lives((1, 7, 0, 9, 5, 20), (2, 7, 5, 7, None, 90)), gaps_at((30, 40)), EXITS)
    assert settled.select(INSTANTS).row(1) == (40, 90, 900, "begin", 20, 40)
    assert settled["born_ts_ns"].to_list() == [50, 400]


@st.composite
def histories(
    draw: st.DrawFn,
) -> tuple[list[oracle_losses.Life], list[tuple[int, int]], list[tuple[int, int]]]:
    some = []
    places = st.integers(0, 40)
    for _ in range(draw(st.integers(1, 12))):
        first, pages = draw(st.integers(0, 6)), draw(st.integers(1, 3))
        born, died = sorted((draw(places), draw(places)))
        begin_seen, end_seen = draw(st.sampled_from([(True, True), (True, False), (False, True)]))
        some.append(
            oracle_losses.Life(
                vma=draw(st.integers(1, 4)),
                mm=draw(st.integers(1, 2)),
                start=first * 4096,
                end=(first + pages) * 4096,
                born=born if begin_seen else draw(st.sampled_from([-1, born])),
                died=died + 1 if end_seen else draw(st.sampled_from([NEVER, died + 1])),
                begin_seen=begin_seen,
                end_seen=end_seen,
            )
        )
    edges = sorted(draw(st.lists(places, min_size=2, max_size=6, unique=True)))
    gaps = list(zip(edges[::2], edges[1::2], strict=False))
    exits = draw(st.lists(st.tuples(st.integers(1, 2), places), max_size=2))
    return some, gaps, exits


@given(histories())
@settings(derandomize=True, max_examples=300)
def test_the_columns_settle_as_the_oracle_does(
    history: tuple[list[oracle_losses.Life], list[tuple[int, int]], list[tuple[int, int]]],
) -> None:
    some, gaps, exits = history
    frame = pl.DataFrame(
        {
            "vma": pl.Series([each.vma for each in some], dtype=pl.UInt64),
            "mm": pl.Series([each.mm for each in some], dtype=pl.UInt64),
            "vm_start": pl.Series([each.start for each in some], dtype=pl.UInt64),
            "vm_end": pl.Series([each.end for each in some], dtype=pl.UInt64),
            "born": [each.born for each in some],
            "died": [each.died for each in some],
            "begin_seen": [each.begin_seen for each in some],
            "end_seen": [each.end_seen for each in some],
            **{f"{name}_{unit}": [0] * len(some) for name in ("born", "died") for unit in ("seq", "ts_ns")},
        }
    )
    over = pl.DataFrame(exits, schema=EXITS.schema, orient="row")
    found = settle(frame, gaps_at(*gaps), over)
    oracle_losses.settle(some, gaps, exits)
    expected = [(each.born, each.died, each.uncertain) for each in some]
    assert found.select("born", "died", "uncertain").rows() == expected


def test_a_real_capture_with_losses_says_which_rows_they_concern() -> None:
    tables = analyze(TRACEDAT / "lost_events.dat").tables
    walk, notes = pl.DataFrame(tables["walk"]), pl.DataFrame(tables["quality"])
    first = notes.filter(pl.col("kind") == "lost_events")["start_ns"].min()
    assert isinstance(first, int)
    replayed = walk.filter(pl.col("strategy") != "observed")
    late = replayed.filter(pl.col("end_ns") > first)
    assert late.height > 0
    assert late["uncertain"].null_count() == 0
    told = notes.filter(pl.col("kind") == "uncertain_walk")["count"].sum()
    assert told == late["walk_id"].n_unique()
    for name in ("avc", "rmap_item"):
        marked = pl.DataFrame(tables[name]).filter(pl.col("uncertain").is_not_null())
        assert notes.filter(pl.col("kind") == f"uncertain_{name}")["count"].sum() == len(marked)


def test_every_document_says_what_lost_events_make_uncertain() -> None:
    tables = analyze(TRACEDAT / "lost_events.dat").tables
    facts = gather(tables)
    walks = pl.DataFrame(tables["walk"])["walk_id"].n_unique()
    assert 0 < sum(facts.uncertain.values()) <= walks
    sentence = f"Lost events make {sum(facts.uncertain.values()):,} of {walks:,} walks uncertain"
    assert sentence in " ".join(render_text(tables).split())
    assert sentence in render_markdown(tables)
    assert sentence in render_page(tables)
    document = json.loads(json_summary(tables))
    assert document["verdict"][0].startswith(sentence)
    assert document["uncertain_walks"] == dict(facts.uncertain)
    assert all(row["uncertain"] in facts.uncertain for row in facts.worst.rows)
    assert f"uncertain ({facts.worst.rows[0]['uncertain']})" in " ".join(render_text(tables).split())


def test_walks_whose_rmap_items_were_never_seen_have_no_counts() -> None:
    """perf of one process does not record ksmd, which merges."""
    tables = analyze(PERF / "per_process.perf.data.xz").tables
    walk = pl.DataFrame(tables["walk"])
    assert len(walk.filter(pl.col("strategy") == "full")) == 24
    assert walk.select(COUNTS).null_count().row(0) == (len(walk),) * len(COUNTS)
    assert pl.DataFrame(tables["summary"]).select("found", "missed").null_count().row(0) == (5, 5)
    notes = {row["kind"]: row["count"] for row in tables["quality"].to_pylist()}
    assert notes["unlisted_walk"] == 24
    assert "nothing to compare" not in render_text(tables)


def test_without_tree_probes_the_walks_of_the_capture_are_told() -> None:
    tables = analyze(TRUTH / "7.3_s1-small_triple.dat", AnalyzeOptions(evidence="modelled")).tables
    walk = pl.DataFrame(tables["walk"]).filter(pl.col("strategy") == "full")
    assert (
        walk["observed_ns"].to_list()
        == without_loss("7.3_s1-small_triple.dat")
        .walk.filter(pl.col("strategy") == "full")["observed_ns"]
        .to_list()
    )
    assert walk["loops"].null_count() == len(walk) == 28
