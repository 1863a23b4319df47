"""Event tables of KSM and of rmap walks over KSM folios; the common columns are in ``schemas.events``."""

from __future__ import annotations

from typing import Final

from schemas.events import IS_RETURN, NOT_RECORDED, event_table
from schemas.kinds import flag, int32, pgoff, pointer, text, uint64, user_address

_APPEND = "mm/ksm.c stable_tree_append()"
_REMOVE = "mm/ksm.c remove_rmap_item_from_tree()"
_WALK = "mm/ksm.c rmap_walk_ksm()"
_ON_ENTRY = "a return, or the event of this capture has no such field"
_RAW_ADDRESS = (
    "rmap_item->address as it is: the low bits below the page size are flags "
    "(0x100 UNSTABLE_FLAG, 0x200 STABLE_FLAG) and, for an unstable item, the scan sequence number."
)

EV_APPEND: Final = event_table(
    "ev_append",
    "One rmap_item put at the head of the hlist of a stable node: the page at (mm, address) is merged.",
    pointer("rmap_item", "The struct ksm_rmap_item.", _APPEND),
    pointer("stable_node", "The struct ksm_stable_node (a dup, never a chain).", _APPEND),
    pointer("mm", "rmap_item->mm.", _APPEND),
    user_address("address", _RAW_ADDRESS, _APPEND),
    pointer("anon_vma", "rmap_item->anon_vma: vma->anon_vma at the time of the merge.", _APPEND),
    uint64("kpfn", "stable_node->kpfn: page frame number.", _APPEND, null=NOT_RECORDED),
    pgoff(
        "linear_page_index",
        "rmap_item->linear_page_index: page offset of the page at the time of the merge.",
        _APPEND,
        null="the kernel has no such field (up to 7.2), or the event does not",
    ),
)

EV_ITEM_REMOVE: Final = event_table(
    "ev_item_remove",
    "Entry into or return from the removal of one rmap_item. It concerns the stable tree only when "
    "`address & 0x200`; the removal happens between entry and return, under the folio lock.",
    flag("is_return", IS_RETURN, _REMOVE),
    pointer("rmap_item", "The struct ksm_rmap_item.", _REMOVE, null="a return"),
    user_address("address", _RAW_ADDRESS, _REMOVE, null=_ON_ENTRY),
    pointer("mm", "rmap_item->mm.", _REMOVE, null=_ON_ENTRY),
    pointer(
        "anon_vma",
        "rmap_item->anon_vma; meaningful for a stable item only.",
        _REMOVE,
        null=_ON_ENTRY,
    ),
    pointer(
        "head",
        "rmap_item->head: the stable node that the item hangs on; meaningful for a stable item only "
        "(the same bytes are the rb_node of an unstable item).",
        _REMOVE,
        null=_ON_ENTRY,
    ),
)

EV_NODE_REMOVE: Final = event_table(
    "ev_node_remove",
    "One stable node emptied and freed; may happen inside a remove_rmap_item_from_tree().",
    pointer("stable_node", "The struct ksm_stable_node.", "mm/ksm.c remove_node_from_stable_tree()"),
)

EV_WALK: Final = event_table(
    "ev_walk",
    "Entry into or return from one rmap walk over a KSM folio. A return belongs to the last open entry of "
    "its thread.",
    flag("is_return", IS_RETURN, _WALK),
    pointer("folio", "The struct folio.", _WALK, null=_ON_ENTRY),
    pointer(
        "stable_node",
        "folio->mapping without its two low bits: the stable node whose hlist is walked.",
        _WALK,
        null=_ON_ENTRY,
    ),
    text(
        "rmap_one",
        'rwc->rmap_one as a symbol without offset, such as "try_to_migrate_one"; says who walks.',
        _WALK,
        null=_ON_ENTRY,
    ),
    uint64(
        "done",
        "rwc->done: address of the function that may end the walk after an rmap_one; 0: none is set.",
        _WALK,
        null=_ON_ENTRY,
        unit="kernel address",
    ),
    uint64(
        "invalid_vma",
        "rwc->invalid_vma: address of the function that filters VMAs before rmap_one; 0: none is set.",
        _WALK,
        null=_ON_ENTRY,
        unit="kernel address",
    ),
    flag("try_lock", "rwc->try_lock: the walk gives up when an anon_vma is busy.", _WALK, null=_ON_ENTRY),
    int32(
        "mapcount",
        "Number of page table entries that map the folio at entry (folio->_mapcount + 1).",
        _WALK,
        null=_ON_ENTRY,
        unit="count",
    ),
    text("comm", "Name of the task that walks.", "$comm of the probe", null=NOT_RECORDED),
)

_PTE = "migrate:set_migration_pte, migrate:remove_migration_pte"

EV_MIGRATION_PTE: Final = event_table(
    "ev_migration_pte",
    "One page table entry replaced by a migration entry, or restored from it: one successful rmap_one.",
    flag("is_set", "True: set_migration_pte; false: remove_migration_pte.", _PTE),
    user_address("address", "Address that the entry maps, in an mm that the event does not tell.", _PTE),
    uint64("pte", "The new entry, raw.", _PTE, null=NOT_RECORDED, unit="page table entry"),
    int32("order", "log2 of the number of pages that the entry maps.", _PTE, null=NOT_RECORDED),
)

_MERGE = "ksm:ksm_merge_with_ksm_page"

EV_MERGE: Final = event_table(
    "ev_merge",
    "One page tried to be merged with a KSM page; comes before the ev_append of a success.",
    pointer("ksm_page", "The struct page of the KSM page.", _MERGE, null=NOT_RECORDED),
    uint64("pfn", "Page frame number of the KSM page.", _MERGE, null=NOT_RECORDED),
    pointer("rmap_item", "The struct ksm_rmap_item of the page.", _MERGE),
    pointer("mm", "The mm of the page.", _MERGE),
    int32("err", "0: merged; else a negated errno (-EFAULT: the page could not be merged).", _MERGE),
)

EV_FOLIO_MIGRATE: Final = event_table(
    "ev_folio_migrate",
    "A stable node passed from one folio to another: its kpfn changes, its address does not.",
    pointer("newfolio", "The folio that takes over.", "mm/ksm.c folio_migrate_ksm()"),
    pointer("folio", "The folio that is left.", "mm/ksm.c folio_migrate_ksm()"),
)

EV_SCAN: Final = event_table(
    "ev_scan",
    "Begin or end of one pass of ksmd: what ksmd did before is over.",
    flag("is_stop", "The end of the pass.", "mm/ksm.c scan_get_next_rmap_item(), ksm tracepoints"),
)

EV_KSM_ENTER: Final = event_table(
    "ev_ksm_enter",
    "An address space put on the list that ksmd scans: by madvise() or prctl() of its own task, by execve(), "
    "or by the fork that made it, before the child's task_newtask.",
    pointer("mm", "The struct mm_struct.", "ksm:ksm_enter"),
)

EV_KSM_REMOVED: Final = event_table(
    "ev_ksm_removed",
    "A stable node was freed, or, just before that, one rmap_item that it listed; not the last one.",
    uint64("pfn", "stable_node->kpfn.", "ksm:ksm_remove_ksm_page, ksm:ksm_remove_rmap_item"),
    pointer("rmap_item", "The rmap_item.", "ksm:ksm_remove_rmap_item", null="the node itself"),
)

TABLES: Final = (
    EV_APPEND,
    EV_ITEM_REMOVE,
    EV_NODE_REMOVE,
    EV_WALK,
    EV_MIGRATION_PTE,
    EV_MERGE,
    EV_FOLIO_MIGRATE,
    EV_SCAN,
    EV_KSM_ENTER,
    EV_KSM_REMOVED,
)
