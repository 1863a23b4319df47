"""The oracle's walks over every stable node: every instant of every node's life is tried.

Slow and obvious on purpose, and shares no code with the columns that it checks.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from replay.oracle.pages import Spaces
from replay.oracle.walks import STRATEGIES, Walks
from replay.oracle.whole import read, under

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from replay.oracle.state import Item, State

    Rows: TypeAlias = list[dict[str, Any]]

KINDS: Final = ("try_to_unmap_one", "walked_to_the_end")
"""The walk that ends once every mapping is met, and the one that does not."""


def every_node(
    events: Mapping[str, pa.Table | Rows], strategies: Sequence[str] = STRATEGIES
) -> dict[str, Rows]:
    """What walks over every stable node would do, at its worst moment and at the end of the events.

    Args:
        events: The ``ev_*`` tables by name, as tables or as lists of rows.
        strategies: Names, in the order of the results.

    Returns:
        ``asked`` (node, moment, stable_node, instant, rmap_items, anon_vmas, mappings, mappings_unlisted),
        ``walk`` (node, moment, rmap_one, strategy, and the counts of table ``walk``), ``miss`` (node,
        moment, strategy, rmap_item, mm, address).
    """
    state, ordered = read(events)
    walks = Walks(state, Spaces(state.intervals, state.items, ordered))
    end = last_place(events)
    rows: dict[str, Rows] = {"asked": [], "walk": [], "miss": []}
    number = -1
    for pointer, items in nodes_of(state, walks.spaces):
        number += 1
        worst = worst_moment(walks, items, end)
        if worst is None:
            continue
        for moment, instant in (("worst", worst), ("end", end)):
            listed = listed_at(items, instant)
            if listed:
                key = {"node": number, "moment": moment}
                _ask(rows, walks, key, pointer, instant, strategies)
    return rows


def last_place(events: Mapping[str, pa.Table | Rows]) -> int:
    """Place of the last event; 0: there is none."""
    tables = (table if isinstance(table, list) else table.to_pylist() for table in events.values())
    return max((row["seq"] for table in tables for row in table), default=0)


def nodes_of(state: State, spaces: Spaces) -> list[tuple[int, list[Item]]]:
    """The items of each life of each stable node; a life ends with remove_node_from_stable_tree()."""
    lives: dict[tuple[int, int], list[Item]] = defaultdict(list)
    for item in state.items:  # in order of birth
        if item.stable_node is not None:
            frees = [seq for seq in spaces.emptied[item.stable_node] if seq < item.died]
            lives[item.stable_node, len(frees)].append(item)
    return [(pointer, items) for (pointer, _), items in lives.items()]


def listed_at(items: list[Item], instant: int) -> list[Item]:
    """The items on the list at an instant."""
    return [item for item in items if item.born <= instant < item.gone]


def worst_moment(walks: Walks, items: list[Item], end: int) -> int | None:
    """The first instant, up to ``end``, at which a walk over the node costs most; None: it had no item."""
    life = range(max(0, min(item.born for item in items)), min(end, max(item.gone for item in items) - 1) + 1)
    costs = [_cost(walks, items, instant) for instant in life]
    return life[costs.index(max(costs))] if life else None


def _cost(walks: Walks, items: list[Item], instant: int) -> int:
    """Iterations of one pass over the whole trees."""
    trees = [walks.tree(item) for item in listed_at(items, instant)]
    return sum(len(tree.at(instant)) for tree in trees if tree is not None)


def _ask(
    rows: dict[str, Rows],
    walks: Walks,
    key: dict[str, Any],
    pointer: int,
    instant: int,
    strategies: Sequence[str],
) -> None:
    """Both kinds of walks under every strategy."""
    for rmap_one in KINDS:
        each = walks.asked(pointer, instant, rmap_one)
        full = walks.calls(each, "full", each.instants)
        for strategy in strategies:
            loops, missed = under(walks, each, strategy, full)
            known = all(loop.known for loop in loops)
            counts = {
                "loops": len(loops),
                "iterations_total": sum(loop.iterations for loop in loops),
                "iterations_max": max(loop.iterations for loop in loops),
                "skip_addr_out_of_range_max": max(loop.skip_addr_out_of_range for loop in loops),
                "skip_mm_mismatch_max": max(loop.skip_mm_mismatch for loop in loops),
                "rmap_one_calls": sum(loop.rmap_one_calls for loop in loops),
                "mappings_missed": len(missed),
            }
            row = {**key, "rmap_one": rmap_one, "strategy": strategy}
            rows["walk"].append(row | (counts if known else dict.fromkeys(counts)))
            if rmap_one == KINDS[1]:
                rows["miss"] += [
                    {**key, "strategy": strategy, "rmap_item": item.rmap_item, "mm": mm, "address": address}
                    for (mm, address), item, _ in missed
                ]
    rows["asked"].append(
        {
            **key,
            "stable_node": pointer,
            "instant": instant,
            "rmap_items": len(each.items),
            "anon_vmas": len({item.anon_vma for item in each.items}),
            "mappings": sum(each.pages.values()),
            "mappings_unlisted": sum(not listed for listed in each.pages.values()),
        }
    )
