"""KSM and rmap walks on the small mm of ``tests.mm_machine``; what each walk did is in ``Machine.truth``.

As mm/ksm.c: cmp_and_merge_page(), stable_tree_append(), remove_rmap_item_from_tree(),
remove_node_from_stable_tree(), rmap_walk_ksm(). Walks are disturbed by other tasks now and then.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.mm_machine import PAGE, AddressSpaces, Item, Mm, Node, Vma

if TYPE_CHECKING:
    from collections.abc import Iterable

KSMD = 30
STABLE_FLAG, UNSTABLE_FLAG = 0x200, 0x100
CALLERS = (
    "try_to_migrate_one",
    "try_to_migrate_one",
    "try_to_unmap_one",
    "folio_referenced_one",
    "page_idle_clear_pte_refs_one",
)


@dataclass
class TrueLoop:
    """What one inner loop did."""

    rmap_item: int
    search_new_forks: int
    iterations: int = 0
    skip_addr_out_of_range: int = 0
    skip_mm_mismatch: int = 0
    rmap_one_calls: int = 0
    ended_early: bool = False


@dataclass
class TrueWalk:
    """What one walk did, and whether another task did something meanwhile."""

    enter: int
    loops: list[TrueLoop]
    disturbed: bool = False


class Machine(AddressSpaces):
    """One boot.

    Args:
        numbers: The history: each choice takes the next, so that any list is a history.
        anon_pgoff: Whether the kernel has a page offset of its own for anonymous pages (7.3).
        linear: Whether its walks look up the linear page index (7.3), or the whole tree.
        unseen: Whether pages are copied at times without an event (a write by ptrace or another process).
    """

    def __init__(
        self, numbers: Iterable[int], *, anon_pgoff: bool, linear: bool, unseen: bool = False
    ) -> None:
        super().__init__(numbers, anon_pgoff=anon_pgoff)
        self.linear, self.unseen = linear, unseen
        self.truth: list[TrueWalk] = []
        self.walking: Node | None = None

    def meanwhile(self) -> None:
        if self.walking is None and self.number(5) == 0:
            self.do_walk()

    # ksm -----------------------------------------------------------------------------------------------

    def do_ksm_merge(self) -> None:
        """cmp_and_merge_page(): a page joins a node, or two pages make one."""
        pages = [(mm, at) for mm in self.mms for at in sorted(mm.private)]
        pages = [page for page in pages if self.vma_at(*page) is not None]
        node = self.pick([*(node for node in self.nodes if not node.freed), None])
        if node is None or node is self.walking:
            if len(pages) < 2:
                return
            node = Node(self.slabs["node"].alloc(), self.slabs["folio"].alloc())
            self.nodes.append(node)
            self.append(self.pick(pages), node)
            pages = [page for page in pages if page[1] in page[0].private]
        if pages:
            self.append(self.pick(pages), node)

    def vma_at(self, mm: Mm, address: int) -> Vma | None:
        return next((v for v in mm.vmas if v.start <= address < v.end and v.anon_vma is not None), None)

    def append(self, page: tuple[Mm, int], node: Node) -> None:
        """stable_tree_append(); ksmd first drops the item that it had for this page."""
        mm, address = page
        for old in self.nodes:
            for item in [item for item in old.hlist if item.mm is mm and item.address == address]:
                if old is self.walking:
                    return
                self.drop(item, KSMD)
        vma = self.vma_at(mm, address)
        if vma is None or vma.anon_vma is None or address not in mm.private or node not in self.nodes:
            return
        index = self.key(vma) + (address - vma.start) // PAGE
        item = Item(self.slabs["item"].alloc(), mm, address, vma.anon_vma, node, index)
        if self.number(8) == 0:
            self.emit("ev_merge", KSMD, rmap_item=item.pointer, mm=mm.pointer, err=-14)
        self.emit("ev_merge", KSMD, rmap_item=item.pointer, mm=mm.pointer, err=0)
        mm.private.remove(address)
        node.ptes[mm, address] = True
        if self.number(8) == 0:
            self.merging = item
            self.disturb()
            self.merging = None
        node.hlist.insert(0, item)
        self.emit(
            "ev_append",
            KSMD,
            rmap_item=item.pointer,
            stable_node=node.pointer,
            mm=mm.pointer,
            address=address | STABLE_FLAG,
            anon_vma=item.anon_vma.pointer,
            kpfn=node.folio >> 6 & 0xFFFF,
            linear_page_index=index if self.anon_pgoff else None,
        )

    def drop(self, item: Item, pid: int) -> None:
        """remove_rmap_item_from_tree() of a stable item; the last one takes the node along."""
        self.item_event(item, pid, item.address | STABLE_FLAG)
        if self.number(4) == 0:
            self.disturb()
        item.node.hlist.remove(item)
        if not item.node.hlist and self.number(2):
            self.emit("ev_node_remove", pid, stable_node=item.node.pointer)
            self.free_node(item.node)
        self.emit("ev_item_remove", pid, is_return=True)
        self.free_item(item)

    def free_item(self, item: Item) -> None:
        self.slabs["item"].free.append(item.pointer)
        self.put_anon_vma(item.anon_vma)
        self.release(item.mm)

    def item_event(self, item: Item, pid: int, address: int) -> None:
        self.emit(
            "ev_item_remove",
            pid,
            is_return=False,
            rmap_item=item.pointer,
            address=address,
            mm=item.mm.pointer,
            anon_vma=item.anon_vma.pointer,
            head=item.node.pointer,
        )

    def free_node(self, node: Node) -> None:
        self.nodes.remove(node)
        self.slabs["node"].free.append(node.pointer)

    def do_ksm_drop(self) -> None:
        """ksmd, or a task that leaves KSM, takes an item away, be its page mapped or not."""
        nodes = [node for node in self.nodes if node is not self.walking and node.hlist]
        if (node := self.pick(nodes)) is not None:
            self.drop(self.pick(node.hlist), KSMD if self.number(3) else self.some_pid())

    def do_unstable(self) -> None:
        """The removal of an item that is not stable changes nothing."""
        pointer = self.slabs["item"].alloc()
        self.emit("ev_item_remove", KSMD, is_return=False, rmap_item=pointer, address=0x5000 | UNSTABLE_FLAG)
        self.emit("ev_item_remove", KSMD, is_return=True)
        self.slabs["item"].free.append(pointer)

    def do_node_remove(self) -> None:
        """remove_node_from_stable_tree(): the folio is gone, all its items with it."""
        nodes = [node for node in self.nodes if node is not self.walking and not node.ptes]
        if (node := self.pick(nodes)) is None:
            return
        self.emit("ev_node_remove", KSMD, stable_node=node.pointer)
        items, node.hlist = node.hlist, []
        self.free_node(node)
        for item in items:
            self.free_item(item)

    def do_unseen(self) -> None:
        """A write through get_user_pages(): the page is copied and nothing tells."""
        pages = [page for node in self.nodes for page, mapped in node.ptes.items() if mapped]
        if self.unseen and pages:
            page = self.pick(pages)
            self.copied(page[0], page[1], page[1] + PAGE)

    def some_pid(self) -> int:
        return self.pick([task for mm in self.mms for task in mm.tasks] or [1])

    # walks ---------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        """Another task does something meanwhile."""
        self.step((self.do_split, self.do_munmap, self.do_merge, self.do_fault, self.do_move, self.do_exit))

    def do_walk(self) -> None:
        nodes = [node for node in self.nodes if any(node.ptes.values())]
        if (node := self.pick(nodes)) is None:
            return
        caller = self.pick(list(CALLERS))
        pid = self.some_pid() if self.number(2) else 31
        self.walk(node, caller, pid)
        if caller == "try_to_migrate_one":
            if not any(node.ptes.values()) and self.number(3):  # else the copy failed: all goes back
                node.folio = self.slabs["folio"].alloc()
            self.walk(node, "remove_migration_pte", pid)
        if caller == "try_to_unmap_one":
            if any(node.ptes.values()):  # not all could be unmapped: the others are soon swapped in again
                node.ptes = dict.fromkeys(node.ptes, True)
            else:
                node.ptes, node.freed = {}, True

    def walk(self, node: Node, caller: str, pid: int) -> None:
        """rmap_walk_ksm()."""
        ends = caller in ("try_to_migrate_one", "try_to_unmap_one", "folio_referenced_one")
        enter = self.emit(
            "ev_walk",
            pid,
            is_return=False,
            folio=node.folio,
            stable_node=node.pointer,
            rmap_one=caller,
            done=int(ends),
            invalid_vma=0,
            try_lock=False,
            mapcount=sum(node.ptes.values()),
            comm="walker",
        )
        self.walking = node
        truth = TrueWalk(enter, [])
        counted = {page for page, mapped in node.ptes.items() if mapped}
        for search_new_forks in (0, 1):
            for item in list(node.hlist):
                if self.number(12) == 0:
                    truth.disturbed = True
                    self.disturb()
                loop = TrueLoop(item.pointer, search_new_forks)
                truth.loops.append(loop)
                for vma in [avc.vma for avc in item.anon_vma.tree]:
                    last = self.key(vma) + (vma.end - vma.start) // PAGE - 1
                    if self.linear and not self.key(vma) <= item.linear_page_index <= last:
                        continue
                    loop.iterations += 1
                    if not vma.start <= item.address < vma.end:
                        loop.skip_addr_out_of_range += 1
                    elif (vma.mm is item.mm) == bool(search_new_forks):
                        loop.skip_mm_mismatch += 1
                    else:
                        loop.rmap_one_calls += 1
                        if self.rmap_one(node, caller, (vma.mm, item.address), pid, counted) and ends:
                            loop.ended_early = True
                            break
                if loop.ended_early:
                    break
            else:
                continue
            break
        self.walking = None
        self.truth.append(truth)
        self.emit("ev_walk", pid, is_return=True)

    def rmap_one(
        self, node: Node, caller: str, page: tuple[Mm, int], pid: int, counted: set[tuple[Mm, int]]
    ) -> bool:
        """The callback; whether nothing is left to do."""
        mapped = node.ptes.get(page)
        if caller == "try_to_migrate_one" and mapped:
            node.ptes[page] = False
            self.emit("ev_migration_pte", pid, is_set=True, address=page[1])
        elif caller == "try_to_unmap_one" and mapped:
            node.ptes[page] = False
        elif caller == "remove_migration_pte" and mapped is False:
            node.ptes[page] = True
            self.emit("ev_migration_pte", pid, is_set=False, address=page[1])
        if caller == "folio_referenced_one":
            counted.discard(page)
            return not counted
        return not any(node.ptes.values())

    # history -------------------------------------------------------------------------------------------

    def step(self, operations: tuple[Any, ...]) -> None:
        operations[self.number(len(operations))]()

    def run(self) -> Machine:
        """Everything that the numbers ask for."""
        merge, walk = self.do_ksm_merge, self.do_walk
        operations = (
            *(self.do_mmap, self.do_fault, self.do_fault, self.do_fault, self.do_split, self.do_merge),
            *(self.do_fork, self.do_move, self.do_munmap, self.do_exit, self.do_thread, self.do_exec),
            *(merge, merge, merge, merge, self.do_ksm_drop, walk, walk, walk, self.do_advise),
            *(self.do_unstable, self.do_node_remove, self.do_unseen, self.do_grow),
        )
        while True:
            try:
                self.step(operations)
            except StopIteration:
                return self
