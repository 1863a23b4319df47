"""Result tables of anon_vma families: how they grow by fork."""

from __future__ import annotations

from typing import Final

from schemas.kinds import count, int64, nanoseconds, pointer, text
from schemas.mm import BEFORE, EVIDENCE
from schemas.table import Table

_FAMILIES: Final = "replay: families"

FAMILY: Final = Table(
    name="family",
    version="1.0",
    doc="One of the largest families of anon_vmas that share a root (anon_vma->root), and so one lock, by "
    "the anon_vma_chains that it had at once. Families of one anon_vma are left out: no fork made them grow.",
    columns=(
        int64("family_id", "Number of the family in this table, from 0.", _FAMILIES),
        pointer(
            "root",
            "The root anon_vma; modelled: a number. Of several that were there before the capture began, the "
            "one with the lowest address: which of them it is, no event tells.",
            "ev_avc",
        ),
        nanoseconds("born_ts_ns", "First interval on the root's tree, trace clock.", _FAMILIES, null=BEFORE),
        count("anon_vmas", "anon_vmas that the family had in the capture, the root among them.", _FAMILIES),
        count("mms", "Address spaces that had a VMA in it.", _FAMILIES),
        count(
            "depth",
            "Most trees that one of its VMAs was on: 1, and 1 for each fork above it that made an anon_vma.",
            "mm/rmap.c anon_vma_clone(), anon_vma_fork()",
        ),
        count("avcs_peak", "Most anon_vma_chains at once; each fork adds one a tree a VMA.", _FAMILIES),
        nanoseconds("peak_ts_ns", "When it had that many first, trace clock.", _FAMILIES, null=BEFORE),
        count("forked_vmas", "VMAs that a fork, clone or vfork put into it.", _FAMILIES),
        count(
            "reused",
            "Of these, the ones that got an anon_vma of a dead relative instead of a new one.",
            "mm/rmap.c anon_vma_clone()",
        ),
        text("evidence", EVIDENCE, _FAMILIES),
    ),
)

FAMILY_GROWTH: Final = Table(
    name="family_growth",
    version="1.0",
    doc="One family of table family at an instant.",
    columns=(
        int64("family_id", "The family.", _FAMILIES),
        nanoseconds("ts_ns", "The instant, trace clock.", _FAMILIES),
        count("avcs", "anon_vma_chains that it has.", _FAMILIES),
    ),
)

TABLES: Final = (FAMILY, FAMILY_GROWTH)
