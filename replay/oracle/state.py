"""The oracle's state: events read one by one into lives of intervals, rmap_items and walks.

Slow and obvious on purpose, and shares no code with the columns that it checks. Methods are called like
the kernel functions whose events they take.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    Row: TypeAlias = Mapping[str, Any]

PAGE_SIZE: Final = 4096
STABLE_FLAG: Final = 0x200
BEFORE: Final = -1
AFTER: Final = (1 << 63) - 1


@dataclass(eq=False)
class Interval:
    """One life of one anon_vma_chain on its tree; ``born``/``died`` are BEFORE/AFTER where not seen."""

    row: Row
    born: int
    died: int = AFTER
    born_ts: int | None = None
    died_ts: int | None = None
    removed_by: int | None = None
    call: str | None = None
    vma_id: int | None = None

    def __post_init__(self) -> None:
        """Takes the fields of the event that tells of the interval."""
        row = self.row
        self.avc, self.vma, self.anon_vma, self.mm = row["avc"], row["vma"], row["anon_vma"], row["mm"]
        self.vm_start, self.vm_end, self.vm_pgoff = row["vm_start"], row["vm_end"], row["vm_pgoff"]
        self.first: Any = self.vm_pgoff if row["anon_pgoff"] is None else row["anon_pgoff"]
        self.last: Any = None
        if None not in (self.first, self.vm_start, self.vm_end):
            self.last = self.first + (self.vm_end - self.vm_start) // PAGE_SIZE - 1

    @property
    def placed(self) -> bool:
        """Whether the capture tells enough to put it on a tree."""
        return self.last is not None and self.mm is not None

    @property
    def born_seq(self) -> int | None:
        """Place of the insertion; None: not seen."""
        return None if self.born_ts is None else self.born

    @property
    def died_seq(self) -> int | None:
        """Place of the removal; None: not seen."""
        return None if self.died == AFTER else self.died

    def holds(self, address: int) -> bool:
        """Whether the address lies in the VMA."""
        return bool(self.vm_start <= address < self.vm_end)


@dataclass(eq=False)
class Item:
    """One life of one rmap_item on the hlist of a stable node."""

    rmap_item: int
    stable_node: int | None
    mm: int | None
    address: int | None
    anon_vma: int | None
    born: int
    born_ts: int | None = None
    kpfn: int | None = None
    linear_page_index: int | None = None
    vm_pgoff: int | None = None
    died: int = AFTER
    died_ts: int | None = None
    gone: int = AFTER
    merged_at: int = AFTER

    def die(self, row: Row, *, gone: bool) -> None:
        """It leaves the hlist: at once, or (``gone`` False) when its removal returns."""
        self.died, self.died_ts = row["seq"], row["ts_ns"]
        if gone:
            self.gone = row["seq"]


@dataclass(eq=False)
class Walk:
    """One rmap_walk_ksm(), entry and return."""

    entry: Row
    exit: int = AFTER
    end_ts: int = AFTER
    ptes: list[Row] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Takes the fields of the entry."""
        self.enter: int = self.entry["seq"]
        self.stable_node: int | None = self.entry["stable_node"]
        self.rmap_one: str | None = self.entry["rmap_one"]


class Tree:
    """The interval tree of one anon_vma as a sorted list, which can be brought to any instant."""

    def __init__(self) -> None:
        self._changes: list[tuple[int, int, int, Interval]] = []
        self._places: list[int] = []
        self._nodes: list[Interval] = []
        self.seen: list[int] = []

    def add(self, interval: Interval) -> None:
        """One life; at one place of the order, what dies goes before what is born."""
        self._changes.append((interval.born, 1, interval.died, interval))
        if interval.died != AFTER:
            self._changes.append((interval.died, 0, 0, interval))
        self.seen += [seq for seq in (interval.born_seq, interval.died_seq) if seq is not None]

    def close(self) -> None:
        """All lives are added."""
        self._changes.sort(key=lambda change: change[:3])
        self.seen.sort()

    def at(self, instant: int) -> list[Interval]:
        """The nodes in order, as the event at ``instant`` left them. Good until the next call."""
        while len(self._places) < len(self._changes) and self._changes[len(self._places)][0] <= instant:
            _, insert, _, interval = self._changes[len(self._places)]
            if insert:
                # interval_tree_insert(): right on equal
                place = bisect_right(self._nodes, interval.first, key=lambda node: node.first)
                self._nodes.insert(place, interval)
            else:
                place = bisect_left(self._nodes, interval.first, key=lambda node: node.first)
                while self._nodes[place] is not interval:
                    place += 1
                del self._nodes[place]
            self._places.append(place)
        while self._places and self._changes[len(self._places) - 1][0] > instant:
            _, insert, _, interval = self._changes[len(self._places) - 1]
            place = self._places.pop()
            if insert:
                del self._nodes[place]
            else:
                self._nodes.insert(place, interval)
        return self._nodes

    def holding(self, mm: int, address: int, instant: int) -> list[Interval]:
        """The VMAs of ``mm`` that hold ``address``, in order."""
        return [node for node in self.at(instant) if node.mm == mm and node.holds(address)]

    def changed(self, after: int, until: int) -> bool:
        """Whether an insertion or a removal was seen in ``(after, until]``."""
        return bisect_right(self.seen, until) > bisect_right(self.seen, after)


class State:
    """Everything that the events tell, in order."""

    def __init__(self, *, returns: bool) -> None:
        self.returns = returns
        """Whether the capture has returns of remove_rmap_item_from_tree()."""
        self.intervals: list[Interval] = []
        self.items: list[Item] = []
        self.walks: list[Walk] = []
        self.trees: dict[int, Tree] = defaultdict(Tree)
        self.hlists: dict[int | None, list[Item]] = defaultdict(list)
        """All items that ever were on each stable node."""
        self._inside: dict[int, Interval] = {}
        self._last_of_avc: dict[int, int] = {}
        self._call: dict[int, str | None] = {}
        self._live: dict[int, Item] = {}
        self._previous: dict[int, Item] = {}
        self._merged: dict[int, int] = {}
        self._leaving: dict[int, list[Item]] = defaultdict(list)
        self._walking: dict[int, Walk] = {}

    def event(self, table: str, row: Row) -> None:
        """One event of any table."""
        if not self.returns:
            self._left(row)
        if table == "ev_avc":
            (self.interval_tree_insert if row["is_insert"] else self.interval_tree_remove)(row)
        elif table == "ev_syscall":
            self._call[row["pid"]] = None if row["is_exit"] else row["name"]
        elif table == "ev_merge" and row["err"] == 0:
            self._merged[row["rmap_item"]] = row["seq"]
        elif table == "ev_append":
            self.stable_tree_append(row)
        elif table == "ev_item_remove":
            if row["is_return"]:
                self._left(row)
            elif row["address"] is None or row["address"] & STABLE_FLAG:
                self.remove_rmap_item_from_tree(row)
        elif table == "ev_node_remove":
            self.remove_node_from_stable_tree(row)
        elif table == "ev_walk":
            self.rmap_walk_ksm(row)
        elif table == "ev_migration_pte" and row["pid"] in self._walking:
            self._walking[row["pid"]].ptes.append(row)

    def interval_tree_insert(self, row: Row) -> None:
        """An avc goes onto a tree; if it is on one, its removal was lost."""
        self._take_out(row)
        interval = Interval(row, born=row["seq"], born_ts=row["ts_ns"], call=self._call.get(row["pid"]))
        self._inside[row["avc"]] = interval
        self.intervals.append(interval)
        self._last_of_avc[row["avc"]] = row["seq"]

    def interval_tree_remove(self, row: Row) -> None:
        """An avc leaves its tree; if it was on none, it was there since its last event, or always."""
        if not self._take_out(row):
            born = self._last_of_avc.get(row["avc"], BEFORE)
            censored = Interval(row, born=born, died=row["seq"], died_ts=row["ts_ns"])
            censored.removed_by = row["pid"]
            self.intervals.append(censored)
        self._last_of_avc[row["avc"]] = row["seq"]

    def _take_out(self, row: Row) -> bool:
        interval = self._inside.pop(row["avc"], None)
        if interval is not None:
            interval.died, interval.died_ts, interval.removed_by = row["seq"], row["ts_ns"], row["pid"]
        return interval is not None

    def stable_tree_append(self, row: Row) -> None:
        """An rmap_item goes onto a node's hlist; where it was until now, it is gone from."""
        pointer, seq = row["rmap_item"], row["seq"]
        if pointer in self._live:
            self._live.pop(pointer).die(row, gone=True)
        item = Item(
            pointer,
            row["stable_node"],
            row["mm"],
            row["address"] // PAGE_SIZE * PAGE_SIZE,
            row["anon_vma"],
            born=seq,
            born_ts=row["ts_ns"],
            kpfn=row["kpfn"],
            linear_page_index=row["linear_page_index"],
        )
        previous = self._previous.get(pointer)
        merged = self._merged.get(pointer, BEFORE)
        item.merged_at = merged if merged > (previous.born if previous else BEFORE) else seq
        self._add(item, row)
        self._live[pointer] = item

    def _add(self, item: Item, row: Row) -> None:
        """A new life of the rmap_item tells that the one before is over."""
        previous = self._previous.get(item.rmap_item)
        if previous is not None:
            previous.gone = min(previous.gone, row["seq"])
        self.items.append(item)
        self.hlists[item.stable_node].append(item)
        self._previous[item.rmap_item] = item

    def remove_rmap_item_from_tree(self, row: Row) -> None:
        """A stable item begins to leave; one that is on no node was there before the capture."""
        pointer = row["rmap_item"]
        item = self._live.pop(pointer, None)
        if item is None:
            previous = self._previous.get(pointer)
            address = row["address"]
            item = Item(
                pointer,
                row["head"],
                row["mm"],
                None if address is None else address // PAGE_SIZE * PAGE_SIZE,
                row["anon_vma"],
                born=previous.died if previous else BEFORE,
            )
            item.merged_at = item.born
            self._add(item, row)
        item.die(row, gone=False)
        self._leaving[row["pid"]].append(item)

    def _left(self, row: Row) -> None:
        """The task's removals have returned."""
        for item in self._leaving.pop(row["pid"], ()):
            item.gone = min(item.gone, row["seq"])

    def remove_node_from_stable_tree(self, row: Row) -> None:
        """A node is emptied: nothing of it is on its hlist any more."""
        for item in self.hlists[row["stable_node"]]:
            if item.died == AFTER:
                item.die(row, gone=True)
                del self._live[item.rmap_item]
            item.gone = min(item.gone, row["seq"])

    def rmap_walk_ksm(self, row: Row) -> None:
        """An entry opens a walk of the task; only a return, if it comes next, makes it whole."""
        walk = self._walking.pop(row["pid"], None)
        if not row["is_return"]:
            self._walking[row["pid"]] = Walk(row)
        elif walk is not None:
            walk.exit, walk.end_ts = row["seq"], row["ts_ns"]
            self.walks.append(walk)

    def close(self) -> None:
        """All events are read: sort what was collected and plant the trees."""
        self.intervals.sort(key=lambda each: (each.born, each.died, each.avc))
        self.items.sort(key=lambda each: (each.born, each.died, each.rmap_item))
        self.walks.sort(key=lambda each: each.enter)
        for interval in self.intervals:
            tree = self.trees[interval.anon_vma]
            if interval.placed:
                tree.add(interval)
        for tree in self.trees.values():
            tree.close()
        for item in self.items:
            if item.born_ts is not None:
                self._try_to_merge_with_ksm_page(item)

    def _try_to_merge_with_ksm_page(self, item: Item) -> None:
        """What the VMA told at the merge: 6.12 vm_pgoff, 7.3 linear_page_index."""
        if item.anon_vma not in self.trees or item.mm is None or item.address is None:
            return
        held = self.trees[item.anon_vma].holding(item.mm, item.address, item.merged_at)
        if not held:
            return
        vma = max(held, key=lambda each: (each.born, each.died))
        item.vm_pgoff = vma.vm_pgoff
        if item.linear_page_index is None:
            item.linear_page_index = vma.first + (item.address - vma.vm_start) // PAGE_SIZE
