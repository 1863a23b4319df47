"""Event tables in which the kernel itself tells what its walks did.

The replay never reads these: they fill the rows of strategy ``observed``, which the replayed rows are
compared with. ``ev_obs_first``, ``ev_obs_next`` and ``ev_obs_one`` come from probes on the functions of
the walk; ``ev_obs_loop`` and ``ev_obs_walk`` from kernels that count for themselves, and keep that
event's own field names (codes: strategy 0 full, 1 addr, 2 vm_pgoff, 3 linear; ended 0 end, 1 rmap_one,
2 done, 3 contended).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.events import IS_RETURN, NOT_RECORDED, event_table
from schemas.kinds import count, flag, int32, int64, nanoseconds, pgoff, pointer, text, uint64, user_address

if TYPE_CHECKING:
    from schemas.table import Column

_FIRST = "anon_vma_interval_tree_iter_first(); 7.3: anon_rmap_tree_iter_first()"
_NEXT = "anon_vma_interval_tree_iter_next(); 7.3: anon_rmap_tree_iter_next()"
_ONE = "the function rwc->rmap_one"
_LOOP = "ksm:ksm_rmap_loop"
_WALK = "ksm:ksm_rmap_walk"
_ON_ENTRY = "a return, or the event of this capture has no such field"

EV_OBS_FIRST: Final = event_table(
    "ev_obs_first",
    "Entry into or return from the search for the first interval: the start of one inner loop.",
    flag("is_return", IS_RETURN, _FIRST),
    pointer("anon_vma", "The anon_vma whose tree is searched.", _FIRST, null="a return, or 6.12 (see root)"),
    pointer("root", "&anon_vma->rb_root, the argument up to 7.2.", _FIRST, null="a return, or from 7.3 on"),
    pgoff("first", "First page offset of the range, inclusive.", _FIRST, null=_ON_ENTRY),
    pgoff("last", "Last page offset of the range, inclusive.", _FIRST, null=_ON_ENTRY),
    pointer("avc", "What is returned; 0: no interval overlaps the range.", _FIRST, null="an entry"),
)

EV_OBS_NEXT: Final = event_table(
    "ev_obs_next",
    "Entry into the search for the next interval: the end of one iteration.",
    pointer("avc", "The interval that the iteration looked at.", _NEXT),
    pointer("vma", "avc->vma.", _NEXT, null=NOT_RECORDED),
    pgoff("first", "First page offset of the range, inclusive.", _NEXT, null=NOT_RECORDED),
    pgoff("last", "Last page offset of the range, inclusive.", _NEXT, null=NOT_RECORDED),
)

EV_OBS_ONE: Final = event_table(
    "ev_obs_one",
    "Entry into or return from one call of rmap_one.",
    flag("is_return", IS_RETURN, _ONE),
    text("fn", 'Name of the function, such as "try_to_migrate_one".', "name of the probe"),
    pointer("vma", "The VMA that it is called for.", _ONE, null=_ON_ENTRY),
    user_address("address", "The address that it is called for.", _ONE, null=_ON_ENTRY),
    user_address("vm_start", "First byte of the VMA.", _ONE, null=_ON_ENTRY),
    user_address("vm_end", "First byte after the VMA.", _ONE, null=_ON_ENTRY),
    pointer("mm", "vma->vm_mm.", _ONE, null=_ON_ENTRY),
    int64("ret", "Return value; 0 (false) ends the whole walk.", _ONE, null="an entry"),
)


def _counters(source: str) -> tuple[Column, ...]:
    """The counters that the loop and the walk event have in common, in the event's order."""
    return (
        count("nr_iteration_total", "Bodies of the loop over the tree that were run.", source),
        count("skip_addr_out_of_range", "Of these, VMAs that do not contain the address.", source),
        count("skip_mm_mismatch", "Of these, VMAs of an mm that this pass does not take.", source),
        count("skip_invalid_vma", "Of these, VMAs that rwc->invalid_vma refused.", source),
        count("nr_rmap_one", "Calls of rmap_one.", source),
        int32("mapcount_before", "Mappings of the folio before.", source, unit="count"),
        int32("mapcount_after", "Mappings of the folio after.", source, unit="count"),
    )


EV_OBS_LOOP: Final = event_table(
    "ev_obs_loop",
    "One inner loop as counted by a kernel built to count; recorded at its end.",
    uint64("walk_id", "The kernel's own number of the walk.", _LOOP),
    int32("loop_seq", "Place of the loop in its walk, from 0.", _LOOP),
    int32("strategy", "Code of the strategy.", _LOOP),
    uint64("pfn", "Page frame number of the folio.", _LOOP),
    pointer("stable_node", "The stable node.", _LOOP),
    pointer("rmap_item", "The rmap_item.", _LOOP),
    pointer("anon_vma", "rmap_item->anon_vma.", _LOOP),
    pointer("mm", "rmap_item->mm.", _LOOP),
    user_address("addr", "rmap_item->address without its low bits.", _LOOP),
    pgoff("pgoff_start", "First page offset of the range, inclusive.", _LOOP),
    pgoff("pgoff_end", "Last page offset of the range, inclusive.", _LOOP),
    pgoff("linear_page_index", "Linear page index of the page at the time of the merge.", _LOOP),
    pgoff("vma_pgoff", "Page offset of the VMA at the time of the merge.", _LOOP),
    int32("search_new_forks", "Pass: 0 the item's own mm, 1 the others.", _LOOP),
    int32("contended", "1: the loop was not run because try_lock failed.", _LOOP),
    int32("ended", "Code of what ended the loop.", _LOOP),
    *_counters(_LOOP),
    int32("shadow_iter", "Iterations of the full range run beside it; -1: not run.", _LOOP, unit="count"),
    int32("shadow_match", "Matches that the full range found; -1: not run.", _LOOP, unit="count"),
    nanoseconds("wait_ns", "Time waited for the anon_vma lock.", _LOOP),
    nanoseconds("duration_ns", "Time that the anon_vma lock was held.", _LOOP),
)

EV_OBS_WALK: Final = event_table(
    "ev_obs_walk",
    "One rmap walk as counted by a kernel built to count; recorded at its end.",
    uint64("walk_id", "The kernel's own number of the walk.", _WALK),
    uint64("pfn", "Page frame number of the folio.", _WALK),
    pointer("stable_node", "The stable node.", _WALK),
    pointer("rmap_one", "Address of rwc->rmap_one.", _WALK),
    int32("strategy", "Code of the strategy.", _WALK),
    int32("rmap_hlist_len", "Number of rmap_items on the stable node.", _WALK, unit="count"),
    int32("try_lock", "rwc->try_lock: 0 or 1.", _WALK),
    int32("ended", "Code of what ended the walk.", _WALK),
    count("nr_loops", "Inner loops that were run.", _WALK),
    *_counters(_WALK),
    int32("shadow", "1: the full range was run beside each loop.", _WALK),
    int32("shadow_match", "Matches that the full range found.", _WALK, unit="count"),
    int32(
        "shadow_missed", "Matches that the full range found and the strategy did not.", _WALK, unit="count"
    ),
    nanoseconds("hold_ns", "Time that anon_vma locks were held, all loops together.", _WALK),
    nanoseconds("max_hold_ns", "Longest time that one anon_vma lock was held.", _WALK),
    nanoseconds("duration_ns", "Time from the start to the end of the walk.", _WALK),
)

TABLES: Final = (EV_OBS_FIRST, EV_OBS_NEXT, EV_OBS_ONE, EV_OBS_LOOP, EV_OBS_WALK)
