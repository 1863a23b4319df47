"""The oracle: the whole replay again, slow and obvious, for tests to compare the fast code with.

Plain Python, one event at a time in order of ``seq``; sorted lists for interval trees, lists for hlists;
loops, checks and names as in mm/ksm.c rmap_walk_ksm(). It shares no code with the columns: state is in
``oracle.state``, address spaces and mapped pages in ``oracle.pages``, walks in ``oracle.walks``.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, TypeAlias

from replay.oracle.pages import Spaces
from replay.oracle.state import State
from replay.oracle.walks import CALLERS_THAT_END, STRATEGIES, Walks, lookup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from replay.oracle.state import Interval, Item, Row
    from replay.oracle.walks import Loop, Page, Replay

    Rows: TypeAlias = list[dict[str, Any]]


def replay(events: Mapping[str, pa.Table | Rows], strategies: Sequence[str] = STRATEGIES) -> dict[str, Rows]:
    """Rows of the tables ``avc``, ``vma``, ``rmap_item``, ``loop``, ``walk`` and ``miss``.

    Args:
        events: The ``ev_*`` tables by name, as tables or as lists of rows.
        strategies: Names, of ``full``, ``addr``, ``vm_pgoff``, ``linear``, in the order of the results.

    Returns:
        The columns of ``schemas``; no ``observed`` rows; ``predicted_ns`` null, of misses no causes.
        Order: avc and rmap_item by birth, vma by vma_id, the others by walk, strategy and place in the walk.
    """
    state, ordered = read(events)
    vma = vma_versions(state.intervals)
    walks = Walks(state, Spaces(state.intervals, state.items, ordered))
    tables: dict[str, Rows] = {
        "avc": [_avc(each) for each in state.intervals],
        "vma": vma,
        "rmap_item": [_rmap_item(each) for each in state.items],
        "loop": [],
        "walk": [],
        "miss": [],
    }
    for walk_id, each in enumerate(walks.replays):
        full = walks.calls(each, "full", each.instants)
        for strategy in strategies:
            loops, missed = under(walks, each, strategy, full)
            known = all(loop.known for loop in loops) and _shown(state, each)
            misses = [_miss(each, walk_id, strategy, *call) for call in missed]
            tables["loop"] += [_loop(walk_id, each, strategy, loop) for loop in loops]
            tables["miss"] += misses
            tables["walk"].append(_walk(walk_id, each, strategy, loops, len(misses) if known else None))
    return tables


def _shown(state: State, each: Replay) -> bool:
    """Whether an rmap_item of the walk's stable node was seen by then; else nothing is known of its list."""
    node = each.walk.stable_node
    return node is not None and any(item.born <= each.walk.enter for item in state.hlists.get(node, []))


def read(events: Mapping[str, pa.Table | Rows]) -> tuple[State, list[tuple[str, Row]]]:
    """The state that the events leave, and the events in order, each with the name of its table."""
    ordered = sorted(
        (
            (name, row)
            for name, table in events.items()
            if not name.startswith("ev_obs_")
            for row in (table if isinstance(table, list) else table.to_pylist())
        ),
        key=lambda event: event[1]["seq"],
    )
    state = State(returns=any(name == "ev_item_remove" and row["is_return"] for name, row in ordered))
    for name, row in ordered:
        state.event(name, row)
    state.close()
    return state, ordered


def under(
    walks: Walks, each: Replay, strategy: str, full: list[tuple[Page, int, Item, Interval]]
) -> tuple[list[Loop], list[tuple[Page, Item, Interval]]]:
    """The loops of one walk under one strategy, and what it misses that the whole tree would show."""
    mapped = set(each.pages)
    may_end = each.walk.rmap_one in CALLERS_THAT_END
    items = [item for _, item in each.loops]

    def rmap_one(position: int, interval: Interval) -> bool:
        """Meets a mapping; whether none is left (done(), or folio_referenced_one()'s mapcount)."""
        page = (interval.mm, items[position].address)
        if page not in mapped or not each.pages[page]:
            return False
        mapped.remove(page)
        return may_end and not mapped

    loops = walks.rmap_walk_ksm(each, strategy, each.instants, rmap_one)
    found = {page for page, *_ in walks.calls(each, strategy, each.instants)}
    unknown = {item.address for item in items if lookup(strategy, item) is None}
    missed: dict[Page, tuple[Item, Interval]] = {}
    for page, _, item, interval in full:
        if each.pages.get(page) and page not in found and page[1] not in unknown:
            missed.setdefault(page, (item, interval))
    return loops, [(page, *missed[page]) for page in sorted(missed)]


def vma_versions(intervals: list[Interval]) -> Rows:
    """Versions of VMAs: each a time in which the VMA is on some tree. Numbers the intervals' versions."""
    tree_age = tree_ages(intervals)
    of_vma: dict[int, list[Interval]] = defaultdict(list)
    for each in intervals:
        of_vma[each.vma].append(each)
    versions: list[list[Interval]] = []
    for lives in of_vma.values():
        until = None
        for each in lives:
            if until is None or each.born > until:
                versions.append([])
                until = each.died
            versions[-1].append(each)
            until = max(until, each.died)
    versions.sort(key=lambda version: (version[0].born, version[0].vma))
    rows: Rows = []
    for vma_id, version in enumerate(versions):
        for each in version:
            each.vma_id = vma_id
        rows.append(_version(vma_id, version, tree_age))
    return rows


def tree_ages(intervals: list[Interval]) -> dict[Interval, int]:
    """When the anon_vma of each interval began: it is freed with its last one, and its memory used again."""
    ages: dict[Interval, int] = {}
    on_tree: dict[int, list[Interval]] = defaultdict(list)
    for each in intervals:  # in order of birth
        before = on_tree[each.anon_vma]
        ages[each] = each.born
        if any(other.died >= each.born for other in before):
            ages[each] = ages[before[-1]]
        elif before:
            last = max(before, key=lambda other: other.died)
            edge = each.vm_start == last.vm_start or each.vm_end == last.vm_end
            known = None not in (each.mm, each.vm_start, each.vm_end)
            if known and (last.avc, last.mm) == (each.avc, each.mm) and edge:
                ages[each] = ages[before[-1]]  # it only left for a moment
        before.append(each)
    return ages


def _version(vma_id: int, version: list[Interval], tree_age: dict[Interval, int]) -> dict[str, Any]:
    """One row of ``vma``: from its first interval; its own anon_vma is the one seen last."""
    first, last = version[0], max(version, key=lambda each: each.died)
    own = max(version, key=lambda each: (tree_age[each], each.anon_vma))
    return {
        "vma_id": vma_id,
        "vma": first.vma,
        "mm": first.mm,
        "vm_start": first.vm_start,
        "vm_end": first.vm_end,
        "vm_pgoff": first.vm_pgoff,
        "anon_pgoff": first.row["anon_pgoff"],
        "vm_flags": first.row["vm_flags"],
        "anon_vma": own.anon_vma,
        "born_ts_ns": first.born_ts,
        "died_ts_ns": last.died_ts,
        "cause_event": first.call,
        "evidence": "exact",
    }


def _avc(each: Interval) -> dict[str, Any]:
    return {
        "avc": each.avc,
        "anon_vma": each.anon_vma,
        "vma_id": each.vma_id,
        "mm": each.mm,
        "first_pgoff": each.first,
        "last_pgoff": each.last,
        "vm_start": each.vm_start,
        "vm_end": each.vm_end,
        "born_ts_ns": each.born_ts,
        "died_ts_ns": each.died_ts,
        "born_seq": each.born_seq,
        "died_seq": each.died_seq,
        "evidence": "exact",
        "uncertain": None,
    }


def _rmap_item(each: Item) -> dict[str, Any]:
    return {
        "rmap_item": each.rmap_item,
        "stable_node": each.stable_node,
        "mm": each.mm,
        "address": each.address,
        "anon_vma": each.anon_vma,
        "kpfn": each.kpfn,
        "vm_pgoff": each.vm_pgoff,
        "linear_page_index": each.linear_page_index,
        "born_ts_ns": each.born_ts,
        "died_ts_ns": each.died_ts,
        "evidence": "exact",
        "uncertain": None,
    }


def _loop(walk_id: int, each: Replay, strategy: str, loop: Loop) -> dict[str, Any]:
    first, last = loop.range or (None, None)
    return {
        "walk_id": walk_id,
        "ts_ns": each.walk.entry["ts_ns"],
        "stable_node": each.walk.stable_node,
        "rmap_item": loop.item.rmap_item,
        "anon_vma": loop.item.anon_vma,
        "mm": loop.item.mm,
        "address": loop.item.address,
        "search_new_forks": loop.search_new_forks,
        "strategy": strategy,
        "first_pgoff": first,
        "last_pgoff": last,
        "iterations": loop.iterations if loop.known else None,
        "skip_addr_out_of_range": loop.skip_addr_out_of_range if loop.known else None,
        "skip_mm_mismatch": loop.skip_mm_mismatch if loop.known else None,
        "rmap_one_calls": loop.rmap_one_calls if loop.known else None,
        "ended_early": loop.ended_early if loop.known else None,
        "observed_ns": None,
        "predicted_ns": None,
    }


def _walk(walk_id: int, each: Replay, strategy: str, loops: list[Loop], missed: int | None) -> dict[str, Any]:
    """Sums and maxima; null (as ``missed`` is) where one is not known; no loop has no maximum."""
    entry: Row = each.walk.entry
    known = missed is not None
    return {
        "walk_id": walk_id,
        "ts_ns": entry["ts_ns"],
        "end_ns": each.walk.end_ts,
        "cpu": entry["cpu"],
        "pid": entry["pid"],
        "comm": entry["comm"],
        "folio": entry["folio"],
        "stable_node": each.walk.stable_node,
        "caller": each.walk.rmap_one,
        "strategy": strategy,
        "loops": len(loops) if known else None,
        "iterations_total": sum(loop.iterations for loop in loops) if known else None,
        **{
            f"{name}_max": max(getattr(loop, name) for loop in loops) if known and loops else None
            for name in ("iterations", "skip_addr_out_of_range", "skip_mm_mismatch")
        },
        "rmap_one_calls": sum(loop.rmap_one_calls for loop in loops) if known else None,
        "mappings_missed": missed,
        "observed_ns": each.walk.end_ts - entry["ts_ns"],
        "held_up_ns": None,
        "predicted_ns": None,
        "predicted_low_ns": None,
        "predicted_high_ns": None,
        "uncertain": None,
    }


def _miss(
    each: Replay, walk_id: int, strategy: str, page: Page, item: Item, interval: Interval
) -> dict[str, Any]:
    first, last = lookup(strategy, item) or (None, None)
    hits = {(hit.mm, hit.pte["address"]) for hit in each.hits}
    return {
        "walk_id": walk_id,
        "strategy": strategy,
        "rmap_item": item.rmap_item,
        "mm": page[0],
        "address": page[1],
        "vm_start": interval.vm_start,
        "vm_end": interval.vm_end,
        "first_pgoff": first,
        "last_pgoff": last,
        "mapped_by": "migration_entry" if page in hits else "merge" if page[0] == item.mm else "fork",
    }
