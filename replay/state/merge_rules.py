"""When two VMAs side by side may become one, by the kernels' rules: reasons against it, as bits.

The one place that knows: the model asks it before it merges, the split audit to say why nothing merged. Plain
functions of numbers, which numba can compile.

Kernel: mm/vma.c is_mergeable_vma(), is_mergeable_anon_vma(), can_vma_merge_before(), can_vma_merge_after().
"""

from __future__ import annotations

from typing import Final

from replay.state.kernel import VM_MAYBE_GUARD

BY_FLAGS: Final = 1
BY_POLICY: Final = 2
BY_FILE: Final = 4
BY_ANON_VMA: Final = 8
BY_PGOFF: Final = 16

REASONS: Final = {
    BY_FLAGS: "flags",
    BY_POLICY: "policy",
    BY_FILE: "file",
    BY_ANON_VMA: "anon_vma",
    BY_PGOFF: "pgoff",
}
"""Words for the bits, in the order in which they are said."""


def refused_vma(flags: int, other_flags: int, same_policy: bool, same_file: bool) -> int:
    """is_mergeable_vma(): reasons in what the two VMAs are."""
    reasons = 0
    if (flags ^ other_flags) & ~VM_MAYBE_GUARD != 0:
        reasons |= BY_FLAGS
    if not same_policy:
        reasons |= BY_POLICY
    if not same_file:
        reasons |= BY_FILE
    return reasons


def refused_anon_vma(
    newer: bool,
    anon_vma: int,
    other_anon_vma: int,
    is_fork_child: bool,
    other_is_fork_child: bool,
    other_is_singular: bool,
) -> int:
    """is_mergeable_anon_vma(): whether the anon_vmas are in the way.

    Args:
        newer: By the rules of 7.3, where a faulted and an unfaulted VMA merge; else by those of 6.12.
        anon_vma: Of the VMA that is to be merged; -1: none.
        other_anon_vma: Of the VMA that is there; -1: none.
        is_fork_child: The one to be merged, or what it is a copy of, has anon_vmas of its parents.
        other_is_fork_child: So has the one that is there.
        other_is_singular: The one that is there is on just one tree.
    """
    if anon_vma == other_anon_vma:
        return 0
    if not newer:
        merges = (anon_vma < 0 or other_anon_vma < 0) and other_is_singular
    elif other_anon_vma < 0:
        merges = not is_fork_child
    else:
        merges = anon_vma < 0 and not other_is_fork_child
    return 0 if merges else BY_ANON_VMA


def refused_pgoff(
    newer: bool,
    is_private_file: bool,
    pgoff: int,
    expected: int,
    anon_pgoff: int,
    anon_expected: int,
) -> int:
    """Whether page offsets go on: vm_pgoff, and of private file mappings from 7.3 on the anonymous one."""
    both = newer and is_private_file
    return 0 if pgoff == expected and (not both or anon_pgoff == anon_expected) else BY_PGOFF
