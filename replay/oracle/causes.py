"""The oracle's causes: the change after which a lookup passed a mapping by, by looking at every interval.

Slow and obvious on purpose, and shares no code with the columns that it checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

from replay.oracle.pages import Spaces
from replay.oracle.state import AFTER, BEFORE, PAGE_SIZE
from replay.oracle.walks import STRATEGIES, Walks, lookup
from replay.oracle.whole import read, under

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from replay.oracle.state import Interval, Item, State

    Rows: TypeAlias = list[dict[str, Any]]


def turning_points(
    events: Mapping[str, pa.Table | Rows], strategies: Sequence[str] = STRATEGIES
) -> list[tuple[int | None, bool]]:
    """For each row of table ``miss`` the place of the change, and whether it ended a VMA's place on the tree.

    Args:
        events: The ``ev_*`` tables by name, as tables or as lists of rows.
        strategies: Names, in the order of the results.

    Returns:
        In the order of the table; place None: it began before the capture, or is not known.
    """
    state, ordered = read(events)
    walks = Walks(state, Spaces(state.intervals, state.items, ordered))
    told: list[tuple[int | None, bool]] = []
    for each in walks.replays:
        full = walks.calls(each, "full", each.instants)
        for strategy in strategies:
            for page, item, interval in under(walks, each, strategy, full)[1]:
                (instant,) = {
                    each.instants[position]
                    for met, position, of, node in full
                    if met == page and of is item and node is interval
                }
                asked = lookup(strategy, item)
                assert asked is not None
                told.append(_turned(state, walks.spaces, interval, instant, page[1], asked, item))
    return told


def _lineage(interval: Interval) -> int:
    """Page offsets and addresses of one lineage go together; mremap() starts another one."""
    return int(interval.vm_start // PAGE_SIZE - interval.first)


def _turned(
    state: State,
    spaces: Spaces,
    interval: Interval,
    instant: int,
    address: int,
    asked: tuple[int, int],
    item: Item,
) -> tuple[int | None, bool]:
    """The change that made the lookup pass ``interval`` by, there or in the process it was forked from."""
    first, last = asked
    own = [
        each
        for each in state.intervals
        if each.placed
        and (each.anon_vma, each.mm) == (interval.anon_vma, interval.mm)
        and each.holds(address)
    ]
    over = [each for each in own if each.died <= instant and each.first <= last and each.last >= first]
    lineage = [each for each in own if _lineage(each) == _lineage(interval)]
    merged = BEFORE if item.merged_at == AFTER else item.merged_at
    ended = max((each.died for each in over), default=None)
    if ended is not None:
        held = any(each.born <= ended < each.died for each in lineage)
        if held or ended > merged >= 0:
            return ended, True
    since = BEFORE - 1 if ended is None else ended
    begun = min((each for each in lineage if each.born > since), key=lambda each: each.born, default=None)
    if begun is None or begun.born_seq is None:
        return None, False
    parent = spaces.mm_of(begun.row["pid"], begun.born)
    if parent is not None and parent != begun.mm:
        for each in state.intervals:
            held = each.placed and each.holds(address) and each.born < begun.born <= each.died
            if held and (each.anon_vma, each.mm) == (begun.anon_vma, parent):
                return _turned(state, spaces, each, begun.born - 1, address, asked, item)
    return begun.born, False
