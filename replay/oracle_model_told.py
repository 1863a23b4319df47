"""Snapshots of process maps for ``oracle_model``: the slow, obvious twin of ``model_told``."""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any

from replay import model_rules as k
from replay.oracle_model_vma import Areas, Mm, Proposed

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

Event = dict[str, Any]
TOP = (1 << 44) - 1


def snapshots(events: Mapping[str, pl.DataFrame]) -> tuple[list[Event], int]:
    """Each with ``seq``, ``ts_ns``, ``pid``, ``is_whole``, ``lines``; and how many are torn."""
    names = ("ev_syscall", "ev_task", "ev_fault", "ev_marker")
    rows = sorted((row["ts_ns"], row["seq"]) for name in names for row in events[name].to_dicts())
    calls = [(row["pid"], row["ts_ns"]) for row in events["ev_syscall"].to_dicts()]
    every = sorted(events["proc_map"].to_dicts(), key=lambda row: (row["snapshot"], row["vm_start"]))
    every = [row for row in every if row["vm_start"] >> k.PAGE_SHIFT <= TOP]
    files = sorted({row["file"] for row in every if row["file"] is not None})
    found, torn = [], 0
    for _, group in groupby(every, key=lambda row: row["snapshot"]):
        lines = [row | {"number": files.index(row["file"]) + 1 if row["file"] else 0} for row in group]
        pid, begin, end, place = (lines[0][name] for name in ("pid", "begin_ns", "end_ns", "place"))
        if begin is not None and any(other == pid and begin <= ts <= end for other, ts in calls):
            torn += 1
            continue
        if place is None:
            place = max(((ts, seq) for ts, seq in rows if ts <= end), default=(0, -1))[1]
        ts_ns = end if end is not None else min((ts for ts, _ in rows), default=0)
        found.append(
            {"seq": place, "ts_ns": ts_ns, "pid": pid, "is_whole": lines[0]["is_whole"], "lines": lines}
        )
    return found, torn


def tell(areas: Areas, mm: Mm, line: Event) -> bool:
    """One VMA is there; returns whether the model had something else."""
    start, end = line["vm_start"] >> k.PAGE_SHIFT, line["vm_end"] >> k.PAGE_SHIFT
    flags = line["vm_flags"]
    if flags is None:
        prot = 3 if line["prot"] is None else line["prot"]
        flags = prot | k.VM_MAY
        if line["is_shared"]:
            flags |= k.VM_SHARED | k.VM_MAYSHARE
        elif prot & k.VM_WRITE:
            flags |= k.VM_ACCOUNT
        if line["name"] == "[stack]":
            flags |= k.VM_GROWSDOWN
    vma = mm.find(start)
    other = vma is not None and vma.start < end
    if vma is not None and other:
        if (vma.start, vma.end) == (start, end) and not (vma.flags ^ flags) & k.VM_ACCESS_FLAGS:
            return False
        areas.munmap(mm, start, end)
    file = k.MAX_FD + 1 + line["number"] if line["number"] else 0
    pgoff = start if line["pgoff"] is None else line["pgoff"]
    new = areas.new_vma(mm, Proposed(start, end, flags, file, pgoff, start, None, None))
    new.told = (
        (k.TOLD_PGOFF if line["pgoff"] is None else 0)
        | (0 if line["is_shared"] else k.TOLD_ANON_PGOFF)
        | (k.TOLD_FLAGS if line["vm_flags"] is None else 0)
    )
    mm.add(new)
    if (line["is_faulted"] or line["name"] == "[stack]") and not line["is_shared"]:
        areas.anon_vma_prepare(new)
    return other


def gaps(lines: list[Event]) -> list[tuple[int, int]]:
    """Page ranges that no line has, before each line and behind the last; empty ones too."""
    ends = [0, *(line["vm_end"] >> k.PAGE_SHIFT for line in lines)]
    starts = [*(line["vm_start"] >> k.PAGE_SHIFT for line in lines), TOP]
    return list(zip(ends, starts, strict=True))
