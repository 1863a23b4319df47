"""The oracle's walks: rmap_walk_ksm() as the kernel runs it, on the oracle's state.

Slow and obvious on purpose, and shares no code with the columns that it checks.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from replay.oracle.state import PAGE_SIZE, Walk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from replay.oracle.pages import Spaces
    from replay.oracle.state import Interval, Item, Row, State, Tree

    Range: TypeAlias = tuple[int, int]
    Page: TypeAlias = tuple[int, int]
    """(mm, address): one page-table entry."""

ULONG_MAX: Final = (1 << 64) - 1
SETS: Final = "try_to_migrate_one"
RESTORES: Final = "remove_migration_pte"
CALLERS_THAT_END: Final = {SETS, "try_to_unmap_one", "folio_referenced_one"}
STRATEGIES: Final = ("full", "addr", "vm_pgoff", "linear")


def lookup(strategy: str, item: Item) -> Range | None:
    """The page offsets, both inclusive, that a strategy looks up; None: not known."""
    if strategy == "full":
        return 0, ULONG_MAX
    if strategy == "addr":
        point = None if item.address is None else item.address // PAGE_SIZE
    else:
        point = {"vm_pgoff": item.vm_pgoff, "linear": item.linear_page_index}[strategy]
    return None if point is None else (point, point)


def interval_tree_foreach(nodes: list[Interval], first: int, last: int) -> Iterator[Interval]:
    """The nodes that overlap ``[first, last]``, in order."""
    for node in nodes:
        if node.first > last:
            return
        if node.last >= first:
            yield node


@dataclass(eq=False)
class Loop:
    """One inner loop; the counts are None where the range or the tree is not known."""

    item: Item
    search_new_forks: int
    position: int
    range: Range | None
    known: bool
    iterations: int = 0
    skip_addr_out_of_range: int = 0
    skip_mm_mismatch: int = 0
    rmap_one_calls: int = 0
    ended_early: bool = False


@dataclass(eq=False)
class Hit:
    """A page-table entry that the walk set or restored; ``loop`` None: none of its loops can have."""

    pte: Row
    loop: int | None = None
    mm: int | None = None


@dataclass(eq=False)
class Replay:
    """One walk and what is known of it before any strategy."""

    walk: Walk
    items: list[Item]
    hits: list[Hit] = field(default_factory=list)
    pages: dict[Page, bool] = field(default_factory=dict)
    """Mapped pages of the folio; the value: whether a loop can find it."""
    instants: list[int] = field(default_factory=list)

    @property
    def loops(self) -> list[tuple[int, Item]]:
        """(search_new_forks, item) of every loop, by position."""
        return [(new, item) for new in (0, 1) for item in self.items]


class Walks:
    """All walks of a capture.

    Args:
        state: All events read.
        spaces: Address spaces and mappings.
    """

    def __init__(self, state: State, spaces: Spaces) -> None:
        self.state, self.spaces = state, spaces
        walked = {item.anon_vma for item in state.items}
        ends = [
            (seq, ts)
            for each in state.intervals
            if each.placed and each.anon_vma in walked
            for seq, ts in ((each.born_seq, each.born_ts), (each.died_seq, each.died_ts))
            if seq is not None and ts is not None
        ]
        self.changes = sorted(ends)
        self.replays = [Replay(walk, self._hlist(walk)) for walk in state.walks]
        for replay in self.replays:
            replay.hits = self._hits(replay)
        self.watched = any(replay.hits for replay in self.replays)
        for number, replay in enumerate(self.replays):
            migrated = self.watched and self._migrated(number)
            replay.pages = self._pages(replay, migrated=migrated)
            replay.instants = self._instants(replay)

    def asked(self, stable_node: int, instant: int, rmap_one: str) -> Replay:
        """A walk that nobody captured, right after the event at ``instant``: nothing happens meanwhile."""
        entry = {
            "seq": instant,
            "ts_ns": None,
            "stable_node": stable_node,
            "rmap_one": rmap_one,
            "mapcount": None,
        }
        replay = Replay(walk := Walk(entry, exit=instant), self._hlist(walk))
        replay.pages = self._pages(replay, migrated=False)
        replay.instants = [instant] * len(replay.loops)
        return replay

    def _hlist(self, walk: Walk) -> list[Item]:
        """The items on the walk's node, newest first."""
        if walk.stable_node is None:
            return []
        listed = [
            item
            for item in self.state.hlists[walk.stable_node]
            if item.born <= walk.enter and item.gone > walk.exit
        ]
        return sorted(listed, key=lambda item: (item.born, item.died), reverse=True)

    def tree(self, item: Item) -> Tree | None:
        """The tree that the item's loops walk; None: the capture never saw it."""
        return self.state.trees.get(item.anon_vma) if item.anon_vma is not None else None

    def rmap_walk_ksm(
        self,
        replay: Replay,
        strategy: str,
        instants: list[int],
        rmap_one: Callable[[int, Interval], bool],
    ) -> list[Loop]:
        """The kernel's loops. ``rmap_one(position, interval)`` returns whether the walk ends there."""
        loops: list[Loop] = []
        for position, (search_new_forks, item) in enumerate(replay.loops):
            asked, tree = lookup(strategy, item), self.tree(item)
            known = None not in (asked, tree, item.mm, item.address)
            loop = Loop(item, search_new_forks, position, asked, known)
            loops.append(loop)
            if asked is None or tree is None or item.mm is None or item.address is None:
                continue
            for interval in interval_tree_foreach(tree.at(instants[position]), *asked):
                loop.iterations += 1
                if not interval.holds(item.address):
                    loop.skip_addr_out_of_range += 1
                    continue
                if (interval.mm == item.mm) == bool(search_new_forks):
                    loop.skip_mm_mismatch += 1
                    continue
                loop.rmap_one_calls += 1
                if rmap_one(position, interval):
                    loop.ended_early = True
                    return loops
        return loops

    def calls(
        self, replay: Replay, strategy: str, instants: list[int]
    ) -> list[tuple[Page, int, Item, Interval]]:
        """Every rmap_one call of a walk that nothing ends: page, position, item, interval."""
        made: list[tuple[Page, int, Item, Interval]] = []
        loops = replay.loops

        def rmap_one(position: int, interval: Interval) -> bool:
            item = loops[position][1]
            assert interval.mm is not None
            assert item.address is not None
            made.append(((interval.mm, item.address), position, item, interval))
            return False

        self.rmap_walk_ksm(replay, strategy, instants, rmap_one)
        return made

    def _hits(self, replay: Replay) -> list[Hit]:
        """The walk's page-table events, and the loop and mm of each."""
        kind = {SETS: True, RESTORES: False}.get(replay.walk.rmap_one or "")
        hits = [Hit(pte) for pte in replay.walk.ptes if pte["is_set"] is kind]
        needed = Counter(hit.pte["address"] for hit in hits)
        before: Counter[int] = Counter()
        for hit in hits:
            address, seq = hit.pte["address"], hit.pte["seq"]
            nth, before[address] = before[address], before[address] + 1
            possible: dict[int, int] = {}
            for position, (search_new_forks, item) in enumerate(replay.loops):
                tree = self.tree(item)
                if item.address != address or tree is None or item.mm is None:
                    continue
                for interval in tree.at(seq):
                    if interval.holds(address) and (interval.mm == item.mm) != bool(search_new_forks):
                        possible.setdefault(interval.mm, position)
            node = replay.walk.stable_node
            believed = {
                mm: at
                for mm, at in possible.items()
                if self.spaces.mapped(mm, address, node, seq) and not self.spaces.exiting(mm, seq)
            }
            pool = list((believed if len(believed) >= needed[address] else possible).items())
            if nth < len(pool):
                hit.mm, hit.loop = pool[nth]
        return hits

    def _migrated(self, number: int) -> bool:
        """Whether the task's next walk of the node restores the entries on another folio."""
        walk = self.replays[number].walk
        task = (walk.entry["pid"], walk.stable_node)
        for later in self.replays[number + 1 :]:
            if (later.walk.entry["pid"], later.walk.stable_node) == task:
                folios = (walk.entry["folio"], later.walk.entry["folio"])
                return (
                    walk.rmap_one == SETS
                    and later.walk.rmap_one == RESTORES
                    and None not in folios
                    and folios[0] != folios[1]
                )
        return False

    def _pages(self, replay: Replay, *, migrated: bool) -> dict[Page, bool]:
        """The mappings of the folio when the walk began."""
        walk = replay.walk
        pages = {(hit.mm, hit.pte["address"]): True for hit in replay.hits if hit.mm is not None}
        mapcount = walk.entry["mapcount"]
        counted = walk.rmap_one == SETS and mapcount is not None and len(replay.hits) >= mapcount
        if walk.rmap_one == RESTORES or counted:
            return pages
        last_hit = max((hit.pte["seq"] for hit in replay.hits), default=walk.enter)
        met: dict[Page, Tree] = {}
        always: set[Page] = set()
        for page, _, item, interval in self.calls(replay, "full", [walk.enter] * len(replay.loops)):
            tree = self.tree(item)
            assert tree is not None
            met.setdefault(page, tree)
            asked = [lookup(strategy, item) for strategy in STRATEGIES]
            if all(each and each[0] <= interval.last and each[1] >= interval.first for each in asked):
                always.add(page)
        for page, tree in met.items():
            tried = walk.rmap_one == SETS and self.watched and page in always
            if (
                page not in pages
                and (migrated or not tried)
                and self._still(replay, page, tree, last_hit, migrated=migrated)
            ):
                pages[page] = not migrated
        for page, tree in self._unlisted(replay).items():
            if (
                page not in pages
                and page not in met
                and self._still(replay, page, tree, last_hit, migrated=migrated)
            ):
                pages[page] = False
        return pages

    def _still(self, replay: Replay, page: Page, tree: Tree, last_hit: int, *, migrated: bool) -> bool:
        """Whether the page was mapped; of a migrated folio only what went by itself after the last hit."""
        walk = replay.walk
        if migrated:
            vanished = tree.holding(*page, last_hit) and not tree.holding(*page, walk.exit)
            vanished = vanished and not self.spaces.torn_down(page[0], last_hit)
            return bool(vanished) and self.spaces.mapped(*page, walk.stable_node, walk.enter)
        if self.spaces.exiting(page[0], walk.enter) or self.spaces.torn_down(page[0], last_hit):
            return False
        return self.spaces.mapped(*page, walk.stable_node, last_hit)

    def _unlisted(self, replay: Replay) -> dict[Page, Tree]:
        """Pages of every item that the node ever had, in its mm and those forked from it."""
        walk = replay.walk
        found: dict[Page, Tree] = {}
        if walk.stable_node is None:
            return found
        past = [item for item in self.state.hlists[walk.stable_node] if item.merged_at <= walk.enter]
        for item in sorted(past, key=lambda item: item.anon_vma or 0):
            tree = self.tree(item)
            if tree is None or item.mm is None or item.address is None:
                continue
            for mm in self.spaces.family(item.mm, walk.enter):
                if (mm, item.address) not in found and tree.holding(mm, item.address, walk.enter):
                    found[mm, item.address] = tree
        return found

    def ended_at_last_hit(self, replay: Replay) -> bool:
        """Whether the kernel's own walk ended at its last hit."""
        return replay.walk.rmap_one == SETS and 0 < len(replay.pages) <= len(replay.hits)

    def _instants(self, replay: Replay) -> list[int]:
        """The instant of the tree that each loop is answered for."""
        walk, loops = replay.walk, replay.loops
        anchors: list[Range] = [(0, walk.entry["ts_ns"])]
        anchors += [(2 * hit.loop + 1, hit.pte["ts_ns"]) for hit in replay.hits if hit.loop is not None]
        if not self.ended_at_last_hit(replay):
            anchors.append((2 * len(loops), walk.end_ts))
        anchors.sort()
        return [self._instant(replay, position, anchors) for position in range(len(loops))]

    def _instant(self, replay: Replay, position: int, anchors: list[Range]) -> int:
        walk = replay.walk
        own: list[int] = [hit.pte["seq"] for hit in replay.hits if hit.loop == position]
        if own:
            return min(own)
        tree = self.tree(replay.loops[position][1])
        if tree is None or not tree.changed(walk.enter, walk.exit):
            return walk.enter
        place = 2 * position + 1
        p0, t0 = [anchor for anchor in anchors if anchor[0] <= place][-1]
        later = [anchor for anchor in anchors if anchor[0] >= place]
        if not later:
            return walk.exit
        p1, t1 = later[0]
        middle = t0 + (t1 - t0) * (place - p0) // (p1 - p0)
        done = bisect_right(self.changes, middle, key=lambda change: change[1])
        return max(walk.enter, min(walk.exit, self.changes[done - 1][0] if done else -1))
