"""The figures: bins that lose nothing, populations held to a slow count, specifications that plotly knows."""

from __future__ import annotations

import gzip
import json
import math
import re
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs_version
from report_tables import ANON_VMA, BASE, END_NS, OTHER, PAGES, SPLIT_NS, START_NS, sample_tables, table

from reports.facts.all import gather
from reports.facts.example import Example, Span, examples
from reports.facts.quantiles import EDGES, distributions
from reports.figures.bins import MAX_SPANS, TIME_BINS, TimeAxis, merged_spans, populations, walks_by_time
from reports.figures.bins_space import MAX_BOXES, scene
from reports.figures.why import Places
from reports.page import MAX_BYTES, page_of
from reports.sections import figures, sections
from schemas.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.figures.figure import Figure

NAMES = ("why", "space", "iterations", "holds", "times", "population", "victims")
ASSETS = Path(__file__).parent.parent / "reports" / "assets"


def loops(*iterations: int | None) -> pa.Table:
    rows = [
        {"walk_id": n, "ts_ns": n, "strategy": "full", "iterations": count}
        for n, count in enumerate(iterations)
    ]
    return table("loop", rows)


def intervals(lives: list[tuple[int | None, int | None]]) -> pa.Table:
    """Lives on one tree: (born, died); the place in the order of events is the time."""
    rows = [
        {
            "anon_vma": ANON_VMA,
            "born_ts_ns": born,
            "born_seq": born,
            "died_ts_ns": died,
            "died_seq": died,
            "evidence": "exact",
        }
        for born, died in lives
    ]
    return table("avc", rows)


def named(tables: Mapping[str, pa.Table]) -> dict[str, Figure]:
    return {figure.name: figure for figure in figures(tables, gather(tables))}


def test_loops_of_the_sample_are_two_sharp_bins() -> None:
    found = distributions(sample_tables()["loop"], "iterations")
    assert [(one.least, one.most, one.count) for one in found["full"].bins] == [(1, 1, 32), (2000, 2000, 32)]
    assert [(one.least, one.most, one.count) for one in found["linear"].bins] == [(1, 1, 64)]


@given(st.lists(st.integers(0, 10**12) | st.none(), max_size=60))
def test_every_loop_is_in_the_bin_of_its_iterations(iterations: list[int | None]) -> None:
    known = sorted(count for count in iterations if count is not None)
    found = distributions(loops(*iterations), "iterations")
    if not known:
        assert found == {}
        return
    full = found["full"]
    assert (full.count, full.unknown, full.most) == (len(known), len(iterations) - len(known), known[-1])
    for share, value in zip((0.5, 0.9, 0.99), full.quantiles, strict=True):
        # at least that share lies at or below it, and less than that below it
        assert sum(count <= value for count in known) >= share * len(known)
        assert sum(count < value for count in known) <= share * (len(known) - 1) + 1
    assert sum(one.count for one in full.bins) == len(known)
    for one in full.bins:
        inside = [count for count in known if one.least <= count <= one.most]
        assert (inside[0], inside[-1], len(inside)) == (one.least, one.most, one.count)
        assert one.most <= max(9, one.least * 1.3)
    assert EDGES[:11].tolist() == list(range(11))


def test_population_of_the_sample() -> None:
    axis = TimeAxis.over(START_NS, END_NS)
    split, other = populations(sample_tables()["avc"], axis)
    assert (split.anon_vma, split.peak, split.from_before, split.to_end) == (ANON_VMA, 2000, 1, 2000)
    assert (other.anon_vma, other.peak, other.from_before, other.to_end) == (OTHER, 3, 0, 2)
    at_split = (SPLIT_NS - START_NS) // axis.width_ns
    assert set(split.alive[:at_split]) == {1}
    assert set(split.alive[at_split + 1 :]) == {2000}


@given(st.data())
def test_population_equals_a_slow_count(data: st.DataObject) -> None:
    span = data.draw(st.integers(0, 3000), "span")
    times = data.draw(st.lists(st.integers(0, span), unique=True, max_size=40), "times")
    lives = []
    for _ in range(data.draw(st.integers(0, 20), "lives")):
        born = times.pop() if times and data.draw(st.booleans()) else None
        died = times.pop() if times and data.draw(st.booleans()) else None
        lives.append((died, born) if born is not None and died is not None and died < born else (born, died))
    axis = TimeAxis.over(0, span)
    assert axis.bins <= TIME_BINS
    assert axis.bins * axis.width_ns > span
    found = populations(intervals(lives), axis)
    if not lives:
        assert found == []
        return
    alive = [
        sum((-1 if born is None else born) <= now and (died is None or now < died) for born, died in lives)
        for now in range(-1, axis.bins * axis.width_ns)
    ]
    expected = []
    for number in range(axis.bins):
        first = number * axis.width_ns
        # index 0 is the instant before the axis; a bin begins with what the one before it left
        expected.append(max(alive[first : first + 1 + axis.width_ns]))
    assert list(found[0].alive) == expected


def test_a_walk_counts_once_however_many_strategies_it_has() -> None:
    walks = walks_by_time(sample_tables()["walk"], TimeAxis.over(START_NS, END_NS))
    assert sum(count for _, count in walks) == 16


def test_plotly_knows_every_part_of_the_specifications() -> None:
    tables = sample_tables()
    drawn = figures(tables, gather(tables))
    assert [figure.name for figure in drawn] == list(NAMES)
    for figure in drawn:
        spec = json.loads(json.dumps(figure.spec).replace('"ink"', '"black"'))
        assert len(go.Figure(spec).data) == len(figure.spec["data"])


def test_bars_stand_at_their_iterations_and_carry_their_loops() -> None:
    iterations = named(sample_tables())["iterations"]
    data = iterations.spec["data"]
    full = next(trace for trace in data if trace["name"] == "full")
    middles = [base + wide / 2 for base, wide in zip(full["base"], full["x"], strict=True)]
    assert middles == [pytest.approx(0), pytest.approx(math.log10(2000), abs=0.06)]
    assert next(trace for trace in data if trace.get("mode") == "text")["text"] == ["32", "32"]
    assert ("full", 2000, 2000, 32) in iterations.table.rows
    # what the kernel counted lies on the bars of the strategy that it runs
    observed = next(trace for trace in data if trace["name"].startswith("observed"))
    assert observed["x"] == pytest.approx(middles)
    tops = [middle + tall / 2 for middle, tall in zip(full["y"], full["width"], strict=True)]
    assert observed["y"] == pytest.approx(tops)


def test_what_the_kernel_did_has_a_row_of_its_own_where_its_strategy_is_not_known() -> None:
    tables = sample_tables(capture={"native_strategy": None, "page_offset_rule": None})
    rows = named(tables)["iterations"].spec["layout"]["yaxis"]["ticktext"]
    assert rows == ["observed", "full", "addr", "vm_pgoff", "linear"]
    assert named(sample_tables())["iterations"].spec["layout"]["yaxis"]["ticktext"] == rows[1:]


def test_times_have_units_and_say_what_is_longest() -> None:
    drawn = named(sample_tables())
    assert drawn["times"].finding == (
        "Longest walk: observed 34.6 ms; full 34.7 ms; addr, vm_pgoff, linear 12 us."
    )
    assert drawn["holds"].finding == (
        "Longest lock hold of one inner loop: full 8 ms; addr, vm_pgoff, linear 5 us."
    )
    assert set(drawn["times"].spec["layout"]["xaxis"]["ticktext"]) >= {"10 us", "100 us", "1 ms", "10 ms"}


def test_figures_stay_small_whatever_the_capture_holds() -> None:
    tables = sample_tables()
    many = [n % 1_000_003 for n in range(0, 200_000_000, 997)]
    waits = [tables["wait"].to_pylist()[0] | {"ts_ns": SPLIT_NS + n * 10_000} for n in range(50_000)]
    tables |= {
        "loop": loops(*many),
        "avc": intervals([(START_NS + n * 25_000, None) for n in range(200_000)]),
        "wait": table("wait", [row | {"end_ns": row["ts_ns"] + 5000} for row in waits]),
    }
    drawn = {figure.name: figure for figure in figures(tables, gather(tables))}
    iterations = drawn["iterations"]
    assert sum(len(trace["x"]) for trace in iterations.spec["data"]) < len(EDGES)
    assert sum(row[3] for row in iterations.table.rows) == len(many)
    assert all(len(trace["x"]) <= TIME_BINS + 1 for trace in drawn["population"].spec["data"])
    assert all(len(trace["x"]) <= MAX_SPANS + 1 for trace in drawn["victims"].spec["data"])
    assert len(json.dumps([figure.spec for figure in drawn.values()])) < 400_000
    assert f"{len(many):,} values are shown as" in " ".join(iterations.caption)


def test_loops_that_are_not_known_are_counted_in_words() -> None:
    tables = sample_tables() | {"loop": loops(1, None, None)}
    caption = " ".join(named(tables)["iterations"].caption)
    assert "2 values that are not known are not shown." in caption


def test_nothing_to_draw_is_no_figure() -> None:
    tables = sample_tables(capture={"first_ts_ns": None, "last_ts_ns": None})
    tables |= {name: tables[name].slice(0, 0) for name in ("loop", "walk", "wait")}
    assert figures(tables, gather(tables)) == []


def test_every_label_is_escaped_for_plotly() -> None:
    name = "<b>&amp;</b><a href='https://example.org'>x</a>"
    tables = sample_tables(custom=(name,))
    specs = json.dumps([figure.spec for figure in figures(tables, gather(tables))])
    for own in ("<br>", "<b>", "</b>"):  # what replay itself puts around a strategy's name
        specs = specs.replace(own, "")
    assert Counter(specs)["<"] == 0
    assert "&lt;b&gt;" in specs


def test_the_bundle_is_the_version_of_the_installed_plotly() -> None:
    packed = (ASSETS / "plotly-cartesian.min.js.gz").read_bytes()
    head = gzip.decompress(packed)[:200].decode()
    assert f"plotly.js (cartesian - minified) v{get_plotlyjs_version()}" in head


def test_the_address_space_shows_the_split_and_what_vm_pgoff_misses() -> None:
    tables = sample_tables()
    seen = scene(tables, END_NS)
    assert seen is not None
    assert (seen.anon_vma, seen.low, seen.high, seen.vmas) == (ANON_VMA, 0, PAGES - 1, PAGES + 1)
    assert sum(box["n"] for box in seen.boxes) == PAGES + 1
    whole, *after = seen.boxes
    assert (whole["n"], whole["first"], whole["last"], whole["died"]) == (1, 0, PAGES - 1, SPLIT_NS)
    assert {box["cause"] for box in after} == {"mprotect"}
    assert seen.missed == {"full": 0, "addr": 0, "vm_pgoff": 30, "linear": 0}
    assert sum(one["n"] for one in seen.misses["vm_pgoff"]) == 30
    assert {one["first"] for one in seen.misses["vm_pgoff"]} == {0}
    assert all(one["page"] == (one["address"] - BASE) // 4096 for one in seen.misses["vm_pgoff"])
    assert sum(one["n"] for each in seen.lookups.values() for one in each) == 4 * 64


def test_the_address_space_says_what_made_a_mapping_be_missed() -> None:
    space = named(sample_tables())["space"]
    titles = [note["text"] for note in space.spec["layout"]["annotations"]]
    assert titles[2] == "<b>vm_pgoff</b> misses 30 here, since mprotect at 2.000 s by pid 123"
    crosses = next(trace for trace in space.spec["data"] if trace["name"] == "missed by vm_pgoff")
    assert all("mprotect at 2.000 s by pid 123" in text for text in crosses["hovertext"])
    assert "2,001 lives of VMAs are shown as" in " ".join(space.caption)


def test_an_example_tells_where_the_page_is_and_where_it_is_looked_for() -> None:
    found = examples(sample_tables(), ["full", "addr", "vm_pgoff", "linear"])
    assert list(found) == ["vm_pgoff"]
    one = found["vm_pgoff"]
    # the first walk after the split: walk 8, whose pages are 0 (found) and 34, 35, 36
    assert (one.walk_id, one.page, one.address) == (8, 35, BASE + 35 * 4096)
    assert (one.merged_in, one.held_by, one.met) == (Span(0, PAGES - 1), Span(35, 35), Span(0, 0))
    assert (one.looked, one.vmas) == (Span(0, 0), PAGES)
    assert (one.cause, one.cause_ns) == ("mprotect", SPLIT_NS + 35 * 1000)
    why = named(sample_tables())["why"]
    assert why.finding == (
        "vm_pgoff looks 35 pages below the page and finds a VMA of 1 page, not the one that holds it "
        "(since mprotect at 2.000 s)."
    )
    notes = [note["text"] for note in why.spec["layout"]["annotations"]]
    assert "at walk 8, 3.000 s: 2,000 VMAs on the tree" in notes
    assert "met: a VMA of 1 page, 35 pages below the page" in notes


def test_a_moved_vma_is_told_from_a_split_one() -> None:
    tables = sample_tables()
    moved = [row | {"address": row["address"] + 514 * 4096} for row in tables["rmap_item"].to_pylist()]
    misses = [
        row
        | {"strategy": "addr", "cause_event": "mremap"}
        | {name: row[name] + 514 * 4096 for name in ("address", "vm_start", "vm_end")}
        for row in tables["miss"].to_pylist()
    ]
    looked = [
        row | {name: row[name] + 5140 for name in ("first_pgoff", "last_pgoff")}
        if row["strategy"] == "addr"
        else row
        for row in tables["loop"].to_pylist()
    ]
    tables |= {
        "rmap_item": table("rmap_item", moved),
        "miss": table("miss", misses),
        "loop": table("loop", looked),
    }
    finding = named(tables)["why"].finding
    assert finding.startswith(
        "addr looks 5,140 pages above the page and finds no VMA (since mremap at 2.000 s)"
    )
    assert re.search(r"its VMA's page offsets are address / 4096 - [\d,]+\.$", finding)


@given(st.integers(0, 1999), st.integers(0, 1999))
def test_a_lookup_below_the_page_is_drawn_below_it(page: int, looked: int) -> None:
    here, there = Span(page, page), Span(looked, looked)
    one = Example("x", 1, 1, 0, page, 0, there, Span(0, 1999), here, there, 2000, None, None, None)
    place = Places(one)
    assert 0 <= min(place.page, place.looked) < max(place.page, place.looked) <= 1
    assert (place.looked < place.page) == (looked <= page) or looked == page


def test_waits_that_lie_close_together_keep_their_number_and_their_time() -> None:
    rows = pl.DataFrame({"ts_ns": [0, 1, 2, 900], "end_ns": [10, 5, 4, 1000]})
    assert merged_spans(rows, 0, 1000 * MAX_SPANS) == [(0, 1000, 4, 116)]
    assert merged_spans(rows, 0, 300)[0] == (0, 10, 1, 10)


def test_an_address_used_twice_is_drawn_where_the_merged_pages_are() -> None:
    tables = sample_tables()
    far = [
        {"anon_vma": ANON_VMA, "first_pgoff": 2**35 + n, "last_pgoff": 2**35 + n, "evidence": "exact"}
        for n in range(5000)
    ]
    tables["avc"] = table("avc", tables["avc"].to_pylist() + far)
    seen = scene(tables, END_NS)
    assert seen is not None
    assert (seen.low, seen.high, seen.vmas) == (0, PAGES - 1, PAGES + 1)


def test_the_address_space_stays_small() -> None:
    tables = sample_tables()
    lives = [
        {
            "anon_vma": ANON_VMA,
            "first_pgoff": n * 7919 % PAGES,
            "last_pgoff": n * 7919 % PAGES,
            "born_ts_ns": START_NS + n * 104_729 % 4_000_000_000,
            "died_ts_ns": START_NS + 4_000_000_000 + n * 1301 % 900_000_000,
            "evidence": "exact",
        }
        for n in range(50_000)
    ]
    seen = scene(tables | {"avc": table("avc", lives)}, END_NS)
    assert seen is not None
    assert len(seen.boxes) <= MAX_BOXES
    assert sum(box["n"] for box in seen.boxes) == 50_000


def test_a_page_has_the_size_that_is_asked_for_and_says_what_that_takes() -> None:
    tables = audited_lives(20_000)
    facts = gather(tables)
    parts = sections(tables, facts)
    usual = page_of(facts, parts, tables)
    assert len(usual.encode()) < MAX_BYTES
    assert 'id="detail"' not in usual
    less = len(usual.encode()) - 40_000
    small = page_of(facts, parts, tables, less)
    assert len(small.encode()) <= less
    assert re.search(rf"Figures show up to 1/\d of the usual number of parts: .* {less:,} bytes", small)
    large = page_of(facts, parts, tables, 8 * MAX_BYTES)
    assert len(usual.encode()) < len(large.encode()) <= 8 * MAX_BYTES
    assert "Figures show up to 8 times the usual number" in large
    with pytest.raises(OutputError, match="the page takes"):
        page_of(facts, parts, tables, 1000)


def audited_lives(number: int) -> dict[str, pa.Table]:
    """The made-up capture with that many VMAs that come and go on its tree."""
    lives = [
        {
            "anon_vma": ANON_VMA,
            "first_pgoff": n * 7919 % PAGES,
            "last_pgoff": n * 7919 % PAGES,
            "born_ts_ns": START_NS + n * 104_729 % 4_000_000_000,
            "died_ts_ns": START_NS + 4_000_000_000 + n * 1301 % 900_000_000,
            "born_seq": 2 * n,
            "died_seq": 2 * n + 1,
            "evidence": "exact",
        }
        for n in range(number)
    ]
    return sample_tables() | {"avc": table("avc", lives)}
