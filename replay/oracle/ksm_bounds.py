"""Bounds of walks that stock events do not determine, one at a time: the twin of ``ksm.undetermined``.

``ksm.undetermined``, ``ksm.candidates`` and ``ksm.hits`` say what may be concluded and why. Slow on purpose.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from replay.oracle.ksm_stock import moves_of, nodes_of, still_nodes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import polars as pl

    from replay.oracle.ksm_stock import Event, Item, Move

PAGE = 4096
LAST_PGOFF = (1 << 64) - 1
LATEST = (1 << 63) - 2
MERGEABLE = 0x80000000
UNMAPPING = (
    *("munmap", "mremap", "mmap", "brk", "madvise", "process_madvise", "prctl"),
    *("execve", "execveat", "exit", "exit_group"),
)

Bounds = tuple[int, int]


@dataclass(frozen=True)
class Run:
    """Pages side by side at which an rmap_item can be; ``pgoff`` and ``vm_pgoff`` of the first one."""

    anon_vma: int
    first: int
    last: int
    pgoff: int
    vm_pgoff: int
    vm_last: int

    def within(self, low: int, high: int) -> Run:
        """The part of it between two pages."""
        first, last = max(self.first, low), min(self.last, high)
        return Run(self.anon_vma, first, last, self.pgoff + first - self.first, self.vm_pgoff, self.vm_last)


@dataclass
class Told:
    """What is said: of walks by (place before the first entry, strategy), of loops by rmap_item and pass too.

    Attributes:
        totals, maxima: Least and most of the sum over the loops, and of the largest loop.
        loops: Least and most of each loop that may have been run.
        addresses: Of an rmap_item, by itself and the place of its merge, the first and the last address.
    """

    totals: dict[tuple[int, str], Bounds] = field(default_factory=dict)
    maxima: dict[tuple[int, str], Bounds] = field(default_factory=dict)
    loops: dict[tuple[int, str, int, int, int], Bounds] = field(default_factory=dict)
    addresses: dict[tuple[int, int], Bounds] = field(default_factory=dict)


@dataclass(frozen=True)
class State:
    """What is known besides the events.

    Attributes:
        numbers: The address space by the pointer of its mm, where it is known.
        forks: Place, parent and child of each fork.
        followed: Address spaces all of whose MERGEABLE VMAs are in ``versions``.
        lives, versions: As ``ksm.windows.in_windows`` gives them.
        known: Address by rmap_item and place of its merge.
        walked: Places of the first entries of the walks that are determined.
    """

    numbers: Mapping[int, int]
    forks: list[tuple[int, int, int]]
    followed: set[int]
    lives: list[Event]
    versions: list[Event]
    known: Mapping[tuple[int, int], int]
    walked: set[int]


def bounds_of(events: Mapping[str, pl.DataFrame], state: State) -> Told:
    """Bounds for the walks of migrations that are not determined, and for rmap_items without an address.

    Args:
        events: The ``ev_*`` tables.
        state: What is known besides.
    """
    moves, came = moves_of(events["ev_migration_pte"].sort("seq").to_dicts())
    items = nodes_of(events, moves, came)
    told = Told()
    family = {mm for _, *both in state.forks for mm in both}
    runs = {item: _runs_of(item, items, events, state) for item in items}
    for item in items:
        if (item.rmap_item, item.born) not in state.known and runs[item]:
            told.addresses[item.rmap_item, item.born] = (
                min(run.first for run in runs[item]) * PAGE,
                max(run.last for run in runs[item]) * PAGE,
            )
    for move in still_nodes(moves, items, state.numbers, family):
        if move.places[0] not in state.walked:
            _bound(move, items, runs, events, state, told)
    return told


# where an rmap_item's page can be --------------------------------------------------


def _runs_of(item: Item, items: list[Item], events: Mapping[str, pl.DataFrame], state: State) -> list[Run]:
    number = state.numbers.get(item.mm)
    address = state.known.get((item.rmap_item, item.born))
    if address is not None:
        page = address // PAGE
        return [
            _run([vma]).within(page, page)
            for vma in state.versions
            if vma["mm"] == number
            and vma["born_since"] < item.merged < vma["died"]
            and vma["vm_start"] <= address < vma["vm_end"]
            and vma["anon_vma"] is not None
        ]
    if number not in state.followed:
        return []
    low, high = _between(item, items, events, state)
    there = [
        vma
        for vma in state.versions
        if vma["mm"] == number
        and vma["born_since"] < item.merged < vma["died"]
        and vma["vm_flags"] & MERGEABLE
        and vma["anon_vma"] is not None
    ]
    there.sort(key=lambda vma: (vma["vm_start"], vma["born_since"], vma["died"]))
    groups: list[list[Event]] = []
    for vma in there:
        last = groups[-1][-1] if groups else None
        if last is not None and last["vm_end"] == vma["vm_start"] and _shape(last) == _shape(vma):
            groups[-1].append(vma)
        else:
            groups.append([vma])
    clipped = [_run(group).within(low, high) for group in groups]
    return [run for run in clipped if run.first <= run.last]


def _shape(vma: Event) -> tuple[int, int]:
    return vma["anon_vma"], vma["vm_pgoff"] - vma["vm_start"] // PAGE


def _run(vmas: list[Event]) -> Run:
    first, last = vmas[0]["vm_start"] // PAGE, vmas[-1]["vm_end"] // PAGE - 1
    pgoff = vmas[0]["vm_pgoff"]
    return Run(vmas[0]["anon_vma"], first, last, pgoff, pgoff, pgoff + (last - first if len(vmas) > 1 else 0))


def _between(item: Item, items: list[Item], events: Mapping[str, pl.DataFrame], state: State) -> Bounds:
    """Pages between which the order puts it in which ksmd scans."""
    starts = events["ev_scan"].filter(is_stop=False)["seq"].to_list()

    def turn(of: Item) -> int:
        return sum(start <= of.merged for start in starts)

    def known(of: Item) -> int | None:
        address = state.known.get((of.rmap_item, of.born))
        return None if address is None else address // PAGE

    scanned = [
        other
        for other in items
        if other.scanned
        and turn(other) == turn(item) > 0
        and state.numbers.get(other.mm) == state.numbers[item.mm]
    ]
    before = [
        page for other in scanned if other.merged < item.merged for page in [known(other)] if page is not None
    ]
    after = [
        page for other in scanned if other.merged > item.merged for page in [known(other)] if page is not None
    ]
    if item.scanned:
        return max(before, default=-1) + 1, min(after, default=LAST_PGOFF + 1) - 1
    pair = [other for other in scanned if other.node == item.node and other.merged < item.merged]
    if not pair:
        return 0, LAST_PGOFF
    partner = max(pair, key=lambda other: other.merged)
    page = known(partner)
    later = [p for other in scanned if other.merged > partner.merged for p in [known(other)] if p is not None]
    return 0, min(later, default=LAST_PGOFF + 1) - 1 if page is None else page - 1


# which migrations, and what their hits tell ----------------------------------------


def _least_listed(addresses: list[int]) -> int:
    needed = [
        max(second, len([key for key, _ in groupby(addresses[second:])]))
        for second in range(len(addresses) + 1)
    ]
    return max(min(needed), len(set(addresses)))


def _one_pass(move: Move, items: list[Item], events: Mapping[str, pl.DataFrame], state: State) -> bool:
    """Under full, the first walk ended at its last hit."""
    before = [item for item in items if item.node == move.node and item.merged < move.places[0]]
    spaces = {state.numbers.get(item.mm) for item in before}
    since = min(item.merged for item in before)
    forked = any(parent in spaces and since < at < move.places[0] for at, parent, _ in state.forks)
    if len(spaces) != 1 or None in spaces or forked or move.restored in (None, move.pfn):
        return False
    last, begin = move.places[-1], move.begin or 0
    if any(last < seq < begin for seq in events["ev_fault"]["seq"]):
        return False
    calls = events["ev_syscall"].filter(events["ev_syscall"]["name"].is_in(UNMAPPING)).to_dicts()
    under_way = 0
    for call in calls:
        under_way += (not call["is_exit"] and call["seq"] < begin) - (call["is_exit"] and call["seq"] < last)
    for end in events["ev_task"].filter(kind="exit").to_dicts():
        own = [call for call in calls if call["pid"] == end["pid"] and call["seq"] < end["seq"]]
        under_way -= bool(own) and not own[-1]["is_exit"] and end["seq"] < last
    return under_way <= 0


# bounds ------------------------------------------------------------------------------


def _bound(
    move: Move,
    items: list[Item],
    runs: dict[Item, list[Run]],
    events: Mapping[str, pl.DataFrame],
    state: State,
    told: Told,
) -> None:
    """Tell the bounds of the walks of one migration."""
    first, last = move.places[0], move.places[-1]
    listed = [
        item
        for item in items
        if item.node == move.node and item.born < first and (item.died is None or item.died > last)
    ]
    pages = sorted({address // PAGE for address in move.addresses})
    if not all(runs[item] for item in listed):
        return
    hits = {item: [run for run in runs[item] if _inside(run, pages)] for item in listed}
    able = [item for item in listed if hits[item]]
    count = _least_listed(move.addresses)
    everywhere = [run for item in listed for run in runs[item]]
    if len(able) < count or any(
        not any(run.first <= page <= run.last for run in everywhere) for page in pages
    ):
        return
    surely = len(able) == count
    where = dict(runs)
    for item in able if surely else ():
        where[item] = hits[item] = [_around_hits(run, pages) for run in hits[item]]
    one_pass = _one_pass(move, items, events, state)
    walks = [(move.places[0], move.places[-1], False)]
    if move.begin is not None and move.end is not None:
        walks.append((move.begin, move.end, True))
    for begin, end, restores in walks:
        span = _around(events, move.pid, begin, end)
        for strategy in LOOKUPS:
            most = {item: _count(state.lives, where[item], strategy, span)[1] for item in listed}
            least = {item: _count(state.lives, hits[item], strategy, span)[0] for item in able}
            fewest = sorted(least.values())[:count]
            early = min(fewest[0], 1)
            passes = 1 if strategy == "full" and one_pass and not restores else 2
            key = (begin - 1, strategy)
            low = 2 * sum(fewest) if restores else sum(fewest[:-1]) + early
            told.totals[key] = (low, passes * sum(most.values()))
            told.maxima[key] = (fewest[-1] if restores else max([early, *fewest[:-1]]), max(most.values()))
            for item in listed:
                for second in range(passes):
                    low = 0
                    if surely and item in able and (restores or not second):
                        low = least[item] if restores else min(least[item], 1)
                    told.loops[*key, item.rmap_item, item.born, second] = (low, most[item])


def _count(lives: list[Event], runs: list[Run], strategy: str, span: Bounds) -> Bounds:
    """Least and most intervals that a lookup for one of these pages meets."""
    found = [_met(lives, run.anon_vma, asked, *span) for run in runs for asked in LOOKUPS[strategy](run)]
    return min(least for least, _ in found), max(most for _, most in found)


def _inside(run: Run, pages: list[int]) -> list[int]:
    return [page for page in pages if run.first <= page <= run.last]


def _around_hits(run: Run, pages: list[int]) -> Run:
    inside = _inside(run, pages)
    return run.within(inside[0], inside[-1])


LOOKUPS: Final[Mapping[str, Callable[[Run], list[Bounds]]]] = {
    "full": lambda run: [(0, LAST_PGOFF)],
    "addr": lambda run: [(page, page) for page in range(run.first, run.last + 1)],
    "vm_pgoff": lambda run: [(page, page) for page in range(run.vm_pgoff, run.vm_last + 1)],
    "linear": lambda run: [(page, page) for page in range(run.pgoff, run.pgoff + run.last - run.first + 1)],
}


"""The ranges of page offsets that a strategy may look up for a page out of a range of pages."""


def _met(lives: list[Event], anon_vma: int, asked: Bounds, after: int, until: int) -> Bounds:
    """Intervals that a lookup meets for sure, and possibly, at an instant of the span."""
    there = [
        life
        for life in lives
        if life["anon_vma"] == anon_vma
        and life["first_pgoff"] <= asked[1]
        and life["last_pgoff"] >= asked[0]
        and life["born_since"] < until
        and life["died"] > after
    ]
    return sum(life["born"] <= after and life["died_since"] >= until for life in there), len(there)


def _around(events: Mapping[str, pl.DataFrame], pid: int, begin: int, end: int) -> Bounds:
    """The task's events before and after."""
    own = [
        seq
        for name, frame in events.items()
        if not name.startswith("ev_obs_")
        for seq in frame.filter(pid=pid)["seq"].to_list()
    ]
    before, after = [seq for seq in own if seq < begin], [seq for seq in own if seq > end]
    return max(before, default=-1), min(after, default=LATEST)
