"""KSM from stock events: the columns against their twin, and both against a kernel in small that knows."""

from __future__ import annotations

from typing import Any

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from replay.ksm.candidates import vmas_at
from replay.ksm.nodes import migration_entries, migrations, nodes
from replay.ksm.stock import determined
from replay.ksm.undetermined import Rebuilt, undetermined
from replay.oracle.ksm_bounds import State, bounds_of
from replay.oracle.ksm_stock import known_addresses
from replay.strategies import BUILTIN
from tests.model_machine import empty_events
from tests.stock_machine import CHILD, PAGE, PARENT, StockMachine, Vma, stock_machines
from tests.test_ksm_stock import _table

NUMBERS = {1: 10, 2: 20, CHILD: 30}


def events_of(machine: StockMachine) -> dict[str, pl.DataFrame]:
    return empty_events() | {name: _table(name, rows) for name, rows in machine.rows.items()}


def forks_of(machine: StockMachine) -> pl.DataFrame:
    rows = [(NUMBERS[child], place, NUMBERS[parent]) for place, parent, child in machine.forks]
    return pl.DataFrame(rows, schema={"mm": pl.UInt64, "born": pl.Int64, "parent": pl.UInt64}, orient="row")


def numbered(frame: pl.DataFrame, known: tuple[int, ...]) -> pl.DataFrame:
    of = {mm: NUMBERS[mm] for mm in known}
    return frame.with_columns(number=pl.col("mm").replace_strict(of, default=None, return_dtype=pl.UInt64))


@given(machine=stock_machines(), known=st.sampled_from(((1, 2, CHILD), (1,))))
@settings(max_examples=40)
def test_what_is_determined_is_so_and_the_twin_says_the_same(
    machine: StockMachine, known: tuple[int, ...]
) -> None:
    events = events_of(machine)
    entries = migration_entries(events["ev_migration_pte"])
    items, moves = nodes(events, entries, migrations(entries))
    told, walked = determined(numbered(items, known), moves, events["ev_migration_pte"], forks_of(machine))
    mine = {(row["rmap_item"], row["born"]): row["address"] for row in told.to_dicts()}
    forks = [(place, NUMBERS[parent], NUMBERS[child]) for place, parent, child in machine.forks]
    twin, walks = known_addresses(events, {mm: NUMBERS[mm] for mm in known}, forks)
    assert (mine, walked["first"].to_list()) == (twin, walks)
    assert mine.items() <= machine.truth.items()


def version(vma: Vma, number: int) -> dict[str, Any]:
    return {
        "vma_id": number,
        "mm": NUMBERS[vma.mm],
        "vm_start": vma.first * PAGE,
        "vm_end": vma.end * PAGE,
        "vm_pgoff": vma.pgoff,
        "anon_pgoff": None,
        "vm_flags": vma.flags,
        "anon_vma": NUMBERS[vma.mm],
        **{"born_since": vma.born[0], "born": vma.born[1], "died_since": vma.died[0], "died": vma.died[1]},
        **dict.fromkeys(("born_seq", "died_seq", "born_ts_ns", "died_ts_ns")),
    }


def state_of(machine: StockMachine) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Lives of intervals, and versions of VMAs, with the windows of their ends."""
    versions = [version(vma, number) for number, vma in enumerate(machine.vmas)]
    lives = []
    for vma, row in zip(machine.vmas, versions, strict=True):
        span = {"first_pgoff": vma.pgoff, "last_pgoff": vma.pgoff + vma.end - vma.first - 1}
        trees = (PARENT, CHILD) if vma.mm == CHILD else (vma.mm,)
        lives += [row | span | {"anon_vma": NUMBERS[tree]} for tree in trees]
    whole = ("mm", "vm_start", "vm_end", "vm_pgoff", "anon_pgoff", "vm_flags", "anon_vma")
    types = {name: pl.UInt64 for name in (*whole, "first_pgoff", "last_pgoff")}
    places = ("born", "died", "born_seq", "died_seq", "born_ts_ns", "died_ts_ns")
    types |= dict.fromkeys((*places, "born_since", "died_since"), pl.Int64)
    return pl.DataFrame(lives, schema_overrides=types), pl.DataFrame(versions, schema_overrides=types)


@given(
    machine=stock_machines(),
    known=st.sampled_from(((1, 2, CHILD), (1, 2, CHILD), (1,))),
    followed=st.sampled_from(((1, 2, CHILD), (1, 2, CHILD), (1,))),
)
@settings(max_examples=40)
def test_bounds_hold_and_the_twin_says_the_same(
    machine: StockMachine, known: tuple[int, ...], followed: tuple[int, ...]
) -> None:
    events, forks = events_of(machine), forks_of(machine)
    lives, versions = state_of(machine)
    entries = migration_entries(events["ev_migration_pte"])
    items, moves = nodes(events, entries, migrations(entries))
    items = numbered(items, known)
    found, walked = determined(items, moves, events["ev_migration_pte"], forks)
    items = items.join(found.select("item", "address"), on="item", how="left", maintain_order="left")
    told = undetermined(
        events,
        items,
        moves,
        walked,
        found.with_columns(
            pl.lit(None, pl.UInt64).alias(name) for name in ("address_page", "vm_pgoff", "linear_page_index")
        ),
        Rebuilt(
            lives,
            versions,
            vmas_at(found, versions),
            pl.Series([NUMBERS[mm] for mm in followed], dtype=pl.UInt64),
            forks,
        ),
        list(BUILTIN.values()),
    )
    twin = bounds_of(
        events,
        State(
            numbers={mm: NUMBERS[mm] for mm in known},
            forks=[(place, NUMBERS[parent], NUMBERS[child]) for place, parent, child in machine.forks],
            followed={NUMBERS[mm] for mm in followed},
            lives=lives.to_dicts(),
            versions=versions.to_dicts(),
            known={(row["rmap_item"], row["born"]): row["address"] for row in found.to_dicts()},
            walked=set(walked["first"]),
        ),
    )
    walk_key = ["enter", "strategy"]
    assert _bounds(told.walk, walk_key, "iterations_total") == twin.totals
    assert _bounds(told.walk, walk_key, "iterations_max") == twin.maxima
    loop_key = [*walk_key, "rmap_item", "born", "search_new_forks"]
    loops = _bounds(told.loop, loop_key, "iterations")
    assert loops == twin.loops
    ranges = told.rmap_item.join(
        items.select("rmap_item", "born", born_ts_ns="ts_ns"), on=["rmap_item", "born_ts_ns"]
    )
    addresses = _bounds(ranges, ["rmap_item", "born"], "address")
    assert addresses == twin.addresses
    for key, (least, most) in addresses.items():
        assert least <= machine.truth[key] <= most
    for key, (least, most) in twin.totals.items():
        assert least <= sum(row[-1] for row in machine.walks[key]) <= most
        assert twin.maxima[key][0] <= max(row[-1] for row in machine.walks[key]) <= twin.maxima[key][1]
        made = {(*key, *row[:3]): row[3] for row in machine.walks[key]}
        own = {loop: bounds for loop, bounds in loops.items() if loop[:2] == key}
        assert made.keys() <= own.keys()
        assert all(least <= made.get(loop, 0) <= most for loop, (least, most) in own.items())


def _bounds(frame: pl.DataFrame, key: list[str], name: str) -> dict[tuple[Any, ...], tuple[int, int]]:
    least, most = (pl.coalesce(name, f"{name}_{end}") for end in ("least", "most"))
    rows = frame.select(*key, least=least, most=most).drop_nulls("most")
    assert rows.select(key).is_unique().all()
    return {row[:-2]: row[-2:] for row in rows.iter_rows()}
