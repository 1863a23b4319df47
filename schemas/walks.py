"""Result tables of the walks: what each strategy costs, what it finds and what it misses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.kinds import count, flag, int32, int64, nanoseconds, pgoff, pointer, real, text, user_address
from schemas.table import Table

if TYPE_CHECKING:
    from schemas.table import Column

_REPLAY = "replay: walks"
_KERNEL = "mm/ksm.c rmap_walk_ksm()"
_BOUNDS = "replay: modelled evidence"
UNKNOWN_TREE: Final = "not known: the tree or the range at that instant is not fully known (see quality)"
UNKNOWN_WALK: Final = "not known for at least one loop, or no rmap_item of the stable node is in the capture"
NOT_IN_EVENT: Final = "not in the capture"

OBSERVED: Final = "observed"
"""Name of the rows that hold what the kernel did, beside the strategies."""

STOCK_STRATEGY: Final = {"vm_pgoff": "full", "anon_pgoff": "linear"}
"""What stock kernels run, by the key of their trees (``capture.page_offset_rule``)."""


def bounds(name: str, what: str) -> tuple[Column, Column]:
    """Two columns: what ``name`` is at least and at most where it is not known (modelled evidence)."""
    null = f"{name} is known, or not even bounds are"
    return (
        count(f"{name}_least", f"{what} at least, inclusive.", _BOUNDS, null=null),
        count(f"{name}_most", f"{what} at most, inclusive.", _BOUNDS, null=null),
    )


OLDER: Final = "written by a version of replay that did not tell"
MAPPED_BY_DOC: Final = (
    "What tells that the page was mapped there: migration_entry (this walk replaced or restored the entry), "
    "merge (ksmd merged it there), fork (a fork copied the entry); of the last two, no fault, unmapping or "
    "exit has ended it since."
)
STRATEGY_DOC: Final = (
    "full, addr, vm_pgoff, linear, a strategy of the user, or observed: what the kernel did and counted."
)


LOOP: Final = Table(
    name="loop",
    version="1.1",
    doc="One inner loop: one rmap_item in one pass of one walk, under one strategy. Modelled, a "
    "loop that may not have been run is there too: iterations_least is 0.",
    columns=(
        int64("walk_id", "The walk (see table walk).", _REPLAY),
        nanoseconds(
            "ts_ns",
            "Instant of the tree that the loop is answered for: the start of the loop where the capture "
            "tells it, else the start of the walk. Strategy observed: time of the kernel's own event.",
            _REPLAY,
        ),
        pointer("stable_node", "The stable node whose hlist is walked.", _KERNEL, null=NOT_IN_EVENT),
        pointer("rmap_item", "The rmap_item of this loop.", _KERNEL, null=NOT_IN_EVENT),
        pointer("anon_vma", "rmap_item->anon_vma, whose tree is walked.", _KERNEL, null=NOT_IN_EVENT),
        pointer("mm", "rmap_item->mm.", _KERNEL, null=NOT_IN_EVENT),
        user_address("address", "rmap_item->address without its low bits.", _KERNEL, null=NOT_IN_EVENT),
        int32(
            "search_new_forks",
            "Pass: 0 takes VMAs of the item's own mm, 1 those of the other mms.",
            _KERNEL,
            null=NOT_IN_EVENT,
        ),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        pgoff(
            "first_pgoff",
            "First page offset of the range that the tree is asked for, inclusive.",
            "replay: strategies",
            null="a value that the strategy needs is not known",
        ),
        pgoff(
            "last_pgoff",
            "Last page offset of the range that the tree is asked for, inclusive.",
            "replay: strategies",
            null="a value that the strategy needs is not known",
        ),
        count(
            "iterations",
            "Bodies of the loop over the tree that are run (the series' Nr_iteration_total).",
            _KERNEL,
            null=UNKNOWN_TREE,
        ),
        count(
            "skip_addr_out_of_range",
            "Of the iterations, VMAs that do not contain the address.",
            _KERNEL,
            null=UNKNOWN_TREE,
        ),
        count(
            "skip_mm_mismatch",
            "Of the iterations, VMAs that contain the address and are of an mm that this pass does not take.",
            _KERNEL,
            null=UNKNOWN_TREE,
        ),
        count("rmap_one_calls", "Calls of rmap_one: VMAs that pass all checks.", _KERNEL, null=UNKNOWN_TREE),
        flag(
            "ended_early",
            "The loop ended the whole walk: rmap_one returned false, or done() returned true.",
            _KERNEL,
            null=UNKNOWN_TREE,
        ),
        nanoseconds(
            "predicted_ns",
            "Time that the fit gives for this loop (iterations and rmap_one calls; no waiting for locks); "
            "its interval is at least that times time_fit.ratio_low and ratio_high.",
            "replay: fit over the walks of this capture",
            null="no fit: the capture holds no walk durations, or iterations is null",
        ),
        *bounds("iterations", "iterations"),
        nanoseconds(
            "observed_ns",
            "Time that the kernel held the anon_vma lock for this loop, as it measured itself.",
            "ev_obs_loop",
            null="the kernel was not built to measure it; always null for strategies",
        ),
    ),
)

WALK: Final = Table(
    name="walk",
    version="1.2",
    doc="One rmap walk over a KSM folio, under one strategy.",
    columns=(
        int64("walk_id", "Number of the walk in this capture, in order of entry.", _REPLAY),
        nanoseconds("ts_ns", "Entry of the walk, trace clock.", "ev_walk, entry"),
        nanoseconds(
            "end_ns", "Return of the walk, trace clock.", "ev_walk, return", null="return not in the capture"
        ),
        int32("cpu", "CPU at entry.", "ev_walk", null="a walk that was asked for, which no task made"),
        int32("pid", "Thread id of the walking task.", "ev_walk", null="a walk that was asked for"),
        text(
            "comm",
            "Name of the walking task at that time.",
            "ev_walk; else ev_task and the capture's list of names",
            null="not in the capture",
        ),
        pointer("folio", "The folio.", "ev_walk", null=NOT_IN_EVENT),
        pointer("stable_node", "The stable node of the folio.", "ev_walk", null=NOT_IN_EVENT),
        text("caller", "Name of rwc->rmap_one, such as try_to_migrate_one.", "ev_walk", null=NOT_IN_EVENT),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        count("loops", "Inner loops that are run, both passes together.", _KERNEL, null=UNKNOWN_WALK),
        count("iterations_total", "Sum of iterations over the loops.", _KERNEL, null=UNKNOWN_WALK),
        count("iterations_max", "Largest iterations of one loop.", _KERNEL, null=UNKNOWN_WALK),
        count(
            "skip_addr_out_of_range_max",
            "Largest skip_addr_out_of_range of one loop.",
            _KERNEL,
            null=UNKNOWN_WALK,
        ),
        count("skip_mm_mismatch_max", "Largest skip_mm_mismatch of one loop.", _KERNEL, null=UNKNOWN_WALK),
        count("rmap_one_calls", "Sum of rmap_one_calls over the loops.", _KERNEL, null=UNKNOWN_WALK),
        count(
            "mappings_missed",
            "Mappings that full, run to its end, would visit and this strategy does not (rows of miss).",
            _REPLAY,
            null="not known: ranges or trees are not fully known; always null for observed",
        ),
        nanoseconds(
            "observed_ns",
            "Time from entry to return in the capture, the probes' own cost included.",
            "ev_walk; ev_obs_walk.duration_ns where the kernel measured it",
            null="return not in the capture, a walk that was asked for, or the clock counts no ns",
        ),
        nanoseconds(
            "predicted_ns",
            "Time that the fit gives for this walk under this strategy, were it not held up.",
            "replay: fit over the walks of this capture",
            null="no fit, or a count that it needs is null",
        ),
        *bounds("iterations_total", "Sum of iterations over the loops"),
        *bounds("iterations_max", "Largest iterations of one loop"),
        nanoseconds(
            "held_up_ns",
            "Part of observed_ns in which the task was off the CPU or waited for a lock.",
            "replay: held_up (sched_switch, contention_begin, contention_end)",
            null="the capture has no such events, observed_ns is null, or an older version",
        ),
        *(
            nanoseconds(
                f"predicted_{end}_ns",
                f"The {end} end of the interval of predicted_ns: 5 % of the fitted walks lie {beyond} it; "
                "wider where parts of walks were fitted, by what these leave open of the terms.",
                "time_fit.ratio_low, ratio_high",
                null="predicted_ns is null, or an older version",
            )
            for end, beyond in (("low", "below"), ("high", "above"))
        ),
        text(
            "uncertain",
            "How lost events may have changed this row, the most serious that applies. during: they were "
            "lost while it ran; list: an rmap_item of its stable node came or went unseen; tree: so did an "
            "interval in a range that is looked up; after: they were lost before, and nothing shows more.",
            "replay: doubts",
            null="no events had been lost, or (strategy observed) none while it ran",
        ),
    ),
)

MISS: Final = Table(
    name="miss",
    version="1.1",
    doc="One mapping that full, run to its end, would visit in a walk and the strategy does not.",
    columns=(
        int64("walk_id", "The walk.", _REPLAY),
        text("strategy", "The strategy that misses the mapping.", "replay: strategies"),
        pointer("rmap_item", "The rmap_item that lists the mapping.", "ev_append"),
        pointer("mm", "The mm of the VMA that is missed.", "ev_avc"),
        user_address("address", "Address of the mapping.", "ev_append"),
        user_address("vm_start", "First byte of the VMA that is missed, at the walk.", "ev_avc"),
        user_address("vm_end", "First byte after the VMA that is missed, at the walk.", "ev_avc"),
        text(
            "cause_event",
            "What moved or split the VMA: name of the system call or of the event.",
            _REPLAY,
            null="not found in the capture",
        ),
        nanoseconds(
            "cause_ts_ns", "Time of the cause, trace clock.", _REPLAY, null="not found in the capture"
        ),
        int32("cause_pid", "Thread id of the task that caused it.", _REPLAY, null="not found in the capture"),
        pgoff("first_pgoff", "First page offset looked up, inclusive.", "replay: strategies", null=OLDER),
        pgoff("last_pgoff", "Last page offset looked up, inclusive.", "replay: strategies", null=OLDER),
        pgoff(
            "page_pgoff",
            "Where it would have been: page offset of the page in the VMA that is missed, at the walk.",
            _REPLAY,
            null=OLDER,
        ),
        text("mapped_by", MAPPED_BY_DOC, _REPLAY, null=OLDER),
        text(
            "cause_kind",
            "split: after the merge, the VMA that held the page and the page offset looked up lost one of "
            "them; moved: mremap() left the page offset behind; stack: exec placed the stack; file: a "
            "private file mapping, whose page offsets are the file's; lookup: the strategy looks elsewhere.",
            _REPLAY,
            null="not found in the capture",
        ),
        text(
            "cause_arguments",
            "Arguments of the system call, as in its manual page.",
            "ev_syscall",
            null="no system call, or not in the capture",
        ),
        text("cause_comm", "Name of that task.", "the capture's list of names", null="not in the capture"),
    ),
)


def summary_columns() -> tuple[Column, ...]:
    """Columns of ``summary``, which ``fleet`` shares; one set of values a strategy."""
    unknown = "no walk of the capture has a known value"
    return (
        text(
            "evidence",
            "observed: the kernel's own counts; replayed: from the probes' exact state; modelled: from "
            "system calls by the kernel's rules; predicted: a strategy of which the capture tells less.",
            _REPLAY,
        ),
        count("walks", "Walks.", _REPLAY),
        count("loops", "Inner loops; modelled, with those that may have been run.", _REPLAY),
        real(
            "time_ms_max",
            "Longest walk (Time_ms): observed, with waits for locks and time off the CPU; predicted, without "
            "what events tell of these (walk.held_up_ns).",
            "observed: rmap_walk_ksm() and its return; a strategy: a fit over the walks",
            null="not measured, or no fit",
            unit="ms",
        ),
        count(
            "iterations_max", "Largest iterations of one loop (Nr_iteration_total).", _REPLAY, null=unknown
        ),
        count(
            "skip_addr_out_of_range_max",
            "Largest of one loop (Skip_addr_out_of_range).",
            _REPLAY,
            null=unknown,
        ),
        count("skip_mm_mismatch_max", "Largest of one loop (Skip_mm_mismatch).", _REPLAY, null=unknown),
        count("iterations_total", "Sum of iterations over all loops.", _REPLAY, null=unknown),
        count(
            "found",
            "Mappings that the walks visit, run to their ends.",
            _REPLAY,
            null="not known; always null for observed",
        ),
        count(
            "missed",
            "Mappings that full would visit and the strategy does not.",
            _REPLAY,
            null="not known; always null for observed",
        ),
        *bounds("iterations_max", "Largest iterations of one loop"),
        *bounds("iterations_total", "Sum of iterations over all loops"),
        *(
            real(
                f"time_ms_{end}",
                f"The {end} end of the interval that holds 90 % of such walks.",
                "time_fit.ratio_low, ratio_high",
                null="observed, or no fit",
                unit="ms",
            )
            for end in ("low", "high")
        ),
    )


SUMMARY: Final = Table(
    name="summary",
    version="1.2",
    doc="One strategy (or observed): the table of the patch series. Maxima are over inner loops, each alone.",
    columns=(text("strategy", STRATEGY_DOC, "replay: strategies"), *summary_columns()),
)

OTHER_KERNEL: Final = Table(
    name="other_kernel",
    version="1.1",
    doc="One strategy by the rules of another kernel: summary of the same walks over the same rmap_items, on "
    "trees as that kernel would have kept them. There where --kernel-rules was given, with exact evidence.",
    columns=(
        text("kernel_rules", "Whose rules: 6.12 (up to 7.2) or 7.3.", "option --kernel-rules"),
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        *summary_columns(),
    ),
)

WAIT: Final = Table(
    name="wait",
    version="1.0",
    doc="One wait of a task for the lock of an anon_vma family (anon_vma->root->rwsem).",
    columns=(
        nanoseconds("ts_ns", "Begin of the wait, trace clock.", "lock:contention_begin"),
        nanoseconds(
            "end_ns", "End of the wait, trace clock.", "lock:contention_end", null="not in the capture"
        ),
        int32("cpu", "CPU on which the wait began.", "lock:contention_begin"),
        int32("pid", "Thread id of the task that waits.", "lock:contention_begin"),
        text(
            "comm",
            "Its name at that time.",
            "ev_task, the capture's list of names",
            null="not in the capture",
        ),
        flag("is_write", "It waits to change the family's trees; else to walk one.", "LCB_F_WRITE"),
        pointer("root", "The root anon_vma, whose lock it is.", "lock_addr less the offset of rwsem"),
        text("doing", "System call that it waits in, or page_fault.", _REPLAY, null="not in the capture"),
        int64("walk_id", "The walk of this family that the wait overlaps longest.", _REPLAY, null="none"),
        nanoseconds("behind_walks_ns", "Part of the wait during which a walk of this family ran.", _REPLAY),
    ),
)

_NO_FIT = "no fit, or not for all walks that tasks waited behind"
_LOST = "replay: victims"

LOST: Final = Table(
    name="lost",
    version="1.0",
    doc="What tasks that wait to change anon_vma families' trees lose together, under one strategy or "
    "observed: the waits of the capture, their parts behind walks as much shorter or longer as these walks.",
    columns=(
        text("strategy", STRATEGY_DOC, "replay: strategies"),
        count("waits", "Waits of writers whose end is in the capture.", "table wait"),
        nanoseconds("lost_ns", "Sum of the waits; a strategy: predicted.", _LOST, null=_NO_FIT),
        nanoseconds("behind_walks_ns", "The part of it behind walks.", _LOST, null=_NO_FIT),
        nanoseconds(
            "lost_least_ns",
            "With the low end of the fit's interval, between whose ends 90 % of the fitted walks lie.",
            _LOST,
            null=f"observed, or {_NO_FIT}",
        ),
        nanoseconds("lost_most_ns", "With its high end.", _LOST, null=f"observed, or {_NO_FIT}"),
        text("evidence", "observed or predicted.", _LOST),
    ),
)

TABLES: Final = (SUMMARY, OTHER_KERNEL, WALK, LOOP, MISS, WAIT, LOST)
