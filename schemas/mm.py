"""Result tables of address spaces: VMAs and the intervals that they have on anon_vma trees.

A life is ``[born, died)``. Only what the capture shows is known: what was there before it began is
seen when it goes, if at all.
"""

from __future__ import annotations

from typing import Final

from schemas.kinds import (
    count,
    flag,
    int32,
    int64,
    nanoseconds,
    pgoff,
    pointer,
    real,
    text,
    uint64,
    user_address,
)
from schemas.table import Table

_STATE = "replay: state"
_TREE = "ev_avc"
BEFORE: Final = "before the capture began"
ALIVE: Final = "alive at the end of the capture"
CENSORED: Final = "not known: it was there before the capture began, and only its end was seen"
EVIDENCE: Final = (
    "exact: from probes on the functions that change the state; modelled: from system calls, faults and "
    "forks by the kernel's rules."
)

UNCERTAIN: Final = (
    "Which side of the life was lost with other events: begin or end. Where something else in its place "
    "proves that it lies in the capture, it is put into the loss next to that."
)
CERTAIN: Final = "neither; or modelled"

VMA: Final = Table(
    name="vma",
    version="1.0",
    doc="One version of a VMA: from one change of its range, offset or flags to the next.",
    columns=(
        int64("vma_id", "Number of the version in this capture.", _STATE),
        pointer(
            "vma", "The struct vm_area_struct.", _TREE, null="modelled: the address is not in the capture"
        ),
        pointer("mm", "vma->vm_mm.", _TREE, null="modelled, or " + CENSORED),
        user_address("vm_start", "First byte.", _TREE, null=CENSORED),
        user_address("vm_end", "First byte after it.", _TREE, null=CENSORED),
        pgoff("vm_pgoff", "vma->vm_pgoff.", _TREE, null=CENSORED),
        pgoff(
            "anon_pgoff",
            "Anonymous page offset.",
            _TREE,
            null="the kernel has none (up to 7.2), or " + CENSORED,
        ),
        uint64("vm_flags", "vma->vm_flags.", _TREE, null="not in the capture", unit="VM_* bits"),
        pointer(
            "anon_vma",
            "vma->anon_vma: its own, the one that it was given last.",
            _TREE,
            null="not faulted yet, or not in the capture",
        ),
        nanoseconds("born_ts_ns", "Start of this version, trace clock.", _STATE, null=BEFORE),
        nanoseconds("died_ts_ns", "End of this version, trace clock (exclusive).", _STATE, null=ALIVE),
        text(
            "cause_event",
            "What made this version: name of the system call or event.",
            _STATE,
            null="not known",
        ),
        text("evidence", EVIDENCE, _STATE),
    ),
)

AVC: Final = Table(
    name="avc",
    version="1.1",
    doc="One life of one interval on the tree of one anon_vma, from its insertion to its removal.",
    columns=(
        pointer(
            "avc", "The struct anon_vma_chain.", _TREE, null="modelled: the address is not in the capture"
        ),
        pointer("anon_vma", "avc->anon_vma.", _TREE, null="modelled: the address is not in the capture"),
        int64("vma_id", "The version of the VMA (see table vma).", _STATE, null="not known"),
        pointer("mm", "avc->vma->vm_mm.", _TREE, null="modelled, or " + CENSORED),
        pgoff(
            "first_pgoff",
            "First page offset of the interval, inclusive: key of the tree.",
            _TREE,
            null=CENSORED,
        ),
        pgoff("last_pgoff", "Last page offset of the interval, inclusive.", _TREE, null=CENSORED),
        user_address("vm_start", "First byte of the VMA.", _TREE, null=CENSORED),
        user_address("vm_end", "First byte after the VMA.", _TREE, null=CENSORED),
        nanoseconds("born_ts_ns", "Insertion, trace clock.", _TREE, null=BEFORE),
        nanoseconds("died_ts_ns", "Removal, trace clock (exclusive).", _TREE, null=ALIVE),
        int64("born_seq", "Insertion as place in the total order of events.", _TREE, null=BEFORE),
        int64("died_seq", "Removal as place in the total order of events (exclusive).", _TREE, null=ALIVE),
        text("evidence", EVIDENCE, _STATE),
        text("uncertain", UNCERTAIN, "replay: losses", null=CERTAIN),
    ),
)

_MAPS: Final = "/proc/PID/maps or smaps; perf's mmap2 records"
_NOT_TOLD: Final = "the source does not tell"

PROC_MAP: Final = Table(
    name="proc_map",
    version="1.1",
    doc="One VMA of one process at one instant, as a snapshot of its maps or a record of it tells it.",
    columns=(
        int64("snapshot", "Number of the snapshot that the row belongs to.", _MAPS),
        int32(
            "pid", "The process: thread id of its first task; of a record, of the task that made it.", _MAPS
        ),
        nanoseconds("begin_ns", "When it began to be read, CLOCK_MONOTONIC.", _MAPS, null=_NOT_TOLD),
        nanoseconds("end_ns", "When it was read.", _MAPS, null=_NOT_TOLD),
        int64(
            "place",
            "Place in the order of events behind which it holds; -1: when the capture began.",
            _MAPS,
            null="follows from the times",
        ),
        flag("is_whole", "Whether what the snapshot does not list is not mapped.", _MAPS),
        user_address("vm_start", "First byte.", _MAPS),
        user_address("vm_end", "First byte after it.", _MAPS),
        int32("prot", "Read 1, write 2, execute 4.", _MAPS, null=_NOT_TOLD, unit="PROT_* bits"),
        flag("is_shared", "MAP_SHARED.", _MAPS, null=_NOT_TOLD),
        pgoff("pgoff", "Page offset in the file.", _MAPS, null=f"no file: anonymous memory, or {_NOT_TOLD}"),
        text("file", "Device, inode and path of the file.", _MAPS, null="no file: anonymous memory"),
        text("name", "Name in brackets, such as [stack].", _MAPS, null="none"),
        uint64("vm_flags", "vma->vm_flags.", "VmFlags of smaps", null=_NOT_TOLD, unit="VM_* bits"),
        flag(
            "is_record",
            "Whether the kernel wrote it down when it made the VMA, as perf's mmap2 records.",
            _MAPS,
        ),
        flag("is_faulted", "True: it has anonymous pages, so an anon_vma.", "smaps", null=_NOT_TOLD),
    ),
)

PROC_THREAD: Final = Table(
    name="proc_thread",
    version="1.0",
    doc="One thread that was there when the capture began, and its process.",
    columns=(
        int32("pid", "Thread id.", "perf's comm records"),
        int32("tgid", "Thread id of the first task of its process.", "perf's comm records"),
    ),
)

AGREEMENT: Final = Table(
    name="agreement",
    version="1.0",
    doc="How well the trees rebuilt from system calls agree with the probed ones, over all tree changes that "
    "the probes saw in anon_vma families that grew from mappings whose creation the capture saw (mmap, brk, "
    "fork of such a process). There with --evidence both.",
    columns=(
        text(
            "cause",
            "Why they differ: a name of replay.agreement_causes, such as call_not_over.",
            "replay: agreement",
            null="they do not: the modelled tree holds exactly the same intervals",
        ),
        count("instants", "Tree changes after which it is so.", "replay: agreement"),
        real("share", "The same among all of them.", "replay: agreement", unit="1"),
        count(
            "trees",
            "Trees: of the first row, those that never differ.",
            "replay: agreement",
            null="another row",
        ),
        text("meaning", "The cause in words.", "replay: agreement", null="they do not differ"),
    ),
)

TABLES: Final = (VMA, AVC, PROC_MAP, PROC_THREAD, AGREEMENT)
