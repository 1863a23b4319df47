"""Result tables of the split audit: the largest anon_vma trees, who made their VMAs, what did not merge.

A call site is all calls of one kind with the same kind of arguments, by one task (from one user stack, where
the capture has stacks). What calls do to a tree is counted as insertions and removals, so what the call sites
of a tree added up to its peak, and what was there before the capture, is the peak.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.kinds import count, flag, int32, int64, nanoseconds, pointer, text, uint64
from schemas.mm import BEFORE, EVIDENCE
from schemas.table import Table

if TYPE_CHECKING:
    from schemas.table import Column

_AUDIT = "replay: splits"
_CALL = "ev_syscall"
_OUTSIDE = "the capture does not tell what the task was doing"
_RULES = "replay: merge_rules"
_UNTOLD = "no reason is known, and the probes do not tell all that the rules ask for"
_TOGETHER = "several call sites put together (see sites)"


def _site() -> tuple[Column, ...]:
    """Columns that say who."""
    return (
        text(
            "cause_event",
            "System call that the task was in, or page_fault.",
            _CALL,
            null=f"{_OUTSIDE}, or {_TOGETHER}",
        ),
        text(
            "arguments",
            "Arguments of the call that say what it does, by their names in the kernel's interface, such as "
            "PROT_READ or MADV_MERGEABLE; no addresses.",
            _CALL,
            null=f"the call has none such, or {_TOGETHER}",
        ),
        int32("pid", "Thread id of the task.", "common_pid", null=f"not known, or {_TOGETHER}"),
        text(
            "comm",
            "Name of the task at that time.",
            "ev_task, the capture's list of names",
            null="not in the capture",
        ),
        text(
            "stack",
            "User stack of the task in the call: addresses, the innermost first, separated by ' < '.",
            "ev_stack",
            null=f"not recorded, or {_TOGETHER}",
        ),
    )


TREE: Final = Table(
    name="tree",
    version="1.0",
    doc="One of the largest anon_vma trees by the VMAs that were on it at once, the largest first; those "
    "that never had two are left out.",
    columns=(
        int64("tree_id", "Number of the tree in this table, from 0.", _AUDIT),
        pointer("anon_vma", "The struct anon_vma; modelled: a number.", "ev_avc"),
        pointer("root", "The root of its family; modelled: a number.", "replay: families"),
        nanoseconds("born_ts_ns", "First insertion, trace clock.", "ev_avc", null=BEFORE),
        count("before", "VMAs that were on it before the capture began and left in it.", _AUDIT),
        count("inserted", "Insertions.", _AUDIT),
        count("removed", "Removals.", _AUDIT),
        count("peak", "Most VMAs on it at once: the iterations of a loop over all of it.", _AUDIT),
        nanoseconds("peak_ts_ns", "When it had that many first.", _AUDIT, null=BEFORE),
        count("mms", "Address spaces that had a VMA on it at the peak.", _AUDIT),
        count("at_end", "VMAs on it at the end of the capture.", _AUDIT),
        text("evidence", EVIDENCE, _AUDIT),
    ),
)

SPLIT: Final = Table(
    name="split",
    version="1.0",
    doc="One call site and what it did to one of the trees of table tree; what added most comes first.",
    columns=(
        int64("tree_id", "The tree.", _AUDIT),
        *_site(),
        count("sites", "Call sites in this row: 1, or the many small ones of the tree put together.", _AUDIT),
        count("calls", "Calls (faults) that changed the tree.", _AUDIT),
        count("inserted", "Insertions into the tree.", _AUDIT),
        count("removed", "Removals from the tree.", _AUDIT),
        count("vmas", "VMAs that they added to the tree, less those that they took away.", _AUDIT),
        count(
            "vmas_to_peak",
            "The same up to the peak: over the call sites of a tree, and tree.before, the sum is tree.peak.",
            _AUDIT,
        ),
        count(
            "most_by_call", "Most VMAs that one of the calls added; negative: each took some away.", _AUDIT
        ),
        nanoseconds("first_ts_ns", "First change of the tree by them, trace clock.", _AUDIT),
        nanoseconds("last_ts_ns", "Last change of the tree by them, trace clock.", _AUDIT),
        text("evidence", EVIDENCE, _AUDIT),
    ),
)

POPULATION: Final = Table(
    name="population",
    version="1.0",
    doc="VMAs that calls of one kind had added to one tree of table tree up to an instant. All kinds of a "
    "tree have the same instants, so with tree.before they add up to the VMAs on the tree.",
    columns=(
        int64("tree_id", "The tree.", _AUDIT),
        text("cause_event", "System call, or page_fault.", _CALL, null=_OUTSIDE),
        nanoseconds("ts_ns", "The instant, trace clock; the peak is one of them.", _AUDIT),
        count("vmas", "VMAs added less VMAs taken away, from the begin of the capture on.", _AUDIT),
    ),
)

REFUSAL: Final = Table(
    name="refusal",
    version="1.0",
    doc="Merges of two VMAs that did not happen, at one call site for the same reasons; most first.",
    columns=(
        text(
            "kind",
            "neighbours: VMAs that lay side by side on a tree at its peak, by what the later of the two was "
            "made by; merge: merges that calls tried and the rules of 6.12 or of 7.3 refuse.",
            _AUDIT,
        ),
        int64(
            "tree_id", "The tree.", _AUDIT, null="merge: not on one of them, or the trees are those of probes"
        ),
        *_site(),
        text(
            "reasons",
            "Why, all that hold, separated by commas: flags (vm_flags differ), policy, file, anon_vma (the "
            "rule on anon_vmas), pgoff (page offsets do not follow); or apart: the VMAs do not touch. Empty: "
            "none that the evidence tells (probes tell neither policy nor file).",
            "mm/vma.c is_mergeable_vma(), is_mergeable_anon_vma(), can_vma_merge_before()/_after()",
        ),
        uint64(
            "vm_flags",
            "The bits of vm_flags that differ, in all of the merges together; neighbours of exact evidence: "
            "when they left the tree.",
            "mm/vma.c is_mergeable_vma()",
            null="not in the capture",
            unit="VM_* bits",
        ),
        flag("by_6_12", "Whether the rules of 6.12 refuse it.", _RULES, null=_UNTOLD),
        flag("by_7_3", "Whether the rules of 7.3 refuse it, in the same state.", _RULES, null=_UNTOLD),
        count("merges", "How many.", _AUDIT),
        nanoseconds("first_ts_ns", "The first, trace clock.", _AUDIT, null=BEFORE),
        nanoseconds("last_ts_ns", "The last, trace clock.", _AUDIT, null=BEFORE),
        text("evidence", EVIDENCE, _AUDIT),
    ),
)

TABLES: Final = (TREE, SPLIT, POPULATION, REFUSAL)
