"""KSM without probes: what stock events determine is what the probes of the same capture tell."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from captures import open_capture
from captures.canonical import canonical_events
from replay import AnalyzeOptions
from replay.evidence import rebuild
from replay.ksm.nodes import migration_entries, migrations, nodes
from replay.ksm.stock import APART, determined
from replay.strategies import BUILTIN
from replay.walks.callers import named
from replay.walks.exact import replay_exact
from schemas import TABLES
from tests.model_machine import empty_events
from tests.stock_machine import EXCLUSIVE, READ, migration_entry, pte_row

TRUTH = Path(__file__).parent / "data" / "truth"
STRATEGIES = tuple(BUILTIN)
COUNTS = (
    *("iterations", "skip_addr_out_of_range", "skip_mm_mismatch", "rmap_one_calls"),
    *("ended_early", "first_pgoff"),
)
WALK_MAXIMA = ("skip_addr_out_of_range_max", "skip_mm_mismatch_max")
CAPTURES = {
    "6.12_s3-mremap_truth.dat": (25, 426, 451, 11, 11, 22),
    "6.12_s5-random_truth.dat": (0, 1429, 1429, 0, 32, 32),
    "6.12_s6-fleet_f01-s1.dat": (23, 29, 52, 8, 9, 17),
    "7.3_s1-small_truth-tiny.dat": (46, 155, 201, 15, 2, 17),
    "7.3_s12-mapcount_s4-holes.dat": (34, 223, 257, 32, 6, 38),
    "7.3_s2-fork_truth.dat": (17, 775, 792, 9, 38, 47),
    "7.3_s7-fileprivate_truth.dat": (36, 265, 301, 5, 8, 13),
    "custom-7.3-full_S4_notruth.dat": (93, 935, 1028, 57, 56, 113),
}
"""Captures; rmap_items with an address, a range, and all; migrations with counts, bounds, and all."""


@pytest.mark.parametrize("name", CAPTURES)
def test_what_is_determined_is_what_the_probes_tell(name: str) -> None:
    with open_capture(TRUTH / name) as capture:
        events = {name: pl.DataFrame(table) for name, table in canonical_events(capture).items()}
        release = capture.info.kernel_release
    events["ev_walk"] = named(events["ev_walk"], events["ev_migration_pte"])
    exact = replay_exact(events, STRATEGIES)
    options = AnalyzeOptions(strategies=STRATEGIES, evidence="modelled")
    events["ev_walk"] = events["ev_walk"].clear()
    before = {name: pl.DataFrame(TABLES[name].empty()) for name in ("proc_map", "proc_thread")}
    stock = rebuild(events, options, probed=True, release=release, gaps=None, before=before).stock
    assert stock is not None
    told = (stock.determined, stock.bounded_items, stock.merged)
    assert (*told, stock.replayed, stock.bounded, stock.migrations) == CAPTURES[name]
    state = stock.state
    _every_node_is_whole(stock.whole, exact.items)
    true = exact.items.select("rmap_item", at="merged", true="address").sort("at")
    told = state.items.select("rmap_item", "address", at=pl.col("merged") // APART).sort("at")
    both = told.join_asof(true, on="at", by="rmap_item", strategy="nearest", check_sortedness=False)
    assert (both["address"] == both["true"]).all()
    _addresses_are_in_their_ranges(state.rmap_item, exact.items)
    times = exact.walks.select("pid", "rmap_one", begin="ts_ns", end="end_ns", true_walk="walk_id")
    same = (
        state.walk.select("walk_id", "pid", "ts_ns", "caller")
        .unique("walk_id")
        .sort("ts_ns")
        .join_asof(times.sort("begin"), left_on="ts_ns", right_on="begin", by="pid", check_sortedness=False)
    )
    assert (same["ts_ns"] <= same["end"]).all()
    assert (same["caller"] == same["rmap_one"]).all()
    assert same["true_walk"].is_unique().all()
    assert len(same) >= 2 * sum(CAPTURES[name][3:5]) - 1
    same = same.select("walk_id", "true_walk")
    key = ["true_walk", "strategy", "rmap_item", "search_new_forks", "nth"]
    nth = pl.int_range(pl.len()).over(key[:-1])
    mine = state.loop.join(same, on="walk_id").with_columns(nth=nth)
    theirs = exact.loop.rename({"walk_id": "true_walk"}).join(same, on="true_walk", how="semi")
    loops = mine.join(theirs.with_columns(nth=nth), on=key, how="full", suffix="_true")
    assert loops["walk_id"].null_count() == 0
    for column in COUNTS:
        known = loops.drop_nulls([column, "iterations_true"])
        assert known[column].eq_missing(known[f"{column}_true"]).all(), column
    _in_bounds(loops, "iterations", pl.col("iterations_true").fill_null(0))
    walks = state.walk.join(same, on="walk_id").join(
        exact.walk.rename({"walk_id": "true_walk"}), on=["true_walk", "strategy"], suffix="_true"
    )
    for column in ("iterations_total", "iterations_max"):
        _in_bounds(walks, column, pl.col(f"{column}_true"))
        assert walks.filter(pl.coalesce(column, f"{column}_most").is_null()).is_empty()
    for column in ("loops", "mappings_missed", "rmap_one_calls", *WALK_MAXIMA):
        known = walks.drop_nulls(column)
        assert known[column].eq_missing(known[f"{column}_true"]).all(), column


def _in_bounds(rows: pl.DataFrame, column: str, true: pl.Expr) -> None:
    least, most = (pl.coalesce(column, f"{column}_{end}") for end in ("least", "most"))
    assert rows.filter(~true.is_between(least, most)).is_empty()


def _addresses_are_in_their_ranges(told: pl.DataFrame, items: pl.DataFrame) -> None:
    true = items.select("rmap_item", ts="born_ts_ns", true="address").drop_nulls().sort("ts")
    both = told.sort("born_ts_ns").join_asof(
        true, left_on="born_ts_ns", right_on="ts", by="rmap_item", strategy="forward", check_sortedness=False
    )
    both = both.drop_nulls("true")
    assert len(both) > len(told) * 0.9
    least, most = (pl.coalesce("address", f"address_{end}") for end in ("least", "most"))
    assert both.filter(~pl.col("true").is_between(least, most)).is_empty()


def _every_node_is_whole(whole: pl.DataFrame, items: pl.DataFrame) -> None:
    """A node that may be asked for a walk lists all rmap_items that the probes saw appended to it."""
    told = whole.select("rmap_item", "stable_node", at=pl.col("merged") // APART).sort("at")
    true = items.select("rmap_item", at="merged", node="stable_node", born="born").sort("at")
    node = told.join_asof(true, on="at", by="rmap_item", strategy="nearest", check_sortedness=False)
    counted = node.group_by("stable_node").agg(
        pl.len(), pl.col("node").n_unique(), first=pl.col("node").first()
    )
    assert (counted["node"] == 1).all()
    appended = items.group_by("stable_node").agg(appended=pl.len())
    both = counted.join(appended, left_on="first", right_on="stable_node")
    assert (both["len"] == both["appended"]).all()


# one node ---------------------------------------------------------------------

FRAME, MOVED, MM = 0x617A8, 0xDA87, 0xFFFF_88D8_211E_D400


def test_a_migration_entry_of_a_capture() -> None:
    """set_migration_pte pte=cffff7fff28d9a00, then remove_migration_pte pte=800000000da84025."""
    assert migration_entry(439091, 25) & ~0x1FF == migration_entry(439091, 25)
    rows = [(1, 0xCFFFF7FFF28D9A00, True), (2, 0x800000000DA84025, False)]
    table = _table("ev_migration_pte", [pte_row(seq, 7, pte, is_set=is_set) for seq, pte, is_set in rows])
    (move,) = migrations(migration_entries(table)).to_dicts()
    assert (move["type"], move["restored"]) == (25, 0xDA84)
    assert migration_entry(move["pfn"], 25) == 0xCFFFF7FFF28D9A00


def _merge(
    seq: int, item: int, frame: int, *, makes: bool = False, err: int = 0, mm: int = MM
) -> dict[str, Any]:
    own = {"ksm_page": 0 if makes else 64, "pfn": frame, "rmap_item": item, "mm": mm, "err": err}
    return {"seq": seq, "ts_ns": seq, "cpu": 0, "pid": 30, **own}


def _table(name: str, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(rows, schema=empty_events()[name].schema)


def addresses(
    merges: list[dict[str, Any]], ptes: list[dict[str, Any]], *, forked: bool = False
) -> tuple[dict[int, int], int]:
    """Pages of the rmap_items that are determined, and the number of migrations that are."""
    table = _table("ev_migration_pte", ptes)
    events = empty_events() | {"ev_merge": _table("ev_merge", merges), "ev_migration_pte": table}
    entries = migration_entries(table)
    items, moves = nodes(events, entries, migrations(entries))
    items = items.with_columns(number=pl.col("mm") - MM + 1)
    relatives = [(2, 50, 1)] if forked else []
    forks = pl.DataFrame(
        relatives, schema={"mm": pl.UInt64, "born": pl.Int64, "parent": pl.UInt64}, orient="row"
    )
    known, walked = determined(items, moves, table, forks)
    pages = {row["rmap_item"]: row["address"] >> 12 for row in known.to_dicts()}
    return pages, len(walked)


@pytest.mark.parametrize(
    ("scans", "died"),
    [
        ([], None),
        ([(55, True)], None),
        ([(45, False), (55, True)], None),
        ([(45, False), (55, True), (56, False)], None),
        ([(55, False), (60, True), (61, False), (70, True)], 60),
    ],
    ids=["no pass", "an end", "one that was under way", "one that begins", "a whole one"],
)
def test_a_whole_pass_takes_away_what_a_process_left(scans: list[tuple[int, bool]], died: int | None) -> None:
    """Address space MM ends at 50; that of the second page goes on. One like MM begins later."""
    common = {"cpu": 0, "pid": 30}
    events = empty_events() | {
        "ev_merge": _table(
            "ev_merge",
            [
                _merge(10, 1, 7, makes=True),
                _merge(11, 2, 7, mm=MM + 1),
                _merge(80, 3, 8, makes=True),
                _merge(81, 4, 8),
            ],
        ),
        "ev_exit_mmap": _table("ev_exit_mmap", [{"seq": 50, "ts_ns": 50, "mm": MM, **common}]),
        "ev_scan": _table(
            "ev_scan", [{"seq": at, "ts_ns": at, "is_stop": stop, **common} for at, stop in scans]
        ),
    }
    entries = migration_entries(events["ev_migration_pte"])
    items, _ = nodes(events, entries, migrations(entries))
    ends = {row["rmap_item"]: row["died_ts_ns"] for row in items.to_dicts()}
    assert ends == {1: died, 2: None, 3: None, 4: None}


def moved(
    seq: int, pages: list[int], frame: int = FRAME, to: int = MOVED, kind: int = READ
) -> list[dict[str, Any]]:
    sets = [pte_row(seq + n, page, migration_entry(frame, kind), is_set=True) for n, page in enumerate(pages)]
    entry = to << 12 | 0x25
    return sets + [pte_row(seq + 100 + n, page, entry, is_set=False) for n, page in enumerate(pages)]


PAIR = [_merge(10, 1, FRAME, makes=True), _merge(11, 2, FRAME)]


def test_hits_come_in_the_order_of_the_hlist() -> None:
    """The page scanned second is merged first and listed last, before the third: newest first is 3, 1, 2."""
    merges = [*PAIR, _merge(20, 3, FRAME)]
    assert addresses(merges, moved(100, [9, 7, 5])) == ({3: 9, 1: 7, 2: 5}, 1)


def test_a_node_moves_with_its_folio() -> None:
    later = moved(1000, [9, 7], frame=MOVED, to=FRAME)
    assert addresses(PAIR, [*moved(100, [9, 7]), *later]) == ({1: 9, 2: 7}, 2)


@pytest.mark.parametrize(
    ("merges", "ptes", "forked"),
    [
        ([*PAIR, _merge(20, 3, FRAME)], moved(100, [9, 7]), False),  # one is stale, or not listed any more
        (PAIR, moved(100, [9, 7]), True),  # a hit may be of the child
        ([PAIR[0], _merge(11, 2, FRAME, mm=MM + 64)], moved(100, [9, 7]), False),  # two address spaces
        ([PAIR[0], _merge(11, 2, FRAME, err=-14)], moved(100, [9]), False),  # the pair was not merged
        ([_merge(11, 2, FRAME)], moved(100, [9]), False),  # the node was there before the capture
        (PAIR, moved(100, [9, 7], frame=MOVED, to=FRAME), False),  # another folio
    ],
)
def test_what_is_not_determined(
    merges: list[dict[str, Any]], ptes: list[dict[str, Any]], forked: bool
) -> None:
    assert addresses(merges, ptes, forked=forked) == ({}, 0)


def test_where_the_folio_was_not_moved_something_may_still_map_it() -> None:
    """All rmap_items were hit, so their addresses are known; but the walk may have gone on after that."""
    assert addresses(PAIR, moved(100, [9, 7], to=FRAME)) == ({1: 9, 2: 7}, 0)


def test_a_page_of_its_own_in_the_frame_of_a_node_that_is_gone() -> None:
    """All but one rmap_item went elsewhere; what is migrated then is marked as exclusive."""
    other = [_merge(30, 8, 0x500, makes=True), _merge(31, 2, 0x500)]
    ptes = [*moved(100, [3, 4], frame=0x500, to=0x501), *moved(1000, [9], kind=EXCLUSIVE)]
    assert addresses([*PAIR, *other], ptes) == ({8: 3, 2: 4}, 1)


def test_the_next_page_in_a_frame_is_not_the_one_that_left_it() -> None:
    """The entry of a KSM page is unmapped before it is restored; a page of its own gets frame and address."""
    entries = [migration_entry(FRAME, kind) for kind in (READ, EXCLUSIVE)]
    rows = [pte_row(100 + 4 * n, 9, entry, is_set=True) for n, entry in enumerate(entries)]
    rows.append(pte_row(200, 9, MOVED << 12 | 0x25, is_set=False))
    moves = migrations(migration_entries(_table("ev_migration_pte", rows)))
    assert moves.select("type", "first", "hits", "restored").rows() == [
        (READ, 100, 1, None),
        (EXCLUSIVE, 104, 1, None),
    ]
