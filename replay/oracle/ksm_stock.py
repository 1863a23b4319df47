"""The rmap_items and walks that stock events determine, one event at a time: the twin of ``ksm.stock``.

``ksm.stock`` says what may be concluded and why. Slow on purpose.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

Event = dict[str, Any]
_FRAME_BITS = 34
_TYPE_SHIFT = 59


@dataclass(eq=False)
class Item:
    """One rmap_item from a merge on; ``node`` is a number, ``died`` None: not in the capture."""

    rmap_item: int
    mm: int
    node: int | None
    born: int
    merged: int
    scanned: bool
    died: int | None = None
    exited: bool = False
    passing: bool = False
    addresses: set[int] = field(default_factory=set)


@dataclass(eq=False)
class Move:
    """The entries of one folio that a walk set; ``begin``, ``end``, ``restored``: of the walk undoing it."""

    pid: int
    pfn: int
    kind: int
    places: list[int] = field(default_factory=list)
    addresses: list[int] = field(default_factory=list)
    begin: int | None = None
    end: int | None = None
    restored: int | None = None
    complete: bool = False
    node: int | None = None


def _frame(row: Event) -> int:
    pte = int(row["pte"])
    if row["is_set"]:
        return ((~pte << 5 & (1 << 64) - 1) >> 14) % (1 << _FRAME_BITS)
    return ((pte if pte & 1 else ~pte) >> 12) % (1 << 40)


def moves_of(rows: list[Event]) -> tuple[list[Move], list[Move]]:
    """Entries of one folio that one task set one after another, with the walk that restored them.

    And the walks that restored what nothing tells.
    """
    sets: list[Move] = []
    restores: list[Move] = []
    open_groups: dict[int, tuple[bool, Move]] = {}
    for row in rows:
        if row["pte"] is None:
            continue
        frame = _frame(row)
        is_set, last = open_groups.get(row["pid"], (None, None))
        kind = int(row["pte"]) >> _TYPE_SHIFT if row["is_set"] else 0
        if last is None or (is_set, last.pfn, last.kind) != (row["is_set"], frame, kind):
            last = Move(row["pid"], frame, kind)
            open_groups[row["pid"]] = (row["is_set"], last)
            (sets if row["is_set"] else restores).append(last)
        last.places.append(row["seq"])
        last.addresses.append(row["address"])
    claims: set[tuple[int, int]] = set()
    for number, move in enumerate(sets):
        for address in move.addresses:
            later = (
                other
                for other, restore in enumerate(restores)
                if restore.pid == move.pid
                and address in restore.addresses
                and restore.places[0] >= move.places[-1]
            )
            claims |= {(number, other) for other in [next(later, None)] if other is not None}
    wanted = Counter(number for number, _ in claims)
    given = Counter(other for _, other in claims)
    known = [(number, other) for number, other in claims if wanted[number] == given[other] == 1]
    for number, other in known:
        move, restore = sets[number], restores[other]
        move.begin, move.end, move.restored = restore.places[0], restore.places[-1], restore.pfn
        move.complete = len(restore.places) == len(move.places)
    told = {other for _, other in known}
    return sets, [restore for other, restore in enumerate(restores) if other not in told]


def nodes_of(events: Mapping[str, pl.DataFrame], moves: list[Move], came: list[Move]) -> list[Item]:
    """The items merged into nodes that began in the capture; tells each move its node."""
    steps: list[tuple[int, str, Any]] = []
    tries = events["ev_merge"].sort("seq").to_dicts()
    for number, row in enumerate(tries):
        following = tries[number + 1] if number + 1 < len(tries) else None
        steps.append((row["seq"], "merge", (row, following)))
    for row in events["ev_ksm_removed"].sort("seq").to_dicts():
        if row["rmap_item"] is None:
            steps.append((row["seq"], "free", row["pfn"]))
    steps += [(row["seq"], "exit", row["mm"]) for row in events["ev_exit_mmap"].to_dicts()]
    steps += [
        (row["seq"], "stop" if row["is_stop"] else "start", None) for row in events["ev_scan"].to_dicts()
    ]
    for move in moves:
        steps.append((move.places[0], "set", move))
        if move.begin is None:
            steps.append((move.places[-1], "gone", move.pfn))
        elif move.restored != move.pfn:
            steps.append((move.begin, "moved", move))
    steps += [(restore.places[0], "gone", restore.pfn) for restore in came]
    held: dict[int, int | None] = {}
    items: list[Item] = []
    latest: dict[int, Item] = {}
    made, first_of_pair = 0, None
    for seq, what, it in sorted(steps, key=lambda step: (step[0], step[1] != "set")):
        if what == "set":
            it.node = held.get(it.pfn)
        elif what == "gone":
            held[it] = None
        elif what in ("exit", "start", "stop"):
            _passed(items, what, it, seq)
        elif what == "moved":
            held[it.pfn], held[it.restored] = None, it.node
        elif what == "free":
            node = held.get(it)
            for item in items:
                if node is not None and item.node == node and item.died is None:
                    item.died = seq
            held[it] = None
        else:
            row, following = it
            makes, previous = not row["ksm_page"], first_of_pair
            is_pair = makes and following is not None and following["err"] == 0
            is_pair = is_pair and bool(following["ksm_page"]) and following["pfn"] == row["pfn"]
            first_of_pair = seq if is_pair and row["err"] == 0 else None
            if row["err"] or (makes and not is_pair):
                continue
            if is_pair:
                made += 1
                held[row["pfn"]] = made
            born = following["seq"] if is_pair else seq if previous is None else previous
            item = Item(row["rmap_item"], row["mm"], held.get(row["pfn"]), born, seq, previous is None)
            before = latest.get(item.rmap_item)
            if before is not None and before.died is None:
                before.died = seq
            latest[item.rmap_item] = item
            items.append(item)
    return [item for item in items if item.node is not None]


def _passed(items: list[Item], what: str, mm: int | None, seq: int) -> None:
    """A pass of ksmd that began when an address space was gone takes all away that was merged from it."""
    for item in items:
        if what == "exit":
            item.exited |= item.mm == mm
        elif what == "start":
            item.passing = item.exited
        elif item.passing and item.died is None:
            item.died = seq


def still_nodes(
    moves: list[Move], items: list[Item], numbers: Mapping[int, int], family: set[int]
) -> list[Move]:
    """The moves whose folio was the node's, and not another one that was given its frame.

    Args:
        moves: Of the capture.
        items: Of the capture.
        numbers: The address space by the pointer of its mm, where it is known.
        family: Address spaces that were forked, and those that it made.
    """
    of_nodes = [move for move in moves if move.node is not None]
    several = [move for move in of_nodes if len(set(move.addresses)) > 1]
    if len({move.kind for move in several}) != 1:
        return []
    found = []
    for move in of_nodes:
        own = [item for item in items if item.node == move.node]
        sole = all(numbers.get(item.mm) not in (None, *family) for item in own)
        later = [item.merged for item in own] + [each.places[0] for each in several if each.node == move.node]
        if move.kind == several[0].kind and (sole or max(later) >= move.places[0]):
            found.append(move)
    return found


def known_addresses(
    events: Mapping[str, pl.DataFrame], numbers: Mapping[int, int], forks: list[tuple[int, int, int]]
) -> tuple[dict[tuple[int, int], int], list[int]]:
    """What is determined.

    Args:
        events: Tables ``ev_merge``, ``ev_ksm_removed`` and ``ev_migration_pte``.
        numbers: The address space by the pointer of its mm, where it is known.
        forks: Place of each fork, the address space that was forked, and the new one.

    Returns:
        Address by (rmap_item, place of its merge), and the places of the first entries of the walks.
    """
    moves, came = moves_of(events["ev_migration_pte"].sort("seq").to_dicts())
    items = nodes_of(events, moves, came)
    whole: list[tuple[Move, list[Item]]] = []
    family = {mm for _, *both in forks for mm in both}
    for move in still_nodes(moves, items, numbers, family):
        if not move.complete:
            continue
        first, last = move.places[0], move.places[-1]
        listed = [
            item
            for item in items
            if item.node == move.node and item.born < first and (item.died is None or item.died > last)
        ]
        before = [item for item in items if item.node == move.node and item.merged < first]
        spaces = {numbers.get(item.mm) for item in before}
        if len(spaces) != 1 or None in spaces:
            continue
        since = min(item.merged for item in before)
        count = len(set(move.addresses))
        if any(parent in spaces and since < place < first for place, parent, _ in forks):
            if not _second_pass_is_told(move.addresses, count):
                continue
        elif len(move.addresses) != count:
            continue
        if len(listed) == count:
            whole.append((move, sorted(listed, key=lambda item: -item.born)))
    for move, listed in whole:
        for item, address in zip(listed, move.addresses, strict=False):
            item.addresses.add(address)
    whole = [each for each in whole if all(len(item.addresses) == 1 for item in each[1])]
    known = {
        (item.rmap_item, item.born): next(iter(item.addresses)) for _, listed in whole for item in listed
    }
    return known, sorted(move.places[0] for move, _ in whole if move.restored != move.pfn)


def _second_pass_is_told(addresses: list[int], count: int) -> bool:
    """The first ``count`` hits are all addresses; the last of them is hit again, but not next."""
    return (
        len(set(addresses[:count])) == count
        and len(addresses) > count
        and addresses[count] != addresses[count - 1]
        and addresses[count - 1] in addresses[count + 1 :]
    )
