"""Scenarios of the kernel's tools/testing/vma in our words, and what the two kernels were seen to do."""

from __future__ import annotations

import polars as pl
import pytest

from replay.model.rebuild import Modelled, reconstruct
from replay.state.kernel import rules_for
from tests.model_machine import BASE, PAGE, History

P, CHILD, GRANDCHILD = 100, 101, 102


def page(number: int) -> int:
    return BASE + number * PAGE


def mapped(
    history: History, first: int, last: int, *, pid: int = P, flags: int = 0x32, prot: int = 3
) -> None:
    """mmap() of pages ``[first, last)``."""
    arguments = (page(first), (last - first) * PAGE, prot, flags, 2**32 - 1, 0)
    history.call(pid, "mmap", arguments, page(first))


def protected(history: History, first: int, last: int, prot: int, *, pid: int = P) -> None:
    history.call(pid, "mprotect", (page(first), (last - first) * PAGE, prot))


def ranges(model: Modelled, mm: int = 1) -> list[tuple[int, int]]:
    """The VMAs of an address space at the end, as pages ``(first, last)``, last exclusive."""
    alive = model.versions.filter((pl.col("mm") == mm) & pl.col("died_seq").is_null()).sort("vm_start")
    starts, ends = alive["vm_start"].to_list(), alive["vm_end"].to_list()
    return [((a - BASE) // PAGE, (b - BASE) // PAGE) for a, b in zip(starts, ends, strict=True)]


def tree(model: Modelled, anon_vma: int) -> list[tuple[int, int, int]]:
    """The intervals on a tree at the end: mm, first and last page of the VMA, last exclusive."""
    alive = model.lives.filter((pl.col("anon_vma") == anon_vma) & pl.col("died_seq").is_null())
    rows = (
        alive.sort("first_pgoff", "vm_start", maintain_order=True).select("mm", "vm_start", "vm_end").rows()
    )
    return [(mm, (start - BASE) // PAGE, (end - BASE) // PAGE) for mm, start, end in rows]


def test_mprotect_splits_in_three_and_merges_again(rules: str) -> None:
    history = History()
    mapped(history, 0, 10)
    history.fault(P, page(0))
    protected(history, 3, 6, 1)
    split = reconstruct(history.events(), rules)
    assert ranges(split) == [(0, 3), (3, 6), (6, 10)]
    assert tree(split, 1) == [(1, 0, 3), (1, 3, 6), (1, 6, 10)]
    protected(history, 3, 6, 3)
    merged = reconstruct(history.events(), rules)
    assert (ranges(merged), tree(merged, 1)) == ([(0, 10)], [(1, 0, 10)])


def test_mprotect_without_change_and_of_a_hole(rules: str) -> None:
    history = History()
    mapped(history, 0, 4)
    mapped(history, 6, 8)
    protected(history, 1, 3, 3)
    assert ranges(reconstruct(history.events(), rules)) == [(0, 4), (6, 8)]
    history.call(P, "mprotect", (page(2), 5 * PAGE, 1), -12)
    assert ranges(reconstruct(history.events(), rules)) == [(0, 2), (2, 4), (6, 8)]


@pytest.mark.parametrize(("rules", "expected"), [("6.12", [(0, 1), (1, 10)]), ("7.3", [(0, 10)])])
def test_a_faulted_range_into_an_unfaulted_neighbour(rules: str, expected: list[tuple[int, int]]) -> None:
    history = History()
    mapped(history, 0, 10)
    history.call(P, "madvise", (page(0), PAGE, 12))
    history.fault(P, page(0))
    history.call(P, "madvise", (page(0), PAGE, 13))
    model = reconstruct(history.events(), rules)
    assert ranges(model) == expected


def test_new_mappings_merge_in_the_parent_but_not_in_the_fork_child(rules: str) -> None:
    history = History()
    mapped(history, 5, 8)
    history.fault(P, page(5))
    history.fork(P, CHILD)
    mapped(history, 3, 5)
    mapped(history, 3, 5, pid=CHILD)
    history.fault(CHILD, page(3))
    model = reconstruct(history.events(), rules)
    assert ranges(model, 1) == [(3, 8)]
    assert ranges(model, 2) == [(3, 5), (5, 8)]
    assert tree(model, 1) == [(1, 3, 8), (2, 5, 8)]
    assert tree(model, 2) == [(2, 5, 8)]
    assert tree(model, 3) == [(2, 3, 5)]  # a new root: its neighbour's list is not singular


@pytest.mark.parametrize(("rules", "pieces"), [("6.12", 4), ("7.3", 1)])
def test_growth_under_memory_merge(rules: str, pieces: int) -> None:
    history = History()
    history.call(P, "prctl", (67, 1))
    for number in range(4):
        mapped(history, 10 - number, 11 - number)
    assert len(ranges(reconstruct(history.events(), rules))) == pieces


def test_a_moved_vma_keeps_its_page_offset_only_if_faulted(rules: str) -> None:
    history = History()
    mapped(history, 0, 2)
    mapped(history, 4, 6)
    history.fault(P, page(0))
    for first, target in ((0, 20), (4, 30)):
        history.call(P, "mremap", (page(first), 2 * PAGE, 2 * PAGE, 3, page(target)), page(target))
    alive = reconstruct(history.events(), rules).versions.filter(pl.col("died_seq").is_null())
    offsets = dict(zip(alive["vm_start"], alive["vm_pgoff"], strict=True))
    assert offsets == {page(20): page(0) // PAGE, page(30): page(30) // PAGE}


def test_dontunmap_leaves_the_source_without_anon_vma(rules: str) -> None:
    history = History()
    mapped(history, 0, 2)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(0), 2 * PAGE, 2 * PAGE, 5, 0), page(8))
    model = reconstruct(history.events(), rules)
    assert ranges(model) == [(0, 2), (8, 10)]
    assert tree(model, 1) == [(1, 8, 10)]


def test_dontunmap_of_a_part_ends_inside_of_the_source(rules: str) -> None:
    """With 7.3 a move of any number of VMAs: the rest of the last one is not a part of it."""
    history = History()
    mapped(history, 0, 6)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(1), 3 * PAGE, 3 * PAGE, 7, page(10)), page(10))
    model = reconstruct(history.events(), rules)
    assert ranges(model) == [(0, 6), (10, 13)]
    assert tree(model, 1) == [(1, 0, 6), (1, 10, 13)]


@pytest.mark.parametrize(("rules", "still_there"), [("6.12", False), ("7.3", True)])
def test_a_failed_move_unmaps_its_target_up_to_7_2(rules: str, still_there: bool) -> None:
    history = History()
    mapped(history, 0, 2)
    mapped(history, 8, 11)
    history.call(P, "mremap", (page(0), 3 * PAGE, 3 * PAGE, 3, page(8)), -14)
    assert ((8, 11) in ranges(reconstruct(history.events(), rules))) is still_there


@pytest.mark.parametrize(("rules", "order"), [("6.12", [1, 2, 3]), ("7.3", [2, 1, 3])])
def test_order_of_the_trees_that_a_grandchild_gets_on(rules: str, order: list[int]) -> None:
    history = History()
    mapped(history, 0, 2)
    history.fault(P, page(0))
    history.fork(P, CHILD)
    history.fork(CHILD, GRANDCHILD)
    lives = reconstruct(history.events(), rules).lives
    assert lives.filter(pl.col("mm") == 3)["anon_vma"].to_list() == order


def test_a_fork_takes_an_anon_vma_again_that_nobody_uses(rules: str) -> None:
    history = History()
    mapped(history, 0, 2)
    history.fault(P, page(0))
    history.fork(P, CHILD)
    history.fork(CHILD, GRANDCHILD)
    history.task(CHILD, "exit")
    history.fork(GRANDCHILD, CHILD)
    model = reconstruct(history.events(), rules)
    assert model.lives["anon_vma"].n_unique() == 3
    last = model.versions.filter(pl.col("died_seq").is_null() & (pl.col("mm") == 4))
    assert last["anon_vma"].to_list() == [2]


def test_threads_share_and_the_last_one_unmaps(rules: str) -> None:
    history = History()
    mapped(history, 0, 2)
    history.fork(P, CHILD, 0x100)
    history.fault(CHILD, page(1))
    history.task(P, "exit")
    assert tree(reconstruct(history.events(), rules), 1) == [(1, 0, 2)]
    history.task(CHILD, "exit")
    assert tree(reconstruct(history.events(), rules), 1) == []


def test_dontfork_and_wipeonfork(rules: str) -> None:
    history = History()
    for first, advice in ((0, 10), (4, 18)):
        mapped(history, first, first + 2)
        history.fault(P, page(first))
        history.call(P, "madvise", (page(first), 2 * PAGE, advice))
    history.fork(P, CHILD)
    model = reconstruct(history.events(), rules)
    assert ranges(model, 2) == [(4, 6)]
    assert model.lives.filter(pl.col("mm") == 2).is_empty()


def test_populate_needs_no_fault_and_reads_do_nothing(rules: str) -> None:
    history = History()
    mapped(history, 0, 2, flags=0x8032)
    mapped(history, 4, 6)
    history.fault(P, page(4), write=False)
    model = reconstruct(history.events(), rules)
    assert tree(model, 1) == [(1, 0, 2)]
    assert model.lives.height == 1


@pytest.mark.parametrize(
    ("release", "rules"),
    [
        ("6.12.107+deb13-cloud-amd64", "6.12"),
        ("7.2.9", "6.12"),
        ("7.3.4+deb13-cloud-amd64", "7.3"),
        ("7.10.0-rc1", "7.3"),
        ("10.1", "7.3"),
        (None, "6.12"),
        ("custom", "6.12"),
    ],
)
def test_rules_by_release(release: str | None, rules: str) -> None:
    assert rules_for(release) == rules
