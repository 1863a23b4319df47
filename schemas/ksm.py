"""Result table of KSM: the lives of rmap_items on stable nodes."""

from __future__ import annotations

from typing import Final

from schemas.kinds import nanoseconds, pgoff, pointer, text, uint64, user_address
from schemas.mm import ALIVE, BEFORE, CENSORED, CERTAIN, EVIDENCE, UNCERTAIN
from schemas.table import Table

_APPEND = "ev_append"

RMAP_ITEM: Final = Table(
    name="rmap_item",
    version="1.1",
    doc="One life of one rmap_item on one stable node, from stable_tree_append() to its removal.",
    columns=(
        pointer("rmap_item", "The struct ksm_rmap_item.", _APPEND),
        pointer("stable_node", "The struct ksm_stable_node (a dup, never a chain).", _APPEND, null=CENSORED),
        pointer("mm", "rmap_item->mm.", _APPEND, null=CENSORED),
        user_address(
            "address",
            "rmap_item->address without its low bits.",
            _APPEND,
            null="not determined (modelled), or " + CENSORED,
        ),
        pointer("anon_vma", "rmap_item->anon_vma.", _APPEND, null=CENSORED),
        uint64(
            "kpfn", "Page frame number of the stable node at the merge.", _APPEND, null="not in the capture"
        ),
        pgoff(
            "vm_pgoff",
            "vm_pgoff of the VMA at the merge: what strategy vm_pgoff looks up.",
            "replay: the VMA of (anon_vma, mm, address) at the merge",
            null="not known: that VMA is not in the capture",
        ),
        pgoff(
            "linear_page_index",
            "Page offset of the page at the merge: what strategy linear looks up.",
            "the kernel's own (from 7.3 on), else linear_page_index() of the VMA at the merge",
            null="not known: neither is in the capture",
        ),
        nanoseconds("born_ts_ns", "Merge, trace clock.", _APPEND, null=BEFORE),
        nanoseconds(
            "died_ts_ns", "Removal, trace clock (exclusive).", "ev_item_remove, ev_node_remove", null=ALIVE
        ),
        text("evidence", EVIDENCE, "replay: state"),
        user_address(
            "address_least",
            "First of the pages that it may be of.",
            "replay: MERGEABLE VMAs and the order in which ksmd scans",
            null="address is known, or any page of the process may be it",
        ),
        user_address(
            "address_most",
            "Last of the pages that it may be of, inclusive.",
            "replay: MERGEABLE VMAs and the order in which ksmd scans",
            null="address is known, or any page of the process may be it",
        ),
        text("uncertain", UNCERTAIN, "replay: losses", null=CERTAIN),
    ),
)

TABLES: Final = (RMAP_ITEM,)
