"""The slow twin of ``replay.findings.sharing``: nodes filled page by page, walks counted VMA by VMA."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from replay.oracle.nodes import last_place, listed_at, nodes_of, worst_moment
from replay.oracle.pages import Spaces
from replay.oracle.walks import Walks, interval_tree_foreach, lookup
from replay.oracle.whole import read

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from replay.oracle.state import Item


def sharing(
    events: Mapping[str, pa.Table | list[dict[str, Any]]], strategies: Sequence[str], limit: int
) -> dict[str, dict[str, int | None]]:
    """By strategy, the columns of table ``sharing`` that are not bounds or times; empty: nothing is listed.

    Args:
        events: The ``ev_*`` tables by name, as tables or as lists of rows.
        strategies: Names.
        limit: The limit.
    """
    state, ordered = read(events)
    walks = Walks(state, Spaces(state.intervals, state.items, ordered))
    end = last_place(events)
    dups: list[tuple[int, list[Item]]] = []
    for _, items in nodes_of(state, walks.spaces):
        worst = worst_moment(walks, items, end)
        if worst is None:
            continue
        filled: dict[int, list[Item]] = defaultdict(list)
        for item, place in _places(walks.spaces, listed_at(items, worst)):
            filled[place // limit].append(item)
        dups += [(worst, each) for each in filled.values()]
    if not dups:
        return {}
    lengths = [len(each) for _, each in dups]
    shape: dict[str, int | None] = {
        "nodes": len(dups),
        "rmap_items": sum(lengths),
        "rmap_items_max": max(lengths),
        "pages_saved": sum(length - 1 for length in lengths),
    }
    return {name: shape | _walked(walks, dups, name) for name in strategies}


def _places(spaces: Spaces, listed: list[Item]) -> list[tuple[Item, int]]:
    """How many pages came to the node before each item's; one that a fork copied counts as its original."""
    places: list[tuple[Item, int]] = []
    originals: dict[int | None, int] = {}
    copies = []
    for item in sorted(listed, key=lambda item: (item.born, item.died, item.rmap_item)):
        mm, address, before = item.mm, item.address, min(item.born, item.merged_at) - 1
        if mm is None or address is None or item.born < 0:
            is_copy = False  # what was before is not known
        else:
            is_copy = spaces.mapped(mm, address, item.stable_node, before)
        if is_copy:
            copies.append(item)
        else:
            originals.setdefault(item.address, len(places))
            places.append((item, len(places)))
    return [*places, *((item, originals.get(item.address, 0)) for item in copies)]


def _walked(walks: Walks, dups: list[tuple[int, list[Item]]], strategy: str) -> dict[str, int | None]:
    """The longest walk to its end, and the longest loop."""
    loops = [[_iterations(walks, item, strategy, instant) for item in items] for instant, items in dups]
    known = [[count for count in each if count is not None] for each in loops]
    whole = [2 * sum(each) for each, all_ in zip(known, loops, strict=True) if len(each) == len(all_)]
    single = [count for each in known for count in each]
    return {"iterations_total": max(whole, default=None), "iterations_max": max(single, default=None)}


def _iterations(walks: Walks, item: Item, strategy: str, instant: int) -> int | None:
    asked, tree = lookup(strategy, item), walks.tree(item)
    if asked is None or tree is None:
        return None
    return sum(1 for _ in interval_tree_foreach(tree.at(instant), *asked))
