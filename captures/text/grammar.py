"""How the events that have a role print their fields as text. Data, no logic.

``captures.text.bodies`` makes patterns of it.

A template is the event's print format with ``{name:kind}`` where a value stands; everything else is literal.
Names are those of the binary event, so that ``captures.roles`` finds them. Kinds:

``hex``
    Digits of base 16, with or without ``0x``: unsigned, 64 bits.
``dec``
    A decimal number: signed, 64 bits (larger ones wrap, as a register does).
``ptr``
    A kernel pointer printed by ``%p``. The kernel hashes those (unless booted with ``no_hash_pointers``); a
    hashed one joins with nothing, so an event that prints one is left out.
``text``
    Text up to what follows it in the template.
``skip``
    Anything; has no name.
``a|b|c``
    One of these words: the number of its place.

``trace-cmd report -R`` prints ``name=value`` for every field instead, which needs no template of its own.
Probes and system calls are not here: they print the names of all their fields.
"""

from __future__ import annotations

from typing import Final

_FAULT: Final = "address={address:hex} ip={:skip} error_code={error_code:hex}"
_PTE: Final = "addr={addr:hex}, pte={pte:hex} order={order:dec}"
_SCAN: Final = "seq {seq:dec} rmap size {rmap_entries:dec}"
_ENDED: Final = "{ended:end|rmap_one|done|contended}"
_STRATEGY: Final = "{strategy:full|addr|vm_pgoff|linear}"
_COUNTERS: Final = (
    "nr_iteration_total={nr_iteration_total:dec} skip_addr_out_of_range={skip_addr_out_of_range:dec} "
    "skip_mm_mismatch={skip_mm_mismatch:dec} skip_invalid_vma={skip_invalid_vma:dec} "
    "nr_rmap_one={nr_rmap_one:dec} mapcount_before={mapcount_before:dec} mapcount_after={mapcount_after:dec}"
)

TEMPLATES: Final = {
    "exceptions:page_fault_kernel": _FAULT,
    "exceptions:page_fault_user": _FAULT,
    "ftrace:print": "{:skip}: {buf:text}",
    "ksm:ksm_enter": "mm {mm:ptr}",
    "ksm:ksm_merge_with_ksm_page": (
        "{:skip}pfn {pfn:dec} rmap_item {rmap_item:ptr} mm {mm:ptr} error {err:dec}"
    ),
    "ksm:ksm_remove_ksm_page": "pfn {pfn:dec}",
    "ksm:ksm_remove_rmap_item": "pfn {pfn:dec} rmap_item {rmap_item:ptr} mm {mm:ptr}",
    "ksm:ksm_rmap_loop": (
        f"walk_id={{walk_id:dec}} loop_seq={{loop_seq:dec}} strategy={_STRATEGY} pfn={{pfn:hex}} "
        "stable_node={stable_node:hex} rmap_item={rmap_item:hex} anon_vma={anon_vma:hex} mm={mm:hex} "
        "addr={addr:hex} pgoff_start={pgoff_start:hex} pgoff_end={pgoff_end:hex} "
        "linear_page_index={linear_page_index:hex} vma_pgoff={vma_pgoff:hex} "
        f"search_new_forks={{search_new_forks:dec}} contended={{contended:dec}} ended={_ENDED} {_COUNTERS} "
        "shadow_iter={shadow_iter:dec} shadow_match={shadow_match:dec} wait_ns={wait_ns:dec} "
        "duration_ns={duration_ns:dec}"
    ),
    "ksm:ksm_rmap_walk": (
        "walk_id={walk_id:dec} pfn={pfn:hex} stable_node={stable_node:hex} rmap_one={rmap_one:hex} "
        f"strategy={_STRATEGY} rmap_hlist_len={{rmap_hlist_len:dec}} try_lock={{try_lock:dec}} "
        f"ended={_ENDED} nr_loops={{nr_loops:dec}} {_COUNTERS} shadow={{shadow:dec}} "
        "shadow_match={shadow_match:dec} shadow_missed={shadow_missed:dec} hold_ns={hold_ns:dec} "
        "max_hold_ns={max_hold_ns:dec} duration_ns={duration_ns:dec}"
    ),
    "ksm:ksm_start_scan": _SCAN,
    "ksm:ksm_stop_scan": _SCAN,
    "migrate:remove_migration_pte": _PTE,
    "migrate:set_migration_pte": _PTE,
    "mmap:exit_mmap": "mm={mm:ptr}",
    "mmap_lock:mmap_lock_acquire_returned": "mm={mm:ptr} {:skip}write={write:false|true} success=",
    "sched:sched_process_exec": "filename={filename:text} pid={pid:dec} old_pid={old_pid:dec}",
    "sched:sched_process_exit": "comm={comm:text} pid={pid:dec} prio={prio:dec}",
    "sched:sched_process_fork": "{:skip}child_comm={child_comm:text} child_pid={child_pid:dec}",
    "sched:sched_process_free": "comm={comm:text} pid={pid:dec} prio={prio:dec}",
    "sched:sched_switch": "{:skip}:{prev_pid:dec} [{:skip} ==> {:skip}:{next_pid:dec} [",
    "task:task_newtask": "pid={pid:dec} comm={comm:text} clone_flags={clone_flags:hex} ",
}
"""Template of each stock event, 6.12 to 7.3; of sched_switch, what trace-cmd makes of it.

Two of them do not fit what is printed: exit_mmap prints another pointer than ``mm`` (but with
``trace-cmd report -R``), and ksm_rmap_walk the name of ``rmap_one`` in place of its address.
"""

USER_STACK: Final = "ftrace:user_stack"
MARKER: Final = "tracing_mark_write"
"""Function that writes trace_marker: tracefs prints its name in place of ``print``."""

MARKER_TEMPLATE: Final = "{buf:text}"

SYSTEMS: Final = {name.partition(":")[2]: name for name in TEMPLATES}
"""Full names of the stock events by their name: only perf script prints the system too."""

PROBE_SYSTEM: Final = "probe"
"""System that is given to a probe where the text does not name it."""

UNKNOWN_SYSTEM: Final = "unknown"
"""System that is given to any other event where the text does not name it."""
