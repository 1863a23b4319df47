"""The figures: bins that lose nothing, populations held to a slow count, specifications that plotly knows."""

from __future__ import annotations

import gzip
import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import plotly.graph_objects as go
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plotly.offline import get_plotlyjs_version
from report_tables import ANON_VMA, BASE, END_NS, OTHER, PAGES, SPLIT_NS, START_NS, sample_tables, table

from reports.bins import EDGES, TIME_BINS, TimeAxis, loops_by_iterations, populations, walks_by_time
from reports.bins_space import MAX_BOXES, scene
from reports.facts import gather
from reports.figures import figures

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from reports.figure import Figure

ASSETS = Path(__file__).parent.parent / "reports" / "assets"


def loops(*iterations: int | None) -> object:
    rows = [
        {"walk_id": n, "ts_ns": n, "strategy": "full", "iterations": count}
        for n, count in enumerate(iterations)
    ]
    return table("loop", rows)


def intervals(lives: list[tuple[int | None, int | None]]) -> object:
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
    bins = loops_by_iterations(sample_tables()["loop"])
    assert [(one.least, one.most, one.loops) for one in bins["full"]] == [(1, 1, 32), (2000, 2000, 32)]
    assert [(one.least, one.most, one.loops) for one in bins["linear"]] == [(1, 1, 64)]


@given(st.lists(st.integers(0, 10**6) | st.none(), max_size=60))
def test_every_loop_is_in_the_bin_of_its_iterations(iterations: list[int | None]) -> None:
    known = sorted(count for count in iterations if count is not None)
    bins = loops_by_iterations(loops(*iterations)).get("full", [])
    assert sum(one.loops for one in bins) == len(known)
    for one in bins:
        inside = [count for count in known if one.least <= count <= one.most]
        assert (inside[0], inside[-1], len(inside)) == (one.least, one.most, one.loops)
        assert one.most <= max(9, one.least * 1.3)
    assert EDGES[:11] == tuple(range(11))


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
    assert [figure.name for figure in drawn] == ["space", "iterations", "population"]
    for figure in drawn:
        spec = json.loads(json.dumps(figure.spec).replace('"ink"', '"black"'))
        assert len(go.Figure(spec).data) == len(figure.spec["data"])


def test_dots_stand_at_their_iterations_and_carry_their_loops() -> None:
    tables = sample_tables()
    iterations = named(tables)["iterations"]
    full = next(trace for trace in iterations.spec["data"] if trace["name"] == "full")
    assert full["x"] == [0, pytest.approx(math.log10(2000), abs=1e-3)]
    assert full["text"] == ["32", "32"]
    assert ("full", "2,000", "32") in iterations.rows
    assert {"x", "y"} <= full.keys()


def test_figures_stay_small_whatever_the_capture_holds() -> None:
    tables = sample_tables()
    many = [n % 1_000_003 for n in range(0, 200_000_000, 997)]
    tables |= {
        "loop": loops(*many),
        "avc": intervals([(START_NS + n * 25_000, None) for n in range(200_000)]),
    }
    drawn = figures(tables, gather(tables))
    iterations, population = drawn
    assert sum(len(trace["x"]) for trace in iterations.spec["data"]) < len(EDGES)
    assert sum(int(row[2].replace(",", "")) for row in iterations.rows) == len(many)
    assert all(len(trace["x"]) <= TIME_BINS + 1 for trace in population.spec["data"])
    assert len(json.dumps([figure.spec for figure in drawn])) < 400_000
    assert f"{len(many):,} loops are shown as" in " ".join(iterations.caption)


def test_loops_that_are_not_known_are_counted_in_words() -> None:
    tables = sample_tables() | {"loop": loops(1, None, None)}
    caption = " ".join(named(tables)["iterations"].caption)
    assert "2 loops whose iterations are not known are not shown." in caption


def test_nothing_to_draw_is_no_figure() -> None:
    tables = sample_tables(capture={"first_ts_ns": None, "last_ts_ns": None})
    tables |= {"loop": tables["loop"].slice(0, 0)}
    assert figures(tables, gather(tables)) == []


def test_every_label_is_escaped_for_plotly() -> None:
    name = "<b>&amp;</b><a href='https://example.org'>x</a>"
    tables = sample_tables(custom=(name,))
    text = Counter(
        json.dumps([figure.spec for figure in figures(tables, gather(tables))]).replace("<br>", "")
    )
    assert text["<"] == 0


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
    assert titles[2] == "vm_pgoff: misses 30 mappings here, first cause: mprotect at 2.000034 s by pid 123"
    crosses = next(trace for trace in space.spec["data"] if trace["name"] == "missed by vm_pgoff")
    assert all("mprotect at 2.0000" in text and "by pid 123" in text for text in crosses["hovertext"])
    assert "2,001 lives of VMAs are shown as" in " ".join(space.caption)


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
