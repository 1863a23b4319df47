"""Cases that a replay gets wrong easily, each a story of a few calls: what every strategy costs and finds.

One function a case. ``full`` looks up everything, ``addr`` the address, ``vm_pgoff`` the VMA's page offset at
the merge, ``linear`` the page's own at the merge. Cases of VMAs and anon_vmas alone: ``test_cases_model``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from replay.pipeline import analyze
from replay.walks.stale import stale_items
from tests.mm_machine import PAGE
from tests.stories import AGES, RESTORES, UNMAPS, Story

ALL = ("full", "addr", "vm_pgoff", "linear")


def every(answer: tuple[int, int], **others: tuple[int, int]) -> dict[str, tuple[int, int]]:
    """The same answer of every strategy but of some."""
    return dict.fromkeys(ALL, answer) | others


def test_case_01_split_after_the_merge() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    node = task.merge(0x400, 4)
    task.split_into_pages(0x400, 4)
    story.walk(node, RESTORES, 1)
    outcome = story.replay()
    assert outcome.loops("full") == [4] * 8
    assert outcome.loops("addr") == outcome.loops("linear") == outcome.loops("vm_pgoff") == [1] * 8
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((4, 0), vm_pgoff=(1, 3))
    assert outcome.missed("vm_pgoff") == [(page, "mprotect") for page in (0x401, 0x402, 0x403)]
    assert ("split", "0x400000, 4096, PROT_READ") in outcome.kinds("vm_pgoff")


def test_case_01_split_before_the_merge() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    task.split_into_pages(0x400, 4)
    node = task.merge(0x400, 4)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((4, 0))
    assert outcome.loops("vm_pgoff") == [1] * 4


def test_case_02_write_move_merge_again() -> None:
    """Three pages, two written; the second is moved onto the third and merged there."""
    story = Story()
    task = story.task
    task.mmap(0x400, 3)
    task.write(0x400, 2)
    node = task.merge(0x400, 2)
    task.mremap(0x401, 1, 0x402)
    task.merge(0x402, 1, node)
    story.migrate(node)
    outcome = story.replay()
    assert outcome.found(-2) == every((2, 0), addr=(1, 1))
    assert outcome.missed("addr", -2) == [(0x402, "mremap")]
    move = "0x401000, 4096, 4096, MREMAP_MAYMOVE|MREMAP_FIXED, 0x402000"
    assert outcome.kinds("addr", -2) == {("moved", move)}
    assert outcome.loops("full") == [2, 2, 2] * 2  # the stale item of 0x401 as well
    assert outcome.loops("linear") == [1, 1, 1] * 2
    assert outcome.loops("addr") == [0, 1, 1] * 2
    assert outcome.loops("vm_pgoff") == [1, 1, 1] * 2


def test_case_02_the_address_leads_to_another_vma() -> None:
    """What now lies at the page offset of the new address is met, and turned away by its address."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    task.mremap(0x402, 1, 0x800)
    task.mremap(0x401, 1, 0x402)
    node = task.merge(0x402, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.counts("addr", -1) == [(1, 1, 0, 0)] * 2
    assert outcome.found() == every((1, 0), addr=(0, 1))


def test_case_03_move_before_the_first_write() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 2)
    task.mremap(0x400, 2, 0x800)
    task.write(0x800, 2)
    node = task.merge(0x800, 2)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((2, 0))
    assert {strategy: outcome.loops(strategy) for strategy in ALL} == {strategy: [1, 1] for strategy in ALL}


def test_case_04_moved_and_not_merged_again() -> None:
    """mremap() copies KSM pages: the item is stale at the old address, at the new one is none."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    task.split_into_pages(0x400, 4)
    node = task.merge(0x400, 1)
    task.merge(0x403, 1, node)
    task.mremap(0x403, 1, 0x800)
    story.walk(node, RESTORES, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((1, 0))
    assert outcome.counts("full", -2)[0] == (4, 4, 0, 0)
    for strategy in ("addr", "vm_pgoff", "linear"):
        assert outcome.counts(strategy, -2)[0] == (1, 1, 0, 0)


def test_case_05_copied_pages_of_a_private_file_mapping() -> None:
    """Up to 7.2 the tree is ordered by the file's pages, from 7.3 on by addresses."""
    answers, causes = {}, {}
    for kernel, strategy in (("6.12", "addr"), ("7.3", "vm_pgoff")):
        story = Story(kernel)
        task = story.task
        task.mmap(0x400, 3, file_page=2)
        task.write(0x400, 3)
        node = task.merge(0x400, 3)
        story.walk(node, UNMAPS, 1)
        outcome = story.replay()
        answers[kernel], causes[kernel] = outcome.found(), outcome.kinds(strategy)
    assert answers["6.12"] == every((3, 0), addr=(0, 3))
    assert answers["7.3"] == every((3, 0), vm_pgoff=(0, 3))
    mapped = "0x400000, 12288, PROT_READ|PROT_WRITE, MAP_PRIVATE, 3, 0x2000"
    assert causes["6.12"] == causes["7.3"] == {("file", mapped)}


def test_case_05_two_maps_of_one_file_share_page_offsets() -> None:
    """By its file page a second VMA of the family is met, and turned away by its address."""
    story = Story()
    task = story.task
    first = task.mmap(0x400, 1, file_page=2)
    task.write(0x400)
    node = task.merge(0x400)
    second = task.mmap(0x800, 1, file_page=2)
    second.anon_vma = first.anon_vma
    story.link(second, second.anon_vma, task.pid)  # type: ignore[arg-type]
    story.walk(node, RESTORES, 1)
    outcome = story.replay()
    assert outcome.counts("linear") == [(2, 1, 0, 1), (2, 1, 1, 0)]
    assert outcome.counts("addr") == [(0, 0, 0, 0)] * 2


def test_case_06_stack() -> None:
    """exec moves the stack down and leaves its page offset: the address never is one."""
    story = Story()
    task = story.task
    (stack,) = task.mm.vmas
    page = stack.start // PAGE
    task.write(page, 2)
    node = task.merge(page, 2)
    task.grow_left(page, 3)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((2, 0), addr=(0, 2))
    assert outcome.kinds("addr") == {("stack", None)}


def test_case_07_fork_and_the_child_not_scanned() -> None:
    """A point query does not remove what a family costs: 2 + 2 iterations for each item."""
    story = Story()
    task = story.task
    task.mmap(0x400, 64)
    task.write(0x400, 64)
    node = task.merge(0x400, 64)
    task.fork()
    story.migrate(node)
    outcome = story.replay()
    for strategy in ALL:
        assert outcome.loops(strategy) == [2] * 128
        assert outcome.loops(strategy, -2) == [2] * 128
    early = sum(outcome.exact.loop.filter(strategy="full")["ended_early"])
    assert outcome.total("full") + outcome.total("full", -2) - early == 511  # calls of iter_next()
    assert outcome.found(-2) == every((128, 0))


def test_case_08_the_child_moves_a_range() -> None:
    """The child's VMA stays on the parent's tree, at the old page offset and another address."""
    story = Story()
    task = story.task
    task.mmap(0x400, 1)
    task.write(0x400)
    node = task.merge(0x400)
    child = task.fork()
    child.mremap(0x400, 1, 0x800)
    story.walk(node, RESTORES, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    for strategy in ALL:
        assert outcome.counts(strategy, -2) == [(2, 1, 0, 1), (2, 1, 1, 0)]
    assert outcome.found() == every((1, 0))


def test_case_09_the_head_is_unmapped() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    node = task.merge(0x400, 4)
    task.munmap(0x400, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((3, 0), vm_pgoff=(0, 3))
    assert outcome.missed("vm_pgoff") == [(page, "munmap") for page in (0x401, 0x402, 0x403)]


def test_case_10_grown_to_the_left() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 2)
    task.write(0x400, 2)
    node = task.merge(0x400, 2)
    task.grow_left(0x400, 4)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((2, 0))
    assert outcome.loops("vm_pgoff") == [1, 1]


def test_case_10_merged_with_the_one_before() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    task.mprotect(0x402, 2)
    node = task.merge(0x402, 2)
    task.mprotect_back(0x400, 4)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((2, 0))


def test_case_11_two_vmas_of_equal_page_offsets() -> None:
    """Ties are in order of insertion, not of address: the moved copy, below its source, has rank 2."""
    story = Story()
    task = story.task
    task.mmap(0x800, 3)
    task.write(0x800, 3)
    task.mremap(0x801, 1, 0x400, dontunmap=True)  # of a part: the source keeps its anon_vma
    node = task.merge(0x400)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found() == every((1, 0), addr=(0, 1))
    assert outcome.counts("linear") == [(2, 1, 0, 1)]
    assert outcome.counts("vm_pgoff") == [(2, 1, 0, 1)]
    assert outcome.counts("full") == [(3, 2, 0, 1)]  # and the VMA of 0x802 comes after


def test_case_12_rank_of_the_last_item() -> None:
    """Newest first: the oldest item, of the lowest address, ends the walk at its first iteration."""
    story = Story()
    task = story.task
    task.mmap(0x400, 64)
    task.write(0x400, 64)
    task.split_into_pages(0x400, 64)
    node = task.merge(0x400, 64)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.loops("full") == [64] * 63 + [1]
    assert outcome.total("full") - 1 == 4032  # calls of iter_next()
    assert outcome.loops("linear") == [1] * 64


def test_case_13_a_walk_that_restores_makes_both_passes() -> None:
    story = Story()
    task = story.task
    task.mmap(0x400, 8)
    task.write(0x400, 8)
    task.split_into_pages(0x400, 8)
    node = task.merge(0x400, 8)
    story.migrate(node)
    outcome = story.replay()
    assert outcome.total("full") == 2 * 8 * 8
    assert outcome.total("linear") == 2 * 8
    assert outcome.found() == every((8, 0))


def test_case_14_stale_items() -> None:
    """Copied, dropped or left by an exit: they cost their loop, map nothing, and are not missed."""
    story = Story()
    task = story.task
    other = task.fork()
    for each in (task, other):
        each.mmap(0x400, 4)
        each.write(0x400, 4)
    node = task.merge(0x400, 3)
    other.merge(0x400, 1, node)
    task.split_into_pages(0x400, 4)
    task.write(0x401)
    task.dontneed(0x402, 1)
    other.exit()
    story.walk(node, RESTORES, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.loops("full", -2) == [0, 4, 4, 4] * 2
    assert outcome.loops("addr", -2) == outcome.loops("linear", -2) == [0, 1, 1, 1] * 2
    assert outcome.found() == every((1, 0))
    assert outcome.causes.filter(walk_id=1).is_empty()
    why = stale_items(outcome.exact).filter(walk_id=1).sort("item", descending=True)["by"]
    assert why.to_list() == ["exit", "madvise", "page_fault"]


def test_case_15_reclaim() -> None:
    """folio_referenced() ends with the last mapping; that it left some out is not replayed, but said."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    task.split_into_pages(0x400, 4)
    node = task.merge(0x400, 4)
    story.walk(node, AGES, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    for walk in (-1, -2):
        assert outcome.loops("full", walk) == [4, 4, 4, 1]
        assert outcome.loops("linear", walk) == [1] * 4
        assert outcome.found(walk) == every((4, 0), vm_pgoff=(4, 0))


class OfAnotherCgroup(Story):
    """Reclaim of a cgroup that none of the mappings belongs to: each is passed over, none is counted."""

    def rmap_one(self, *_: Any) -> bool:
        return False


class Mlocked(Story):
    """VM_LOCKED, by a call that the capture does not have: the first mapping ends the walk."""

    def rmap_one(self, *_: Any) -> bool:
        return True


def test_case_15_cannot_be_seen() -> None:
    """Three kernels record the same, event by event, while their walks make 13, 32 and 4 iterations."""
    told, made = [], []
    for kind in (Story, OfAnotherCgroup, Mlocked):
        story = kind()
        task = story.task
        task.mmap(0x400, 4)
        task.write(0x400, 4)
        task.split_into_pages(0x400, 4)
        story.walk(task.merge(0x400, 4), AGES, 1)
        told.append(story.events)
        made.append(sum(loop.iterations for loop in story.truth[0].loops))
    assert told[0] == told[1] == told[2]
    assert made == [13, 32, 4]


def test_case_15_is_said() -> None:
    path = Path(__file__).parent / "data" / "truth" / "7.3_s1-small_truth-tiny.dat"
    tables = analyze(path).tables
    walks = {row["walk_id"] for row in tables["walk"].to_pylist() if row["caller"] == AGES}
    said = {row["kind"]: row["count"] for row in tables["quality"].to_pylist()}
    assert said["reclaim_unseen"] == len(walks) > 0


def test_case_19_mprotect_back() -> None:
    """The VMAs merge again: the tree is small again, and what vm_pgoff looks up lies inside again."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    node = task.merge(0x400, 4)
    task.split_into_pages(0x400, 4)
    story.walk(node, UNMAPS, 1)
    node.ptes = dict.fromkeys(node.ptes, True)
    task.mprotect_back(0x400, 4)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.found(0) == every((4, 0), vm_pgoff=(1, 3))
    assert outcome.found(1) == every((4, 0))
    assert outcome.loops("full", 1) == [1] * 4


def test_case_19_split_again_is_the_cause() -> None:
    """Of two splits with a merge between them the second one made the mapping be missed."""
    story = Story()
    task = story.task
    task.mmap(0x400, 4)
    task.write(0x400, 4)
    node = task.merge(0x400, 4)
    task.mprotect(0x402, 1)
    task.mprotect_back(0x400, 4)
    task.munmap(0x401, 1)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert outcome.missed("vm_pgoff") == [(0x402, "munmap"), (0x403, "munmap")]


def test_case_19_ties_are_in_a_new_order() -> None:
    """A VMA that was split and merged goes behind its forked sibling of the same page offset."""
    story = Story()
    task = story.task
    task.mmap(0x400, 2)
    task.write(0x400, 2)
    node = task.merge(0x400, 1)
    child = task.fork()
    child.write(0x400)
    story.walk(node, UNMAPS, 1)
    node.ptes = dict.fromkeys(node.ptes, True)
    task.mprotect(0x401, 1)
    task.mprotect_back(0x400, 2)
    story.walk(node, UNMAPS, 1)
    outcome = story.replay()
    assert [outcome.loops("linear", walk) for walk in (0, 1)] == [[1], [2]]


def test_case_20_the_list_of_the_folios_own_node() -> None:
    """Equal pages on two nodes (dups of a chain) are walked apart, and forked items pass the limit of 256."""
    story = Story()
    task = story.task
    task.mmap(0x400, 260)
    task.write(0x400, 260)
    full = task.merge(0x400, 256)
    dup = task.merge(0x500, 4)
    child = task.fork()
    child.scanned(0x400, 2, full)
    story.walk(dup, RESTORES, 1)
    story.walk(full, RESTORES, 1)
    outcome = story.replay()
    for strategy in ALL:
        assert outcome.loops(strategy, -2) == [2] * 4 * 2
        assert outcome.loops(strategy) == ([1] * 2 + [2] * 256) * 2


def test_case_26_swapped_in_as_a_copy() -> None:
    """The page became private: the item is stale; merged again it may hang on the child's own anon_vma."""
    story = Story()
    task = story.task
    task.mmap(0x400, 2)
    task.write(0x400, 2)
    node = task.merge(0x400, 2)
    child = task.fork()
    child.write(0x400)  # a copy
    child.merge(0x400, 1, node)
    story.walk(node, RESTORES, 1)
    outcome = story.replay()
    assert child.anon_vma(0x400) is not task.anon_vma(0x400)
    assert [loop[0] for loop in outcome.counts("full")] == [1, 2, 2] * 2
    assert outcome.found() == every((0, 0))


def test_case_27_zero_pages() -> None:
    """Pages merged with the zero page have no rmap_item: nothing lists them, nothing walks them."""
    story = Story()
    task = story.task
    task.mmap(0x400, 2)
    task.write(0x400, 2)
    outcome = story.replay()
    assert outcome.exact.rmap_item.is_empty()
    assert outcome.exact.walk.is_empty()
    assert outcome.exact.miss.is_empty()
