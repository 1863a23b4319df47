"""Calls that failed: what the kernel had done before they did, where their error tells it, and else a doubt.

By hand from the sources: mm/mremap.c, mm/mprotect.c and mm/madvise.c of 6.12; of 7.3 remap_move().
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.model_machine import PAGE, History
from tests.test_model import check
from tests.test_model_golden import P, mapped, page, protected, ranges, tree
from tests.test_model_rules import FILE, SHARED_FILE, advised, alive, mapped_file

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

EPERM, ENOMEM, EACCES, EFAULT, EINVAL = -1, -12, -13, -14, -22
DONTFORK, DOFORK, DODUMP, WIPEONFORK, HUGEPAGE = 10, 11, 17, 18, 14
FIXED = 0x10


def moved(history: History, first: int, last: int, target: int, ret: int, *, flags: int = 3) -> None:
    pages = (last - first) * PAGE
    history.call(P, "mremap", (page(first), pages, pages, flags, page(target)), ret)


def three(history: History, *, middle: int = 0) -> None:
    """Three VMAs side by side, anonymous but for the middle one if it is of a file (flags of its mmap())."""
    mapped(history, 0, 2)
    if middle:
        mapped_file(history, 2, 4, 0, flags=middle | FIXED)
    else:
        mapped(history, 2, 4, prot=1)
    mapped(history, 4, 6)


def test_a_move_of_several_ends_at_a_sealed_one(history: History) -> None:
    three(history)
    history.fault(P, page(0))
    history.call(P, "mseal", (page(4), PAGE, 0))
    moved(history, 0, 6, 20, EPERM)
    found = check(history.events(), "7.3")
    assert (ranges(found), found.doubts) == ([(4, 5), (5, 6), (20, 22), (22, 24)], {})
    assert tree(found, 1) == [(1, 20, 22)]


def test_a_move_of_several_ends_at_a_sealed_target(history: History) -> None:
    """Its munmap() splits where it begins, then finds it sealed."""
    three(history)
    mapped(history, 21, 30)
    history.call(P, "mseal", (page(25), PAGE, 0))
    moved(history, 0, 6, 20, EPERM)
    found = check(history.events(), "7.3")
    assert found.doubts == {}
    assert ranges(found) == [(4, 6), (20, 22), (22, 24), (24, 25), (25, 26), (26, 30)]


@pytest.mark.parametrize("flags", [FILE, SHARED_FILE])
def test_a_move_of_several_ends_at_the_only_file(history: History, flags: int) -> None:
    three(history, middle=flags)
    moved(history, 0, 6, 20, EFAULT)
    found = check(history.events(), "7.3")
    assert (ranges(found), found.doubts) == ([(2, 4), (4, 6), (20, 22)], {})


def test_a_move_of_several_that_begins_with_the_file_does_nothing(history: History) -> None:
    three(history, middle=FILE)
    moved(history, 2, 6, 20, EFAULT)
    found = check(history.events(), "7.3")
    assert (ranges(found), found.doubts) == ([(0, 2), (2, 4), (4, 6)], {})


@pytest.mark.parametrize("error", [EFAULT, ENOMEM, EPERM])
def test_a_move_of_several_that_failed_anywhere_is_a_doubt(history: History, error: int) -> None:
    """Two files; no memory; nothing sealed that the model knows."""
    mapped_file(history, 0, 2, 0)
    mapped_file(history, 2, 4, 0, fd=4)
    moved(history, 0, 4, 20, error)
    found = check(history.events(), "7.3")
    assert (ranges(found), found.doubts) == ([(0, 2), (2, 4)], {"moves_cut": 1})


@pytest.mark.parametrize(("target", "doubts"), [(10, {"fixed_mmap_failed": 1}), (20, {})])
def test_a_move_without_memory_may_have_unmapped_its_target(
    history: History, rules: KernelRules, target: int, doubts: dict[str, int]
) -> None:
    """Too many VMAs stop it before that, no memory behind it."""
    mapped(history, 0, 2)
    mapped(history, 10, 12)
    moved(history, 0, 2, target, ENOMEM)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 2), (10, 12)], doubts)


@pytest.mark.parametrize(("kernel", "unlocked"), [("6.12", [(0, 8)]), ("7.3", [(2, 4)])], ids=["6.12", "7.3"])
def test_a_locked_source_that_stays_is_unlocked(
    history: History, kernel: KernelRules, unlocked: list[tuple[int, int]]
) -> None:
    """As a whole; 7.3 splits off what has moved. (Seen so on 6.18: one VMA without ``lo``.)"""
    mapped(history, 0, 8)
    history.call(P, "mlock", (page(0), 8 * PAGE))
    moved(history, 2, 4, 20, page(20), flags=5)
    found = check(history.events(), kernel)
    free = [row["vm_start"] for row in alive(found) if not int(str(row["vm_flags"])) & 0x2000]
    assert [each for each in ranges(found) if page(each[0]) in free] == unlocked
    assert (1, 20, 22) in tree(found, 1)


def test_a_shared_mapping_is_moved_to_a_second_place(history: History, rules: KernelRules) -> None:
    """A length of 0: the source stays. (Seen so on 6.18.)"""
    mapped_file(history, 0, 4, 7, flags=SHARED_FILE | FIXED)
    history.call(P, "mremap", (page(1), 0, 2 * PAGE, 3, page(20)), page(20))
    history.call(P, "mremap", (page(1), 0, 2 * PAGE, 1), page(30))
    found = check(history.events(), rules)
    assert ranges(found) == [(0, 4), (20, 22), (30, 32)]
    assert [row["vm_pgoff"] for row in alive(found)] == [7, 8, 8]


def test_mprotect_that_is_forbidden_changes_nothing_of_one_vma(history: History, rules: KernelRules) -> None:
    """EACCES of a security module, or of a file where nothing may be executed."""
    mapped(history, 0, 4)
    mapped(history, 4, 6, prot=1)
    history.call(P, "mprotect", (page(1), 2 * PAGE, 5), EACCES)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 4), (4, 6)], {})
    history.call(P, "mprotect", (page(1), 4 * PAGE, 5), EACCES)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 4), (4, 6)], {"failed_at_unknown": 1})


def test_mprotect_of_unknown_seals_is_a_doubt(history: History, rules: KernelRules) -> None:
    mapped(history, 0, 4)
    mapped(history, 4, 6, prot=1)
    history.call(P, "mprotect", (page(0), 6 * PAGE, 5), EPERM)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 4), (4, 6)], {"failed_at_unknown": 1})


def test_advice_that_no_kernel_part_knows_changes_nothing(history: History, rules: KernelRules) -> None:
    """Without KSM or huge pages in the kernel their advice is EINVAL at once."""
    mapped(history, 0, 6)
    for advice in (12, 13, HUGEPAGE, DONTFORK):
        advised(history, 1, 3, advice, EINVAL)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 6)], {})


def test_advice_ends_at_the_first_vma_that_does_not_take_it(history: History, rules: KernelRules) -> None:
    three(history, middle=FILE)
    advised(history, 1, 6, WIPEONFORK, EINVAL)
    assert ranges(check(history.events(), rules)) == [(0, 1), (1, 2), (2, 4), (4, 6)]


def test_memory_of_devices_is_not_forked_or_dumped(history: History, rules: KernelRules) -> None:
    """A VMA that smaps showed as VM_IO: everything before it has changed."""
    line = {"vm_start": page(2), "vm_end": page(4), "file": "device", "pgoff": 0, "vm_flags": 0x4073}
    history.snapshot(P, [line], whole=False)
    mapped(history, 0, 2)
    advised(history, 0, 2, DONTFORK)
    advised(history, 1, 4, DOFORK, EINVAL)
    assert ranges(check(history.events(), rules)) == [(0, 1), (1, 2), (2, 4)]
    advised(history, 1, 2, DONTFORK)
    advised(history, 3, 4, DODUMP, EINVAL)
    assert ranges(check(history.events(), rules)) == [(0, 2), (2, 4)]


def test_a_driver_that_nothing_told_of_is_a_doubt(history: History, rules: KernelRules) -> None:
    three(history, middle=SHARED_FILE)
    advised(history, 0, 6, DOFORK, EINVAL)
    assert check(history.events(), rules).doubts == {"failed_at_unknown": 1}


def test_a_place_that_the_kernel_chose_was_free(history: History, rules: KernelRules) -> None:
    """What the model has there is long gone: a call is missing in the capture."""
    mapped(history, 0, 8)
    protected(history, 6, 8, 1)
    mapped(history, 2, 4, flags=0x22)
    found = check(history.events(), rules)
    assert (ranges(found), found.doubts) == ([(0, 6), (6, 8)], {"target_not_free": 1})


def test_special_memory_is_not_locked(history: History, rules: KernelRules) -> None:
    line = {"vm_start": page(2), "vm_end": page(4), "file": "device", "pgoff": 0, "vm_flags": 0x4077}
    history.snapshot(P, [line], whole=False)
    history.call(P, "mlock", (page(3), PAGE))
    assert ranges(check(history.events(), rules)) == [(2, 4)]


def test_nodes_of_mbind_are_not_told(history: History, rules: KernelRules) -> None:
    """The same address may hold other nodes at the next call; a policy without nodes is known."""
    mapped(history, 0, 8)
    history.call(P, "mbind", (page(0), 2 * PAGE, 4, 0, 0, 0))
    assert check(history.events(), rules).doubts == {}
    history.call(P, "mbind", (page(2), 2 * PAGE, 2, 8, 64, 0))
    assert check(history.events(), rules).doubts == {"mbind_nodes": 1}
