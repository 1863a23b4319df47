"""Each rule of the model by name, as a scenario whose outcome can be worked out by hand.

The scenarios of the kernel's tools/testing/vma are among them, re-stated: simple_merge, simple_modify,
simple_expand, simple_shrink, merge_new, merge_existing, anon_vma_non_mergeable, dup_anon_vma, merge_extend,
copy_vma, expand_only_mode, mmap_region_basic. test_model_merges has them with every combination of
anon_vmas, and special flags, vm_ops->close and sticky flags; no system call fails by want of memory for
certain, so vmi_prealloc_fail is left out. More of the rules, where kernels differ: test_model_golden; where
hole, error or snapshot meet: test_model, test_maps, test_model_exec, test_model_calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from replay.model.rebuild import Modelled, reconstruct
from tests.model_machine import BASE, PAGE, History
from tests.test_model_golden import CHILD, P, mapped, page, protected, ranges, tree

if TYPE_CHECKING:
    from replay.state.kernel import KernelRules

FILE = 0x2
SHARED_FILE = 0x1


def model(history: History, rules: str) -> Modelled:
    chosen: KernelRules = "7.3" if rules == "7.3" else "6.12"
    return reconstruct(history.events(), chosen, compiled=False)


def mapped_file(
    history: History, first: int, last: int, pgoff: int, *, flags: int = 0x12, fd: int = 3
) -> None:
    arguments = (page(first), (last - first) * PAGE, 3, flags, fd, pgoff * PAGE)
    history.call(P, "mmap", arguments, page(first))


def advised(history: History, first: int, last: int, advice: int, ret: int = 0) -> None:
    history.call(P, "madvise", (page(first), (last - first) * PAGE, advice), ret)


def alive(found: Modelled, mm: int = 1) -> list[dict[str, object]]:
    """The VMAs of an address space at the end, by address."""
    rows = found.versions.filter((pl.col("mm") == mm) & pl.col("died_seq").is_null())
    return rows.sort("vm_start").to_dicts()


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (False, False, [(5, 8)]),
        (True, False, [(0, 8)]),
        (False, True, [(5, 12)]),
        (True, True, [(0, 12)]),
    ],
    ids=["alone", "left", "right", "both"],
)
def test_merge_new(
    history: History, rules: str, before: bool, after: bool, expected: list[tuple[int, int]]
) -> None:
    if before:
        mapped(history, 0, 5)
    if after:
        mapped(history, 8, 12)
    mapped(history, 5, 8)
    assert ranges(model(history, rules)) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        (5, 10, [(0, 10), (10, 15)]),
        (5, 8, [(0, 8), (8, 10), (10, 15)]),
        (7, 10, [(0, 5), (5, 7), (7, 10), (10, 15)]),
        (6, 8, [(0, 5), (5, 6), (6, 8), (8, 10), (10, 15)]),
    ],
    ids=["whole", "its begin", "its end", "its middle"],
)
def test_merge_existing_with_the_left(
    history: History, rules: str, first: int, last: int, expected: list[tuple[int, int]]
) -> None:
    """Read-write, read-only, execute: the middle one becomes like the left one."""
    mapped(history, 0, 15)
    protected(history, 5, 10, 1)
    protected(history, 10, 15, 5)
    protected(history, first, last, 3)
    assert ranges(model(history, rules)) == expected


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [(5, 10, [(0, 5), (5, 15)]), (8, 10, [(0, 5), (5, 8), (8, 15)])],
    ids=["whole", "its end"],
)
def test_merge_existing_with_the_right(
    history: History, rules: str, first: int, last: int, expected: list[tuple[int, int]]
) -> None:
    mapped(history, 0, 15)
    protected(history, 5, 10, 1)
    protected(history, 10, 15, 5)
    protected(history, first, last, 5)
    assert ranges(model(history, rules)) == expected


def test_merge_existing_with_both(history: History, rules: str) -> None:
    mapped(history, 0, 15)
    protected(history, 5, 10, 1)
    protected(history, 5, 10, 3)
    assert ranges(model(history, rules)) == [(0, 15)]


def test_anon_vma_non_mergeable(history: History, rules: str) -> None:
    """Both neighbours would do, but they have anon_vmas of their own: only the left one takes it in."""
    mapped(history, 0, 5)
    mapped(history, 8, 12)
    history.fault(P, page(0))
    history.fault(P, page(8))
    mapped(history, 5, 8)
    found = model(history, rules)
    assert ranges(found) == [(0, 8), (8, 12)]
    assert (tree(found, 1), tree(found, 2)) == ([(1, 0, 8)], [(1, 8, 12)])


def test_dup_anon_vma(history: History, rules: str) -> None:
    """A new range between a VMA without and one with an anon_vma: what is left has it."""
    mapped(history, 0, 5)
    mapped(history, 8, 12)
    history.fault(P, page(8))
    mapped(history, 5, 8)
    assert tree(model(history, rules), 1) == [(1, 0, 12)]


def test_flags_policy_and_file_keep_vmas_apart(history: History, rules: str) -> None:
    mapped(history, 0, 2)
    mapped(history, 2, 4, prot=1)
    mapped(history, 4, 6, flags=0x4032)
    mapped_file(history, 6, 8, 0)
    mapped_file(history, 8, 10, 2)
    mapped_file(history, 10, 12, 9)
    mapped_file(history, 12, 14, 11, fd=4)
    assert ranges(model(history, rules)) == [(0, 2), (2, 4), (4, 6), (6, 10), (10, 12), (12, 14)]
    history.call(P, "mbind", (page(0), PAGE, 2, 0x1000, 64, 0))
    assert ranges(model(history, rules))[:2] == [(0, 1), (1, 2)]
    history.call(P, "mbind", (page(0), PAGE, 0, 0, 0, 0))
    assert ranges(model(history, rules))[0] == (0, 2)


def test_split_gives_the_outer_parts_new_vmas(history: History, rules: str) -> None:
    mapped(history, 0, 9)
    whole = alive(model(history, rules))[0]["vma"]
    protected(history, 3, 6, 1)
    left, middle, right = (row["vma"] for row in alive(model(history, rules)))
    assert middle == whole
    assert len({left, middle, right}) == 3


def test_commit_merge_puts_the_grown_one_behind_its_ties(history: History, rules: str) -> None:
    """A child's interval of the same page offset was inserted later; growing goes to the back again."""
    mapped(history, 0, 4)
    history.fault(P, page(0))
    history.fork(P, CHILD)
    protected(history, 2, 4, 1)
    protected(history, 2, 4, 3)
    found = model(history, rules)
    order = found.lives.filter((pl.col("anon_vma") == 1) & pl.col("died_seq").is_null())["mm"].to_list()
    assert order == [2, 1]


def test_munmap_of_a_middle_and_over_holes(history: History, rules: str) -> None:
    """simple_shrink: what is left are new VMAs."""
    mapped(history, 0, 6)
    mapped(history, 8, 12)
    history.fault(P, page(0))
    history.call(P, "munmap", (page(2), 8 * PAGE))
    found = model(history, rules)
    assert ranges(found) == [(0, 2), (10, 12)]
    assert tree(found, 1) == [(1, 0, 2)]


def test_a_failed_munmap_of_sealed_memory_leaves_a_split(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    mapped(history, 4, 8, prot=1)
    history.call(P, "mseal", (page(4), 4 * PAGE, 0))
    history.call(P, "munmap", (page(2), 4 * PAGE), -1)
    assert ranges(model(history, rules)) == [(0, 2), (2, 4), (4, 8)]


@pytest.mark.parametrize(
    ("flags", "error", "first", "doubts"),
    [
        (0x32, 12, 1, 1),  # no memory: before the splits at both ends, or behind them
        (0x32, 22, 1, 0),
        (0x32, 1, 1, 0),
        (0x12, 22, 1, 1),  # the hook of the file may have said so, behind the unmapping
        (0x12, 9, 1, 0),
        (0x32, 12, 4, 0),  # nothing is mapped there
        (0x22, 12, 1, 0),
        (0x100032, 12, 1, 0),
    ],
)
def test_mmap_over_something_fails(
    history: History, rules: str, flags: int, error: int, first: int, doubts: int
) -> None:
    mapped(history, 0, 4)
    history.call(P, "mmap", (page(first), 2 * PAGE, 3, flags, 3, 0), -error)
    found = model(history, rules)
    assert ranges(found) == [(0, 4)]
    assert found.doubts.get("fixed_mmap_failed", 0) == doubts


def test_a_failed_mmap_over_sealed_memory_leaves_a_split(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    mapped(history, 4, 8, prot=1)
    history.call(P, "mseal", (page(4), 4 * PAGE, 0))
    history.call(P, "mmap", (page(2), 4 * PAGE, 3, 0x32, 3, 0), -1)
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(0, 2), (2, 4), (4, 8)], {})


def test_a_thread_that_execs_takes_its_leaders_place(history: History, rules: str) -> None:
    """de_thread(): the leader is gone by then; what the threads shared goes with the old address space."""
    thread = P + 1
    mapped(history, 0, 4)
    history.call(P, "prctl", (67, 1))
    history.fork(P, thread, 0x100)
    history.enter(thread, "execve", (page(0),))
    history.task(P, "exit")
    history.task(P, "exec", thread)
    execed = history.seq - 1
    history.leave(P, "execve", 0)
    mapped(history, 1, 2)
    history.fault(thread, page(1))
    found = model(history, rules)
    assert found.versions.filter(mm=1)["died_seq"].to_list()[-1] == execed
    assert [(row["vm_start"], row["vm_flags"] >> 31 & 1) for row in alive(found, 2)] == [(page(1), 1)]
    # A thread id used again: another process.
    assert found.doubts == {"stack_unknown": 1, "fault_of_unknown": 1}


def test_writes_to_what_exec_mapped_are_counted(history: History, rules: str) -> None:
    mapped(history, 0, 1)
    history.task(P, "exec")
    history.fault(P, page(0))
    history.fault(P, page(0), write=False)
    found = model(history, rules)
    assert (found.lives.height, found.doubts) == (0, {"stack_unknown": 1, "fault_of_unknown": 1})


def test_mseal_splits(history: History, rules: str) -> None:
    mapped(history, 0, 8)
    history.call(P, "mseal", (page(2), 2 * PAGE, 0))
    assert ranges(model(history, rules)) == [(0, 2), (2, 4), (4, 8)]


def test_mprotect_fails_at_a_file_that_may_not_be_written(history: History, rules: str) -> None:
    """EACCES: what comes before is changed."""
    mapped(history, 0, 4, prot=1)
    arguments = (page(4), 4 * PAGE, 1, 0x11, 3, 0)
    history.call(P, "mmap", arguments, page(4))
    history.call(P, "mprotect", (page(2), 4 * PAGE, 3), -13)
    assert [row["vm_flags"] & 2 != 0 for row in alive(model(history, rules))] == [False, True, False]


def test_mprotect_with_too_many_vmas_does_not_split(history: History, rules: str) -> None:
    """ENOMEM without a hole: as far as no VMA has to be split."""
    mapped(history, 0, 4)
    mapped(history, 4, 8, flags=0x4032)
    history.call(P, "mprotect", (page(0), 6 * PAGE, 5), -12)
    found = model(history, rules)
    assert ranges(found) == [(0, 4), (4, 8)]
    assert [row["vm_flags"] & 7 for row in alive(found)] == [5, 3]
    assert found.doubts == {"too_many_vmas": 1}


def test_madvise_with_too_many_vmas_does_not_split(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    advised(history, 1, 2, 12, -11)
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(0, 4)], {"too_many_vmas": 1})


def test_mprotect_grows_down(history: History, rules: str) -> None:
    mapped(history, 0, 6, flags=0x132)
    history.call(P, "mprotect", (page(4), PAGE, 1 | 0x1000000))
    assert ranges(model(history, rules)) == [(0, 5), (5, 6)]


@pytest.mark.parametrize("advice", [1, 2, 10, 12, 14, 15, 16, 18])
def test_madvise_flags(history: History, rules: str, advice: int) -> None:
    back = {1: 0, 2: 0, 10: 11, 12: 13, 14: 15, 15: 14, 16: 17, 18: 19}
    mapped(history, 0, 6)
    advised(history, 2, 4, advice)
    assert ranges(model(history, rules)) == [(0, 2), (2, 4), (4, 6)]
    if advice not in (14, 15):  # HUGEPAGE and NOHUGEPAGE each leave a flag that nothing clears
        advised(history, 2, 4, back[advice])
        assert ranges(model(history, rules)) == [(0, 6)]


@pytest.mark.parametrize("advice", [3, 4, 8, 20, 21, 22, 25])
def test_madvise_without_flags_changes_nothing(history: History, rules: str, advice: int) -> None:
    mapped(history, 0, 6)
    advised(history, 2, 4, advice)
    assert model(history, rules).versions.height == 1


def test_madvise_goes_on_over_holes(history: History, rules: str) -> None:
    mapped(history, 0, 2)
    mapped(history, 4, 6)
    advised(history, 1, 5, 12, -12)
    assert ranges(model(history, rules)) == [(0, 1), (1, 2), (4, 5), (5, 6)]


def test_mergeable_is_not_for_shared_memory(history: History, rules: str) -> None:
    """vma_merge_special_flags: the flag would split, but such VMAs do not get it."""
    mapped_file(history, 0, 4, 0, flags=SHARED_FILE | 0x10)
    advised(history, 1, 2, 12)
    assert ranges(model(history, rules)) == [(0, 4)]


def test_memory_merge_changes_flags_in_place(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    advised(history, 2, 4, 12)
    history.call(P, "prctl", (67, 1))
    found = model(history, rules)
    assert ranges(found) == [(0, 2), (2, 4)]
    assert all(row["vm_flags"] & 0x80000000 for row in alive(found))
    history.call(P, "prctl", (67, 0))
    assert not any(row["vm_flags"] & 0x80000000 for row in alive(model(history, rules)))


def test_mremap_shrinks_and_grows_in_place(history: History, rules: str) -> None:
    """merge_extend: growing swallows the next VMA if it can; 6.12 not a next one without an anon_vma."""
    mapped(history, 0, 6)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(0), 6 * PAGE, 2 * PAGE, 0), page(0))
    assert ranges(model(history, rules)) == [(0, 2)]
    mapped(history, 4, 6)
    history.call(P, "mremap", (page(0), 2 * PAGE, 4 * PAGE, 1), page(0))
    found = model(history, rules)
    assert ranges(found) == ([(0, 6)] if rules == "7.3" else [(0, 4), (4, 6)])
    assert tree(found, 1) == [(1, 0, 6 if rules == "7.3" else 4)]


def test_mremap_copies_before_the_source_goes(history: History, rules: str) -> None:
    """copy_vma: on the same tree at the old page offset; moved back, it merges with where it came from."""
    mapped(history, 0, 4)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(2), 2 * PAGE, 2 * PAGE, 3, page(20)), page(20))
    found = model(history, rules)
    assert tree(found, 1) == [(1, 0, 2), (1, 20, 22)]
    history.call(P, "mremap", (page(20), 2 * PAGE, 2 * PAGE, 3, page(2)), page(2))
    assert tree(model(history, rules), 1) == [(1, 0, 4)]


def test_mremap_keeps_its_source(history: History, rules: str) -> None:
    """MREMAP_DONTUNMAP of a part: the source keeps its anon_vma."""
    mapped(history, 0, 4)
    history.fault(P, page(0))
    history.call(P, "mremap", (page(0), 2 * PAGE, 2 * PAGE, 5, 0), page(20))
    assert tree(model(history, rules), 1) == [(1, 0, 4), (1, 20, 22)]


def test_brk_expands_only(history: History, rules: str) -> None:
    """expand_only_mode: the heap grows, and never takes in what is behind it."""
    history.call(P, "brk", (0,), page(0))
    history.call(P, "brk", (page(2),), page(2))
    mapped(history, 4, 6)
    history.call(P, "brk", (page(4),), page(4))
    assert ranges(model(history, rules)) == [(0, 4), (4, 6)]
    history.call(P, "brk", (page(1),), page(1))
    assert ranges(model(history, rules)) == [(0, 1), (4, 6)]
    history.call(P, "brk", (page(9),), page(1))  # it failed: the break is where it was
    assert ranges(model(history, rules)) == [(0, 1), (4, 6)]


def test_mlock_splits_and_populates(history: History, rules: str) -> None:
    mapped(history, 0, 6)
    history.call(P, "mlock", (page(2), 2 * PAGE))
    found = model(history, rules)
    assert ranges(found) == [(0, 2), (2, 4), (4, 6)]
    assert tree(found, 1) == [(1, 2, 4)]
    history.call(P, "munlock", (page(2), 2 * PAGE))
    assert (2, 4) not in ranges(model(history, "7.3"))
    history.call(P, "mlockall", (2,))
    mapped(history, 8, 10)
    assert alive(model(history, rules))[-1]["anon_vma"] is not None


def test_mlock_on_fault_does_not_populate(history: History, rules: str) -> None:
    mapped(history, 0, 6)
    history.call(P, "mlock2", (page(0), 6 * PAGE, 1))
    assert model(history, rules).lives.is_empty()


def test_the_stack_grows_down(history: History, rules: str) -> None:
    """A snapshot tells the stack: execve() has written to it. A fault below makes it longer."""
    stack = {"vm_start": page(100), "vm_end": page(110), "name": "[stack]"}
    history.task(P, "exec")
    history.snapshot(P, [stack])
    history.fault(P, page(97))
    found = model(history, rules)
    assert ranges(found) == [(97, 110)]
    assert len(found.lives.filter(pl.col("died_seq").is_null())) == 1
    assert found.lives["first_pgoff"].null_count() == found.lives.height


def test_mmap_grows_down_on_a_fault(history: History, rules: str) -> None:
    mapped(history, 10, 12, flags=0x132)
    history.fault(P, page(8))
    found = model(history, rules)
    assert ranges(found) == [(8, 12)]
    assert found.lives.filter(pl.col("died_seq").is_null())["first_pgoff"].to_list() == [page(8) // PAGE]


def test_exec_drops_all_and_keeps_memory_merge(history: History, rules: str) -> None:
    history.call(P, "prctl", (67, 1))
    mapped(history, 0, 2)
    history.fault(P, page(0))
    history.task(P, "exec")
    mapped(history, 4, 6)
    found = model(history, rules)
    assert (ranges(found), ranges(found, 2)) == ([], [(4, 6)])
    assert alive(found, 2)[0]["vm_flags"] & 0x80000000


def test_vfork_shares_until_exec(history: History, rules: str) -> None:
    mapped(history, 0, 4)
    history.fork(P, CHILD, 0x4100)
    history.fault(CHILD, page(1))
    history.task(CHILD, "exec")
    assert tree(model(history, rules), 1) == [(1, 0, 4)]


def test_a_pid_is_used_again(history: History, rules: str) -> None:
    mapped(history, 0, 2)
    history.fork(P, CHILD)
    history.task(CHILD, "exit")
    mapped(history, 4, 6)
    history.fork(P, CHILD)
    found = model(history, rules)
    assert (ranges(found, 2), ranges(found, 3)) == ([], [(0, 2), (4, 6)])


def test_calls_at_the_edges_of_the_capture_are_left_out_and_counted(history: History, rules: str) -> None:
    history.leave(P, "munmap", 0)  # its arguments are not known
    mapped(history, 0, 2)
    history.enter(P, "munmap", (page(0), 2 * PAGE))  # whether it works is not known
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(0, 2)], {"calls_cut": 2})


def test_a_call_that_was_interrupted_by_another_is_left_out(history: History, rules: str) -> None:
    """A return belongs to the entry right before it: in between there can be none that was lost."""
    history.enter(P, "munmap", (page(0), 2 * PAGE))
    mapped(history, 0, 2)
    history.leave(P, "munmap", 0)
    found = model(history, rules)
    assert (ranges(found), found.doubts) == ([(0, 2)], {"calls_cut": 2})


def test_calls_of_two_tasks_nest(history: History, rules: str) -> None:
    history.fork(P, CHILD, 0x100)
    history.enter(P, "mmap", (page(0), 2 * PAGE, 3, 0x32, 2**32 - 1, 0))
    mapped(history, 4, 6, pid=CHILD)
    history.leave(P, "mmap", page(0))
    assert ranges(model(history, rules)) == [(0, 2), (4, 6)]


def test_faults_inside_of_execve_are_the_new_programs(history: History, rules: str) -> None:
    mapped(history, 0, 2)
    history.enter(P, "execve", ())
    history.fault(P, page(1))
    found = model(history, rules)
    assert found.lives.is_empty()


def test_private_files_have_two_page_offsets(history: History, rules: str) -> None:
    mapped_file(history, 0, 4, 7)
    history.fault(P, page(0))
    life = model(history, rules).lives.row(0, named=True)
    assert life["vm_pgoff"] == 7
    assert life["first_pgoff"] == (page(0) // PAGE if rules == "7.3" else 7)


@pytest.mark.parametrize("fixed", [False, True])
def test_mmap_region_basic(history: History, rules: str, fixed: bool) -> None:
    """MAP_FIXED takes the place of what was there."""
    mapped(history, 0, 8)
    history.fault(P, page(0))
    start = page(2) if fixed else page(20)
    history.call(
        P, "mmap", (start if fixed else 0, 2 * PAGE, 1, 0x32 if fixed else 0x22, 2**32 - 1, 0), start
    )
    expected = [(0, 2), (2, 4), (4, 8)] if fixed else [(0, 8), (20, 22)]
    assert ranges(model(history, rules)) == expected
    assert page(0) == BASE
